"""A row keeps its values to the bit on every way: message, stored blob, Arrow, event and answer."""

from __future__ import annotations

import base64
import json
import math
import random
import struct
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgpack  # type: ignore[import-untyped]
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from kalam.errors import RequestError
from kalam.query.results import json_rows, rows_result
from kalam.rows.codec import Codec
from kalam.rows.columns import arrow_schema, from_arrow, to_arrow
from kalam.rows.stored import join_packed, pack_rows
from kalam.storage.log.copies import Chunk
from kalam.tables.runs import Unpublished, messages_of

MakeCodec = Callable[[str], Codec]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NONFINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


def finite_or_text(value: float) -> float | str:
    return value if math.isfinite(value) else next(t for t, v in NONFINITE.items() if repr(v) == repr(value))


def float32_json(value: float) -> float | str:
    """The shortest text that reads back as the same 32 bits, as a number."""
    if not math.isfinite(value):
        return finite_or_text(value)
    near = (float(f"{value:.{digits}g}") for digits in range(1, 10))
    return next(text for text in near if same_float32(text, value))


def same_float32(a: float, b: float) -> bool:
    try:
        return struct.pack("<f", a) == struct.pack("<f", b)
    except OverflowError:
        return False


def decimals(precision: int, scale: int) -> st.SearchStrategy[Decimal]:
    bound = 10**precision - 1
    return st.integers(-bound, bound).map(
        lambda digits: Decimal((int(digits < 0), tuple(map(int, str(abs(digits)))), -scale))
    )


def time_text(value: datetime) -> str:
    return value.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


@dataclass(frozen=True)
class Kind:
    """A column type: its values as rows hold them, and how JSON shows each."""

    values: st.SearchStrategy[Any]
    shown: Callable[[Any], Any] = lambda value: value


KINDS = {
    "BOOLEAN": Kind(st.booleans()),
    "SMALLINT": Kind(st.integers(-(1 << 15), (1 << 15) - 1)),
    "INT": Kind(st.integers(-(1 << 31), (1 << 31) - 1)),
    "BIGINT": Kind(st.integers(-(1 << 63), (1 << 63) - 1)),
    "FLOAT": Kind(st.floats(width=32), float32_json),
    "DOUBLE": Kind(st.floats(), finite_or_text),
    "DECIMAL(38,10)": Kind(decimals(38, 10), lambda value: format(value, "f")),
    "DECIMAL(5,2)": Kind(decimals(5, 2), lambda value: format(value, "f")),
    "DECIMAL(9,0)": Kind(decimals(9, 0), lambda value: format(value, "f")),
    "TEXT": Kind(TEXT),
    "BLOB": Kind(st.binary(max_size=20), lambda value: base64.b64encode(value).decode()),
    "TIMESTAMP": Kind(st.datetimes(timezones=st.just(UTC)), time_text),
    "DATE": Kind(st.dates(), lambda value: value.isoformat()),
    "JSON": Kind(DOCUMENTS.filter(lambda value: value is not None)),
    "UUID": Kind(st.uuids().map(str)),
}


@dataclass(frozen=True)
class Rows:
    """Rows of some columns; JSON documents as values, everything else as a row holds it."""

    types: tuple[str, ...]
    rows: Sequence[tuple[Any, ...]]

    @property
    def create(self) -> str:
        columns = ", ".join(f"c{number} {name}" for number, name in enumerate(self.types))
        return f"CREATE STREAM TABLE n.t ({columns})"

    def shown(self) -> list[dict[str, Any]]:
        return [
            {
                f"c{n}": None if v is None else KINDS[name].shown(v)
                for n, (v, name) in enumerate(zip(row, self.types, strict=True))
            }
            for row in self.rows
        ]


@st.composite
def some_rows(draw: st.DrawFn) -> Rows:
    types = tuple(draw(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=6)))
    row = st.tuples(*(st.none() | KINDS[name].values for name in types))
    return Rows(types, draw(st.lists(row, min_size=1, max_size=5)))


