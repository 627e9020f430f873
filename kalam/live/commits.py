"""What commits bring to the live queries of a copy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from kalam.live.watch import INLINE_ROWS_MAX, Watch, WatchName
from kalam.storage.log.copies import Chunk
from kalam.storage.log.writes import Announcement
from kalam.tables.versions import batch_of_chunks


def take_commits(watches: Mapping[WatchName, Watch], announcements: Sequence[Announcement]) -> None:
    """Have the watches take in what was committed together, in order."""
    chunks: dict[WatchName, list[Chunk]] = {}
    for each in announcements:
        name = (each.table.table_id, each.copy.user)
        if name in watches:
            chunks.setdefault(name, []).append(each.chunk)
    for name, several in chunks.items():
        if (watch := watches.get(name)) is not None:
            take_chunks(watch, several)


def take_chunks(watch: Watch, chunks: Sequence[Chunk]) -> None:
    """Have a watch take in chunks that were committed together, in order: small ones at once, as one batch.

    After a TRUNCATE or a change of any size its live queries begin anew.
    """
    run: list[Chunk] = []
    rows = 0
    for chunk in chunks:
        if run and (chunk.begins_anew or rows + chunk.row_count > INLINE_ROWS_MAX):
            _take_run(watch, run, rows)
            run, rows = [], 0
        if chunk.begins_anew:
            watch.then(partial(watch.lose, chunk.last_seq))
        else:
            run.append(chunk)
            rows += chunk.row_count
    if run:
        _take_run(watch, run, rows)


def _take_run(watch: Watch, run: Sequence[Chunk], rows: int) -> None:
    watch.take(partial(batch_of_chunks, run, watch.reader), rows)
