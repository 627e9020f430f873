"""What a commit brings to the live queries of a copy."""

from __future__ import annotations

from functools import partial

from kalam.live.watch import Watch
from kalam.storage.log.copies import Chunk
from kalam.tables.versions import batch_of_chunks


def take_chunk(watch: Watch, chunk: Chunk) -> None:
    """Have a watch take in a chunk; after a TRUNCATE or a change of any size its live queries begin anew."""
    if chunk.begins_anew:
        watch.then(partial(watch.lose, chunk.last_seq))
    else:
        watch.take(partial(batch_of_chunks, (chunk,), watch.reader), chunk.row_count)