def exact(value: Any) -> str:
    """A text that is equal for values that are equal to the bit: it tells 0.0 from -0.0 and 1 from True."""
    return json.dumps(value, default=lambda other: f"{type(other).__name__} {other!r}")


def utc(row: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(value.astimezone(UTC) if isinstance(value, datetime) else value for value in row)


def packable(value: Any, name: str) -> Any:
    """A value as a msgpack client sends it, with the types that msgpack has."""
    if isinstance(value, datetime):
        us = (value - EPOCH) // timedelta(microseconds=1)
        return msgpack.Timestamp(us // 1_000_000, us % 1_000_000 * 1_000)
    return value if isinstance(value, float | bytes) or name == "JSON" or value is None else KINDS[name].shown(value)


def fits_msgpack(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(fits_msgpack, value.values()))
    if isinstance(value, list):
        return all(map(fits_msgpack, value))
    return not isinstance(value, int) or -(1 << 63) <= value < 1 << 64


@settings(deadline=None, max_examples=150)
@given(given_rows=some_rows())
def test_what_comes_in_as_json_is_shown_as_it_came(codec_of: MakeCodec, given_rows: Rows) -> None:
    codec = codec_of(given_rows.create)
    shown = given_rows.shown()
    rows = codec.decoder.decode(json.dumps(shown).encode(), user="ann")
    assert [exact(json.loads(event)) for event in codec.events.each(rows)] == list(map(exact, shown))
    each = codec.decoder.decode_each([json.dumps(row).encode() for row in shown], user="ann")
    assert exact(each) == exact(rows)


@settings(deadline=None, max_examples=150)
@given(given_rows=some_rows())
def test_msgpack_and_json_give_the_same_rows(codec_of: MakeCodec, given_rows: Rows) -> None:
    if not all(fits_msgpack(value) for row in given_rows.rows for value in row):
        return
    codec = codec_of(given_rows.create)
    sent = [
        {f"c{n}": packable(v, name) for n, (v, name) in enumerate(zip(row, given_rows.types, strict=True))}
        for row in given_rows.rows
    ]
    packed = codec.decoder.decode(msgpack.packb(sent), user="ann")
    plain = codec.decoder.decode(json.dumps(given_rows.shown()).encode(), user="ann")
    assert exact(packed) == exact(plain)


@settings(deadline=None, max_examples=150)
@given(given_rows=some_rows(), parts=st.integers(1, 3))
def test_a_stored_blob_and_arrow_keep_the_rows_to_the_bit(codec_of: MakeCodec, given_rows: Rows, parts: int) -> None:
    codec = codec_of(given_rows.create)
    rows = codec.decoder.decode(json.dumps(given_rows.shown()).encode(), user="ann")
    blobs = [pack_rows(rows[part::parts]) for part in range(parts)]
    joined = join_packed(blobs, len(rows))
    stored = codec.stored.unpack(joined)
    assert sorted(map(exact, stored)) == sorted(map(exact, map(utc, rows)))
    assert len(msgpack.unpackb(joined, timestamp=1, strict_map_key=False)) == len(rows)
    schema = arrow_schema(codec.table.columns)
    back = from_arrow(pa.Table.from_batches([to_arrow(rows, schema)]))
    assert exact(list(map(utc, back))) == exact(list(map(utc, rows)))


@settings(deadline=None, max_examples=150)
@given(given_rows=some_rows(), payload_format=st.sampled_from(["json", "msgpack"]))
def test_the_feed_tells_rows_at_hand_as_it_tells_them_from_the_log(
    codec_of: MakeCodec, given_rows: Rows, payload_format: str
) -> None:
    if not all(fits_msgpack(value) for row in given_rows.rows for value in row):
        return
    codec = codec_of(f"{given_rows.create} WITH (format = '{payload_format}')")
    rows = codec.decoder.decode(json.dumps(given_rows.shown()).encode(), user="ann")
    assert told(codec, rows, rows) == told(codec, rows, None)


@settings(deadline=None, max_examples=150)
@given(given_rows=some_rows())
def test_an_answer_shows_a_row_as_its_event_does(codec_of: MakeCodec, given_rows: Rows) -> None:
    codec = codec_of(given_rows.create)
    shown = given_rows.shown()
    rows = codec.decoder.decode(json.dumps(shown).encode(), user="ann")
    data = pa.Table.from_batches([to_arrow(rows, arrow_schema(codec.table.columns))])
    typed = [
        field.with_metadata({"kalam.type": str(column.type)})
        for field, column in zip(data.schema, codec.table.columns, strict=True)
    ]
    answered = json_rows(rows_result(data.cast(pa.schema(typed))))
    events = [json.loads(event) for event in codec.events.each(rows)]
    encoded = json.loads(codec.events.encode([list(row) for row in answered]))
    assert list(map(exact, encoded)) == [exact(list(event.values())) for event in events]


@settings(deadline=None, max_examples=100)
@given(given_rows=some_rows())
def test_rows_of_an_arrow_stream_are_those_of_json(codec_of: MakeCodec, given_rows: Rows) -> None:
    codec = codec_of(given_rows.create)
    rows = codec.decoder.decode(json.dumps(given_rows.shown()).encode(), user="ann")
    batch = to_arrow(rows, arrow_schema(codec.table.columns))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    arrived = codec.decoder.decode(sink.getvalue().to_pybytes(), user="ann", arrow=True)
    assert exact(list(map(utc, arrived))) == exact(list(map(utc, rows)))


ALIKE = {
    pa.int32(): pa.int64(),
    pa.int64(): pa.decimal128(20),
    pa.string(): pa.large_string(),
    pa.timestamp("us", "UTC"): pa.timestamp("us"),
    pa.date32(): pa.timestamp("s"),
}
"""Types that hold the same values."""


def as_sent(table: pa.Table, *, alike: bool) -> pa.Table:
    fields = [(field.name, ALIKE.get(field.type, field.type) if alike else field.type) for field in table.schema]
    return table.cast(pa.schema(fields))


@settings(deadline=None, max_examples=200)
@given(given_rows=some_rows(), alike=st.booleans(), options=st.sampled_from(["", "WITH (bigint_as_text = true)"]))
def test_rows_that_stay_columns_are_the_rows_that_they_would_be(
    codec_of: MakeCodec, given_rows: Rows, alike: bool, options: str
) -> None:
    codec = codec_of(f"{given_rows.create} {options}")
    sent = codec_of(given_rows.create).decoder.decode(json.dumps(given_rows.shown()).encode(), user="ann")
    whole = pa.Table.from_batches([to_arrow(sent, arrow_schema(codec.table.columns))])
    table = as_sent(pa.concat_tables([whole, whole.slice(1), whole]), alike=alike)
    rows = codec.decoder.decode_table(table, user="ann")
    columns = codec.decoder.decode_columns(table, user="ann")
    assert columns.table.schema == arrow_schema(codec.table.columns)
    assert exact(list(map(utc, columns))) == exact(list(map(utc, rows)))
    assert exact(utc(columns[-1])) == exact(utc(rows[-1]))
    part = columns[1:]
    assert exact(list(map(utc, codec.stored.unpack(pack_rows(part))))) == exact(list(map(utc, rows[1:])))
    of_rows = told(codec, rows[1:], rows[1:])
    assert told(codec, part, part) == told(codec, part, None) == of_rows


@settings(deadline=None, max_examples=200)
@given(given_rows=some_rows(), dice=st.randoms())
def test_an_update_is_told_of_rows_at_hand_as_of_the_log(
    codec_of: MakeCodec, given_rows: Rows, dice: random.Random
) -> None:
    codec = codec_of(given_rows.create)
    olds = list(codec.decoder.decode(json.dumps(given_rows.shown()).encode(), user="ann"))
    news = dice.sample(olds, len(olds))
    chunk = Chunk(
        first_seq=7,
        row_count=len(news),
        op="update",
        updated_us=1_700_000_000_000_000,
        schema_version=1,
        superseding=True,
        payload=pack_rows(news),
        old=pack_rows(olds),
    )
    of_log, of_rows = (
        list(messages_of([each], codec, 1 << 20)) for each in (Unpublished(chunk), Unpublished(chunk, news, None, olds))
    )
    assert of_rows == of_log


def told(codec: Codec, rows: Sequence[tuple[Any, ...]], at_hand: Sequence[tuple[Any, ...]] | None) -> list[Any]:
    chunk = Chunk(
        first_seq=7,
        row_count=len(rows),
        op="insert",
        updated_us=1_700_000_000_000_000,
        schema_version=1,
        superseding=False,
        payload=pack_rows(rows),
    )
    return list(messages_of([Unpublished(chunk, at_hand)], codec, 1 << 20))


@settings(deadline=None, max_examples=200)
@given(payload=st.binary(max_size=60) | st.binary(max_size=30).map(lambda tail: b"\x91\x82\xa2c0" + tail))
def test_no_bytes_whatever_make_the_decoder_stumble(codec_of: MakeCodec, payload: bytes) -> None:
    codec = codec_of(
        "CREATE STREAM TABLE n.t (c0 INT, c1 TEXT, c2 JSON, c3 TIMESTAMP, c4 BLOB, c5 DECIMAL(5,2), c6 UUID)"
    )
    for arrow in (False, True):
        try:
            rows = codec.decoder.decode(payload, user="ann", arrow=arrow)
        except RequestError:
            continue
        codec.events.each(codec.stored.unpack(pack_rows(rows)))


PLAUSIBLE_S = range(31_536_000, 4_133_980_800)
UNITS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


def is_of_another_unit(value: int, unit: str) -> bool:
    """Whether an integer is a time from 1971 to 2100 in another unit, and none in its own."""
    plausible = {name for name, per_second in UNITS.items() if value // per_second in PLAUSIBLE_S}
    return bool(plausible) and unit not in plausible


@given(
    st.sampled_from(list(UNITS)),
    st.lists(st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999) | st.none(), min_size=1)
    | st.lists(st.integers(31_536_000_000_000, 4_133_980_799_999_999), min_size=32, max_size=64)
    | st.lists(st.integers(31_536_000_000_000, 4_133_980_799_999_999), max_size=5),
    st.booleans(),
)
def test_integers_become_the_moment_they_are_to_the_microsecond(
    codec_of: MakeCodec, unit: str, micros: list[int | None], by_arrow: bool
) -> None:
    numbers = [None if value is None else value * UNITS[unit] // 1_000_000 for value in micros]
    taken = [value for value in numbers if value is None or not is_of_another_unit(value, unit)]
    codec = codec_of(f"CREATE STREAM TABLE n.t (at TIMESTAMP UNIT '{unit}')")
    if by_arrow:
        fits = [value for value in taken if value is None or -(1 << 63) <= value < 1 << 63]
        taken = fits
        rows = codec.decoder.decode_table(pa.table({"at": pa.array(fits, pa.int64())}), user="ann")
    else:
        rows = codec.decoder.decode(json.dumps([{"at": value} for value in taken]).encode(), user="ann")
    exact = [None if value is None else (value * 1_000_000 + UNITS[unit] // 2) // UNITS[unit] for value in taken]
    assert [at for (at,) in rows] == [
        None if value is None else EPOCH + timedelta(microseconds=value) for value in exact
    ]


def test_a_generated_uuid_sorts_by_its_time(codec_of: MakeCodec) -> None:
    codec = codec_of("CREATE TABLE n.t (k UUID DEFAULT UUID_V7() PRIMARY KEY, n BIGINT DEFAULT SNOWFLAKE_ID())")
    rows = codec.decoder.decode(json.dumps([{}] * 5_000).encode(), user="ann")
    assert [row[0] for row in rows] == sorted({row[0] for row in rows})
    assert [row[1] for row in rows] == sorted({row[1] for row in rows})
    assert {uuid.UUID(row[0]).version for row in rows} == {7}
