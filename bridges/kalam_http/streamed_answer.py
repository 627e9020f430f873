"""Answers that are sent while their rows are found: NDJSON, CSV, Arrow, Parquet.

The law: a client can always tell a whole answer from one that broke off. What goes wrong before the first row is an
ordinary problem. Later NDJSON ends in a line ``{"error": {…}}``; the other formats have no place for it, so the
transfer is broken off without its end, which every HTTP client notices.
"""

from __future__ import annotations

import io
from collections.abc import AsyncGenerator, Callable
from typing import Any, Final

import msgspec
import pyarrow as pa
import structlog
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from kalam.errors import Internal, KalamError
from kalam.query.results import problem_json, widely_known
from kalam.query.row_text import csv, ndjson
from kalam.rows.door import ARROW_STREAM
from kalam.threads import Purpose, in_thread
from kalam_http.departures import until_left
from kalam_http.edge import BrokenOff
from kalam_http.rows_body import CSV, NDJSON

PARQUET: Final = "application/vnd.apache.parquet"
STREAMED: Final = (NDJSON, CSV, ARROW_STREAM, PARQUET)
log = structlog.get_logger(__name__)


class StreamedAnswer(Response):
    """A body that is made while it is sent, and let go of when the client has left or is cut off."""

    def __init__(self, body: AsyncGenerator[bytes, None], media_type: str, headers: dict[str, str]) -> None:
        super().__init__(media_type=media_type, headers=headers)
        self.raw_headers = [pair for pair in self.raw_headers if pair[0] != b"content-length"]
        self._body = body

    @classmethod
    async def begun(cls, body: AsyncGenerator[bytes, None], media_type: str, headers: dict[str, str]) -> StreamedAnswer:
        """The answer, once its first piece is there; raises what went wrong before that."""
        first = await anext(body, b"")
        return cls(_continued(first, body), media_type, headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer."""
        try:
            await until_left(receive, self._send_all(send))
        finally:
            await self._body.aclose()

    async def _send_all(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for piece in self._body:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _continued(first: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    try:
        yield first
        async for piece in rest:
            yield piece
    finally:
        await rest.aclose()


async def body_of(
    tables: AsyncGenerator[pa.Table, None], media_type: str, *, bigint_as_text: bool = False
) -> AsyncGenerator[bytes, None]:
    """The rows in a format, a piece for each table."""
    form = _form_of(media_type, bigint_as_text)
    head, begun = b"", False
    try:
        try:
            async for table in tables:
                head += await in_thread(Purpose.ANSWERS, form.encode, table)
                if table.num_rows:  # until then nothing is sent, so that an error is still an ordinary answer
                    begun = True
                    yield head
                    head = b""
            yield head + form.end()
        except KalamError as exc:
            if not begun:
                raise
            yield _break_off(exc, media_type)
        except Exception as exc:
            if not begun:
                raise
            log.exception("a streamed answer failed")
            yield _break_off(Internal(f"an internal error stopped the answer ({type(exc).__name__})"), media_type)
    finally:
        await tables.aclose()


def _break_off(error: KalamError, media_type: str) -> bytes:
    """The last line of NDJSON; raises BrokenOff in a format that has no place for an error."""
    if media_type != NDJSON:
        raise BrokenOff(error.detail) from error
    return msgspec.json.encode({"error": msgspec.Raw(problem_json(error))}) + b"\n"


def _form_of(media_type: str, bigint_as_text: bool) -> _Text | _Columns:
    if media_type == ARROW_STREAM:
        return _Columns(pa.ipc.new_stream)
    if media_type == PARQUET:
        import pyarrow.parquet as pq  # which takes a while, and few ask for it

        return _Columns(pq.ParquetWriter)
    return _Text(media_type, bigint_as_text)


class _Text:
    def __init__(self, media_type: str, bigint_as_text: bool) -> None:
        self._media_type, self._bigint_as_text = media_type, bigint_as_text
        self._begun = False

    def encode(self, table: pa.Table) -> bytes:
        if self._media_type == NDJSON:
            return ndjson(table, bigint_as_text=self._bigint_as_text)
        header, self._begun = not self._begun, True
        return csv(table, header=header)

    def end(self) -> bytes:
        return b""


class _Columns:
    """Arrow and Parquet: ``writer`` makes what writes tables of a schema into a file."""

    def __init__(self, writer: Callable[[_Sink, pa.Schema], Any]) -> None:
        self._sink = _Sink()
        self._make = writer
        self._schema: pa.Schema | None = None
        self._writer: Any = None

    def encode(self, table: pa.Table) -> bytes:
        table = widely_known(table)
        if self._schema is None:
            self._schema = table.schema
            self._writer = self._make(self._sink, table.schema)
        if table.num_rows:  # whether a column may be NULL is known better once there are rows
            self._writer.write_table(table if table.schema == self._schema else table.cast(self._schema))
        return self._sink.take()

    def end(self) -> bytes:
        """The mark that tells a reader that the stream is whole; of a Parquet file its table of contents."""
        assert self._writer is not None
        self._writer.close()
        return self._sink.take()


class _Sink(io.RawIOBase):
    """A file that gives away what was written to it."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0

    def writable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """All that was ever written."""
        return self._size

    def write(self, piece: Any) -> int:
        """Keep a copy of a piece."""
        self._pieces.append(bytes(piece))
        self._size += len(self._pieces[-1])
        return len(self._pieces[-1])

    def take(self) -> bytes:
        """What was written since the last time."""
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)
