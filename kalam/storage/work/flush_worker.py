"""The process that turns hot versions into Parquet files; its whole life is ``main``.

fastparquet's encoders hold the interpreter's lock, so they run in a process of their own and the server goes on
answering. The process reads the log itself (a read-only connection), so no row passes through a pipe: a request names
the copy and the range of versions, the answer describes the files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kalam.rows.columns import arrow_schema
from kalam.rows.field_ids import carries_ids, with_field_ids
from kalam.rows.keys import keys_in
from kalam.rows.types import TIMESTAMP_ARROW
from kalam.rows.versions import History, StoredVersions
from kalam.schema import SEQ, UPDATED, Column
from kalam.storage.log.chunk_columns import columns_of
from kalam.storage.log.copies import Chunk
from kalam.storage.log.copy_store import pack_key, read_chunks
from kalam.storage.log.database import connect
from kalam.storage.log.written_file import WrittenFile
from kalam.storage.segments.parquet import WholeSegmentWriter
from kalam.storage.work.output_file import SegmentsRequest
from kalam.storage.work.segment_output import Output
from kalam.storage.work.worker_process import WorkerAnswer, serve_requests

PAIRS_AT_ONCE: Final = 1_000
_PAIRS: Final = msgspec.msgpack.Decoder(list[tuple[bytes, int]])


class FlushRequest(SegmentsRequest, kw_only=True):
    """Write the winning versions up to ``upto_seq``."""

    upto_seq: int


class FlushAnswer(WorkerAnswer, kw_only=True):
    """The files. Where it failed no file was left behind.

    ``overrides`` are keys and seqs, encoded some at a time: to decode a hundred thousand in one go would hold up
    every thread of the server.
    """

    files: list[WrittenFile] = msgspec.field(default_factory=list)
    overrides: list[bytes] = msgspec.field(default_factory=list)
    row_count: int = 0

    def overriding(self) -> Iterator[tuple[bytes, int]]:
        """The packed keys, and the seqs of the versions that hide older ones of them."""
        for part in self.overrides:
            yield from _PAIRS.decode(part)


def main() -> None:
    """Answer requests until the input ends."""
    serve_requests(FlushRequest, lambda request, tell: flush(request), FlushAnswer)


def flush(request: FlushRequest) -> FlushAnswer:
    """Read, choose the winners, sort, write."""
    conn = connect(Path(request.database), read_only=True)
    try:
        conn.execute("BEGIN")
        chunks = read_chunks(conn, request.copy_id, f"flushed = 0 AND first_seq <= {int(request.upto_seq)}")
    finally:
        conn.close()
    if not chunks:
        return FlushAnswer()
    versions = Versions(chunks, request.columns, request.history, request.key)
    remembered = versions.deleted[versions.updated[versions.deleted] >= request.forget_deleted_us]
    with Output(request, partial(WholeSegmentWriter, compression=request.compression)) as output:
        for deleted, winners in ((False, versions.live), (True, remembered)):
            if len(winners):
                output.add(_sorted(request, versions, winners), deleted=deleted)
                output.complete()
    pairs = ((pack_key(versions.keys[i]), int(versions.seqs[i])) for i in versions.overriding)
    overrides = [msgspec.msgpack.encode(part) for part in iter(lambda: list(islice(pairs, PAIRS_AT_ONCE)), [])]
    return FlushAnswer(files=output.written, overrides=overrides, row_count=len(versions.live) + len(versions.deleted))


class Versions:
    """All versions of a range in columns, and which of them win.

    ``live`` and ``deleted`` are the winners' places, in no order; ``overriding`` those winners that may hide an older
    copy in a segment: their key's first version in the range is itself a superseding one.
    """

    def __init__(
        self, chunks: Sequence[Chunk], columns: Sequence[Column], history: History, key: Sequence[str]
    ) -> None:
        counts = [chunk.row_count for chunk in chunks]
        self.seqs = np.concatenate([np.arange(c.first_seq, c.last_seq + 1) for c in chunks])
        self.updated = updated = np.repeat([chunk.updated_us for chunk in chunks], counts)
        self.table = (
            columns_of(chunks, StoredVersions(columns, history), arrow_schema(columns))
            .append_column(UPDATED, pa.array(updated, pa.int64()).cast(TIMESTAMP_ARROW))
            .append_column(SEQ, pa.array(self.seqs))
        )
        dead = np.repeat([chunk.op == "delete" for chunk in chunks], counts)
        superseding = np.repeat([chunk.superseding for chunk in chunks], counts)
        self.keys: list[Any] = []
        self.overriding: list[int] = []
        count = len(self.seqs)
        if not superseding.any():  # no key has two versions
            self.live, self.deleted = np.arange(count), np.empty(0, np.int64)
            return
        self.keys = keys_in([self.table.column(name) for name in key])
        last = dict(zip(self.keys, range(count), strict=True))
        winners = np.fromiter(last.values(), np.int64, len(last))
        self.live, self.deleted = winners[~dead[winners]], winners[dead[winners]]
        first = dict(zip(reversed(self.keys), range(count - 1, -1, -1), strict=True))
        self.overriding = [place for key, place in last.items() if superseding[first[key]]]


def _sorted(request: FlushRequest, versions: Versions, winners: np.ndarray[Any, Any]) -> pa.Table:
    rows = versions.table.combine_chunks()
    if len(winners) < rows.num_rows:
        rows = rows.take(pa.array(winners))
    if not _is_sorted(rows, request.key):
        rows = rows.take(pc.sort_indices(rows, sort_keys=[(name, "ascending") for name in request.key]))
    if carries_ids(request.history, request.schema_version):
        rows = rows.cast(with_field_ids(rows.schema, request.columns))
    return rows


def _is_sorted(rows: pa.Table, key: Sequence[str]) -> bool:
    """Whether rows come in the order of their keys, as growing ones do; keys of several columns are not looked at."""
    if len(key) > 1:
        return False
    column = rows.column(key[0])
    return bool(pc.all(pc.less(column.slice(0, max(0, len(column) - 1)), column.slice(1))).as_py())
