"""Rows on their way into tables: gathered for a few milliseconds, sent in batches, answered one by one.

The law: each call of ``insert`` gets its own answer, and a failure reaches the caller whose rows it is about. Calls
that come within the linger share a message; if that message is refused, the rows of each call are sent again by
themselves, so that nobody pays for another's bad row. Every message has an id, so that one whose answer was lost is
sent again without being stored twice.
"""

from __future__ import annotations

import asyncio
import dataclasses
import io
import uuid
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from kalam.client.link import Link
from kalam.client.values import library, plain
from kalam.errors import BrokerUnavailable, InvalidValue, RequestError, TooBusy

ARROW_STREAM = "application/vnd.apache.arrow.stream"
BATCH_BYTES_MAX = 256 << 10
BATCH_ROWS_MAX = 1_000
PAYLOAD_SLACK_BYTES = 4 << 10
WAITING_BYTES_MAX = 16 << 20
RETRY_PAUSE_S = 0.1
ROWS = "dictionaries, dataclasses, Arrow, pandas or polars"
_ENCODE = msgspec.msgpack.Encoder(enc_hook=plain).encode


@dataclasses.dataclass(slots=True)
class Call:
    """The rows of one call of ``insert``, encoded, and who waits for them."""

    rows: Sequence[bytes]
    size: int
    answered: asyncio.Future[int]


