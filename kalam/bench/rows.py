"""The rows that are measured: eight columns, about 110 bytes of JSON, each a function of its number."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS: Final = "id {id} {key}, ts TIMESTAMP, user_id TEXT, url TEXT, status INT, latency DOUBLE, ok BOOLEAN, tag TEXT"
NO_FLUSH: Final = "FLUSH_POLICY = 'rows:10000000'"
FIRST_MS: Final = 1_700_000_000_000
STATUSES: Final = (200, 200, 200, 200, 201, 204, 304, 404, 429, 500)
TAGS: Final = ("eu", "us", "asia", "web", "app")


class Encoding(enum.StrEnum):
    """What the rows of a message are written in."""

    JSON = "json"
    MSGPACK = "msgpack"
    ARROW = "arrow"


class Row(msgspec.Struct, frozen=True, gc=False):
    """A row as JSON carries it; ``ts`` is milliseconds since 1970."""

    id: int | str
    ts: int
    user_id: str
    url: str
    status: int
    latency: float
    ok: bool
    tag: str


def random_key(number: int) -> str:
    """A UUID that looks random, another one for each number."""
    digits = "".join(f"{scatter(number + (place << 32)):08x}" for place in range(4))
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def row(number: int, key: str | None = None) -> Row:
    """The row of that number, which is also its key unless another is given."""
    scattered = scatter(number)
    status = STATUSES[scattered % 10]
    return Row(
        number if key is None else key,
        FIRST_MS + number,
        f"u{scattered % 5_003}",
        f"/item/{scattered % 997}",
        status,
        scattered % 999_983 / 1_000,
        status < 400,
        TAGS[scattered % 5],
    )


def scatter(number: int) -> int:
    """A number of 32 bits that looks random: the finaliser of MurmurHash3."""
    number = (number ^ number >> 16) * 0x85EBCA6B & 0xFFFFFFFF
    number = (number ^ number >> 13) * 0xC2B2AE35 & 0xFFFFFFFF
    return number ^ number >> 16


def payloads(
    first: int, count: int, rows_per_message: int, encoding: Encoding = Encoding.JSON, *, random_keys: bool = False
) -> Iterator[bytes]:
    """Messages with the rows ``first`` … ``first + count - 1``; one of JSON or msgpack with one row is that row."""
    for start in range(first, first + count, rows_per_message):
        numbers = range(start, min(start + rows_per_message, first + count))
        rows = [row(number, random_key(number) if random_keys else None) for number in numbers]
        match encoding:
            case Encoding.JSON:
                yield msgspec.json.encode(rows[0] if rows_per_message == 1 else rows)
            case Encoding.MSGPACK:
                yield msgspec.msgpack.encode(rows[0] if rows_per_message == 1 else rows)
            case Encoding.ARROW:
                yield _arrow_stream(rows)


def arrow_table(rows: Sequence[Row]) -> pa.Table:
    """The rows as columns."""
    import pyarrow as pa  # only a bench that sends Arrow pays for it

    table = pa.table(list(zip(*map(msgspec.structs.astuple, rows), strict=True)), names=list(Row.__struct_fields__))
    timestamps = table["ts"].cast(pa.timestamp("ms", "UTC"))
    return table.set_column(table.column_names.index("ts"), "ts", timestamps)


def _arrow_stream(rows: Sequence[Row]) -> bytes:
    import pyarrow as pa

    table = arrow_table(rows)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def paced_payload(sent_ns: int) -> bytes:
    """A row whose key is the instant at which it is sent."""
    return (
        b'{"id":%d,"ts":1700000000000,"user_id":"u1","url":"/item/1","status":200,"latency":1.5,"ok":true,"tag":"eu"}'
        % (sent_ns,)
    )


def create_table(kind: str, name: str, options: str, *, random_keys: bool = False) -> str:
    """The statement that makes a table of these rows."""
    columns = COLUMNS.format(
        id="UUID" if random_keys else "BIGINT", key="NOT NULL" if kind == "STREAM" else "PRIMARY KEY"
    )
    return f"CREATE {kind} TABLE {name} ({columns}) WITH ({options})"
