"""The body of ``POST /v1/tables/{ns}/{table}/rows``: pieces from the network become batches to insert.

At no time more than a row, a piece and a batch are held, so a body may be longer than the memory.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from functools import partial
from typing import Final

import pyarrow as pa
from starlette.requests import Request

from kalam.errors import InvalidValue, KalamError, TooLarge, Unsupported
from kalam.rows.door import ARROW_STREAM
from kalam.rows.formats.batches import Batch, Cutter, OnBad, RawBatcher, TableBatcher
from kalam.rows.formats.csv_text import CsvText
from kalam.rows.formats.foreign_arrow import ForeignStream
from kalam.rows.formats.json_text import JsonArray, JsonLines
from kalam.rows.formats.msgpack_maps import MsgpackMaps
from kalam.threads import Purpose, in_thread
from kalam_http.bodies import JSON

NDJSON: Final = "application/x-ndjson"
CSV: Final = "text/csv"
MSGPACK: Final = "application/msgpack"
ROW_FORMATS: Final = (JSON, NDJSON, CSV, MSGPACK, ARROW_STREAM)
OTHER_NAMES: Final = {
    "application/ndjson": NDJSON,
    "application/jsonl": NDJSON,
    "application/x-msgpack": MSGPACK,
    "application/vnd.msgpack": MSGPACK,
}

BATCH_ROWS: Final = 5_000
"""Rows that are inserted together: a body of no more is one transaction on SHARED and USER tables."""
BATCH_BYTES: Final = 4 << 20
ROW_BYTES_MAX: Final = 8 << 20
CUT_BYTES: Final = 64 << 10
"""So many are looked through in one go: as JSON they take the event loop up to a millisecond."""
ARROW_READ_BYTES_MAX: Final = 64 << 20
"""The largest message of an Arrow stream, which is held as a whole."""


def row_format(content_type: str | None) -> str:
    """The format that a Content-Type names; raises Unsupported for another."""
    given = (content_type or "").partition(";")[0].strip().lower()
    known = OTHER_NAMES.get(given, given)
    if known not in ROW_FORMATS:
        raise Unsupported(f"rows come as {', '.join(ROW_FORMATS)}; found Content-Type {given[:80] or 'none'}")
    return known


async def batches(request: Request, media_type: str, on_bad: OnBad | None = None) -> AsyncIterator[Batch]:
    """The rows of a request's body; raises the KalamError of the first thing that is no row.

    A line of CSV or NDJSON, or an element of a JSON array, that is no row goes to ``on_bad`` instead, if there is one.
    """
    pieces = (piece async for piece in request.stream() if piece)
    match media_type:
        case "text/csv":
            found = _csv_batches(pieces, on_bad)
        case "application/vnd.apache.arrow.stream":
            found = _arrow_batches(pieces)
        case "application/msgpack":
            found = _raw_batches(pieces, MsgpackMaps(ROW_BYTES_MAX), msgpack=True)
        case "application/x-ndjson":
            found = _raw_batches(pieces, JsonLines(ROW_BYTES_MAX, on_bad))
        case _:
            found = _raw_batches(pieces, JsonArray(ROW_BYTES_MAX, on_bad))
    async for batch in found:
        yield batch


async def _raw_batches(pieces: AsyncIterator[bytes], cutter: Cutter, *, msgpack: bool = False) -> AsyncIterator[Batch]:
    batcher = RawBatcher(BATCH_ROWS, BATCH_BYTES, msgpack=msgpack)
    async for piece in pieces:
        for start in range(0, len(piece), CUT_BYTES):
            if start:
                await asyncio.sleep(0)
            for batch in batcher.add(cutter.feed(piece[start : start + CUT_BYTES])):
                yield batch
    for batch in batcher.add(cutter.end()):
        yield batch
    for batch in batcher.end():
        yield batch


async def _csv_batches(pieces: AsyncIterator[bytes], on_bad: OnBad | None) -> AsyncIterator[Batch]:
    bad: list[tuple[KalamError, bytes]] = []  # which the loop tells, for a thread may not
    text = CsvText(ROW_BYTES_MAX, on_bad=None if on_bad is None else lambda *told: bad.append(told))
    batcher = TableBatcher(BATCH_ROWS, BATCH_BYTES)

    def cut(read: Callable[[], pa.Table | None]) -> list[Batch]:
        table = read()
        return [] if table is None else list(batcher.add(table))

    async def cut_beside(read: Callable[[], pa.Table | None]) -> list[Batch]:
        try:
            return await in_thread(Purpose.ROWS, cut, read)
        finally:
            if on_bad is not None:
                for told in bad:
                    on_bad(*told)
                bad.clear()

    async for piece in pieces:
        for batch in await cut_beside(partial(text.feed, piece)):
            yield batch
    for batch in await cut_beside(text.end):
        yield batch
    for batch in batcher.end():
        yield batch


async def _arrow_batches(pieces: AsyncIterator[bytes]) -> AsyncIterator[Batch]:
    """Read in a thread, because pyarrow reads from files: the thread waits for the network as for a disk."""
    batcher = TableBatcher(BATCH_ROWS, BATCH_BYTES)
    body = BodyFile(pieces, asyncio.get_running_loop())
    try:
        stream = await in_thread(Purpose.BODIES, ForeignStream, body)
        while (found := await in_thread(Purpose.BODIES, stream.next_batch)) is not None:
            for batch in batcher.add(pa.Table.from_batches([found])):
                yield batch
    except InvalidValue as exc:
        if body.failure is not None:
            raise body.failure from exc
        raise
    for batch in batcher.end():
        yield batch


class BodyFile(io.RawIOBase):
    """A body as a file for a thread. ``failure`` is what ended the body early, which pyarrow would hide."""

    def __init__(self, pieces: AsyncIterator[bytes], loop: asyncio.AbstractEventLoop) -> None:
        self._pieces, self._loop = pieces, loop
        self._rest = b""
        self.failure: BaseException | None = None

    def readable(self) -> bool:
        """It is."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Exactly ``size`` bytes, fewer at the end."""
        if size > ARROW_READ_BYTES_MAX or size < 0:
            self.failure = TooLarge(f"a message of the Arrow stream exceeds {ARROW_READ_BYTES_MAX} bytes")
            raise OSError(str(self.failure))
        parts, found = [self._rest], len(self._rest)
        while found < size:
            piece = self._next_piece()
            if not piece:
                break
            parts.append(piece)
            found += len(piece)
        whole = b"".join(parts)
        self._rest = whole[size:]
        return whole[:size]

    def _next_piece(self) -> bytes:
        waiting: Future[bytes] = asyncio.run_coroutine_threadsafe(_next_piece(self._pieces), self._loop)
        try:
            return waiting.result()
        except BaseException as exc:
            self.failure = exc
            raise OSError(str(exc)) from exc


async def _next_piece(pieces: AsyncIterator[bytes]) -> bytes:
    return await anext(pieces, b"")