class Inserter:
    """Sends the rows for one subject. ``linger_s`` is how long a call waits for others to share its message."""

    def __init__(self, link: Link, subject: str, linger_s: float, timeout_s: float) -> None:
        self._link, self._subject, self._linger_s, self._timeout_s = link, subject, linger_s, timeout_s
        self._calls: list[Call] = []
        self._size = self._count = 0
        self._bytes_max = BATCH_BYTES_MAX
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting_bytes = 0
        self._room = asyncio.Event()

    async def insert(self, rows: Any) -> int:
        """Insert rows; how many were stored. Raises the error of the first batch that failed."""
        table = as_arrow(rows)
        if table is not None:
            return await self._insert_arrow(table)
        encoded = encode_rows(rows)
        self._bytes_max = min(BATCH_BYTES_MAX, await self._payload_bytes())
        return sum(await asyncio.gather(*(self._call(part) for part in _parts(encoded, self._bytes_max))))

    async def _payload_bytes(self) -> int:
        """How long the rows of a message may be, so that the broker takes it."""
        client = await self._link.client(self._timeout_s)
        return max(1, int(client.max_payload) - PAYLOAD_SLACK_BYTES)

    async def _call(self, rows: Sequence[bytes]) -> int:
        size = sum(map(len, rows))
        while self._waiting_bytes and self._waiting_bytes + size > WAITING_BYTES_MAX:
            self._room.clear()
            await self._room.wait()
        self._waiting_bytes += size
        call = Call(rows, size, asyncio.get_running_loop().create_future())
        if self._calls and self._size + size > self._bytes_max:
            self._flush()
        self._calls.append(call)
        self._size, self._count = self._size + size, self._count + len(rows)
        if self._size >= self._bytes_max or self._count >= BATCH_ROWS_MAX:
            self._flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._linger_s, self._flush)
        try:
            return await call.answered
        finally:
            self._waiting_bytes -= size
            self._room.set()

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        calls, self._calls, self._size, self._count = self._calls, [], 0, 0
        if calls:
            task = asyncio.create_task(self._send(calls), name=f"insert {self._subject}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _send(self, calls: Sequence[Call]) -> None:
        rows = [row for call in calls for row in call.rows]
        try:
            await self._ask(_array(rows), {})
        except RequestError as exc:
            if len(calls) == 1:
                _fail(calls, exc)
                return
            await asyncio.gather(*(self._send([call]) for call in calls))
        except Exception as exc:  # noqa: BLE001 - whatever it is, whoever waits is told
            if len(calls) > 1 and not isinstance(exc, BrokerUnavailable):
                await asyncio.gather(*(self._send([call]) for call in calls))
                return
            _fail(calls, exc)
        else:
            for call in calls:
                if not call.answered.done():
                    call.answered.set_result(len(call.rows))

    async def _insert_arrow(self, table: Any) -> int:
        stored, start = 0, 0
        check_arrow(table)
        payload_bytes = await self._payload_bytes()
        bound = min(payload_bytes, BATCH_BYTES_MAX * 4)
        row_bytes = max(1, table.nbytes // max(1, table.num_rows))
        step = max(1, min(BATCH_ROWS_MAX * 10, bound // (2 * row_bytes)))
        while start < table.num_rows:
            payload = arrow_payload(without_dictionaries(table.slice(start, step)))
            if len(payload) > payload_bytes and step > 1:
                step //= 2
                continue
            await self._ask(payload, {"Content-Type": ARROW_STREAM})
            stored += min(step, table.num_rows - start)
            start += step
        return stored

    async def _ask(self, payload: bytes, headers: dict[str, str]) -> bytes:
        """Send a batch until it is answered; the id makes a repeat harmless."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout_s
        named = {**headers, "Nats-Msg-Id": uuid.uuid4().hex}
        while True:
            left = max(0.05, deadline - loop.time())
            try:
                return await self._link.ask(self._subject, payload, timeout_s=min(left, 5.0), headers=named)
            except (BrokerUnavailable, TooBusy):
                if loop.time() + RETRY_PAUSE_S >= deadline:
                    raise
                await asyncio.sleep(RETRY_PAUSE_S)

    async def drain(self) -> None:
        """Send what waits and wait for the answers."""
        self._flush()
        while self._tasks:
            await asyncio.wait(self._tasks)


def _fail(calls: Iterable[Call], error: Exception) -> None:
    for call in calls:
        if not call.answered.done():
            call.answered.set_exception(error)


def encode_rows(rows: Any) -> list[bytes]:
    """The rows as msgpack maps: one dictionary, dataclass or msgspec struct, or any iterable of them."""
    if isinstance(rows, dict | msgspec.Struct) or (dataclasses.is_dataclass(rows) and not isinstance(rows, type)):
        rows = [rows]
    try:
        found = iter(rows)
    except TypeError as exc:
        raise InvalidValue(f"a {type(rows).__name__} is no rows; rows are {ROWS}") from exc
    return [_encode_row(row) for row in found]  # what the caller's own iterator raises is the caller's


def _encode_row(row: Any) -> bytes:
    try:
        return _ENCODE(row)
    except (TypeError, ValueError, OverflowError, RecursionError) as exc:
        raise InvalidValue(f"a row cannot be sent: {exc}; rows are {ROWS}") from exc


def _array(rows: Sequence[bytes]) -> bytes:
    return b"\xdd" + len(rows).to_bytes(4, "big") + b"".join(rows)


def _parts(rows: Sequence[bytes], bytes_max: int) -> Iterator[Sequence[bytes]]:
    part: list[bytes] = []
    size = 0
    for row in rows:
        if part and (size + len(row) > bytes_max or len(part) >= BATCH_ROWS_MAX):
            yield part
            part, size = [], 0
        part.append(row)
        size += len(row)
    if part:
        yield part


def as_arrow(rows: Any) -> Any:
    """The Arrow table of Arrow data or of a frame of pandas or polars; None for anything else."""
    module = type(rows).__module__.partition(".")[0]
    if module not in ("pyarrow", "pandas", "polars"):
        return None
    pa = library("pyarrow", f"to insert a {module} {type(rows).__name__}")
    if isinstance(rows, pa.RecordBatch):
        return pa.Table.from_batches([rows])
    if isinstance(rows, pa.Table):
        return rows
    try:
        return rows.to_arrow() if module == "polars" else pa.Table.from_pandas(rows, preserve_index=False)
    except (pa.ArrowException, AttributeError, TypeError, ValueError) as exc:
        hint = "collect() it first" if type(rows).__name__ == "LazyFrame" else None
        raise InvalidValue(
            f"a {type(rows).__name__} cannot be sent as Arrow: {exc}; rows are {ROWS}", hint=hint
        ) from exc


def without_dictionaries(table: Any) -> Any:
    """A table whose columns hold their values themselves: of categories each message would carry all there are."""
    import pyarrow as pa

    for place, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            table = table.set_column(place, field.name, table.column(place).cast(field.type.value_type))
    return table


def check_arrow(table: Any) -> None:
    """Raise InvalidValue for a table with a buffer that does not hold what it says: to cut it could end the process."""
    import pyarrow as pa

    try:
        table.validate(full=True)
    except (pa.ArrowException, ValueError) as exc:
        raise InvalidValue(f"the Arrow table is damaged: {exc}") from exc


def arrow_payload(table: Any) -> bytes:
    """An Arrow table as an IPC stream."""
    import pyarrow as pa

    sink = io.BytesIO()
    try:
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    except pa.ArrowException as exc:
        raise InvalidValue(f"the rows cannot be sent as Arrow: {exc}") from exc
    return sink.getvalue()
