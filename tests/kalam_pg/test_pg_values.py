"""Values as bytes: what columns become in text and in binary, and what comes back of parameters."""

from __future__ import annotations

import struct
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kalam_pg import types as pg
from kalam_pg.errors import SqlError
from kalam_pg.values.array_text import read_array
from kalam_pg.values.parameters import from_binary, from_text
from kalam_pg.values.rows import Column, cells_of, data_rows_of

UTC_US = pa.timestamp("us", "UTC")
DECIMALS = st.decimals(-(10**30), 10**30, allow_nan=False, allow_infinity=False, places=7)
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"))


def cells(array: pa.Array, kind: pg.PgType, form: int) -> list[bytes | None]:
    """What is in the cells of a column, without their lengths."""
    written = cells_of(array, Column("c", kind, format=form)).to_pylist()
    assert all(int.from_bytes(cell[:4], signed=True) in (-1, len(cell) - 4) for cell in written)
    return [None if cell == b"\xff\xff\xff\xff" else cell[4:] for cell in written]


@pytest.mark.parametrize(
    ("array", "kind", "text"),
    [
        (pa.array([True, False, None]), pg.BOOL, ["t", "f", None]),
        (pa.array([1, -(2**63), None]), pg.INT8, ["1", "-9223372036854775808", None]),
        (pa.array([0.1, -0.0, 1e300, float("nan")]), pg.FLOAT8, ["0.1", "-0", "1e+300", "NaN"]),
        (pa.array([float("inf"), float("-inf"), None]), pg.FLOAT8, ["Infinity", "-Infinity", None]),
        (pa.array([Decimal("0.0000000001"), Decimal(-1), None], pa.decimal128(20, 10)), pg.NUMERIC, None),
        (pa.array([b"\x00\xff", b"", None]), pg.BYTEA, ["\\x00ff", "\\x", None]),
        (
            pa.array([0, -1, None], UTC_US),
            pg.TIMESTAMPTZ,
            ["1970-01-01 00:00:00.000000+00", "1969-12-31 23:59:59.999999+00", None],
        ),
        (pa.array([0, None], pa.timestamp("ns")), pg.TIMESTAMP, ["1970-01-01 00:00:00.000000", None]),
        (pa.array([-62135596800 * 10**6 - 1], UTC_US), pg.TIMESTAMPTZ, ["0001-12-31 23:59:59.999999+00 BC"]),
        (pa.array([-800_000, 2_932_897, None], pa.date32()), pg.DATE, ["0222-09-04 BC", "10000-01-01", None]),
        (pa.array([1], pa.time64("us")), pg.TIME, ["00:00:00.000001"]),
        (pa.array([[1, None], [], None]), pg.array_of(pg.INT8), ["{1,NULL}", "{}", None]),
        (pa.array([["a,b", 'q"', "", "null"]]), pg.array_of(pg.TEXT), ['{"a,b","q\\"","","null"}']),
        (pa.array([{"a": 1, "b": [True]}, None]), pg.JSON, ['{"a":1,"b":[true]}', None]),
        (pa.array([timedelta(days=1, seconds=61)]), pg.INTERVAL, ["1 day 00:01:01"]),
        (pa.array([pa.MonthDayNano([-14, 2, -1_500_000_000])]), pg.INTERVAL, ["-1 years -2 mons 2 days -00:00:01.5"]),
        (pa.array(["a", "b"]).dictionary_encode(), pg.TEXT, ["a", "b"]),
        (pa.array([2**64 - 1], pa.uint64()), pg.NUMERIC, ["18446744073709551615"]),
    ],
    ids=lambda value: value.name if isinstance(value, pg.PgType) else None,
)
def test_a_column_is_written_as_text(array: pa.Array, kind: pg.PgType, text: list[str | None] | None) -> None:
    wanted = ["0.0000000001", "-1.0000000000", None] if text is None else text
    assert cells(array, kind, 0) == [None if each is None else each.encode() for each in wanted]
    assert cells(pa.concat_arrays([array, array]).slice(len(array)), kind, 0) == cells(array, kind, 0)
    for form in (0, 1):
        column = Column("c", kind, format=form)
        many = pa.record_batch([pa.concat_arrays([array] * 9)], names=["c"])
        few = pa.record_batch([array], names=["c"])
        assert data_rows_of(many, [column]) == data_rows_of(few, [column]) * 9


@given(st.lists(st.none() | DECIMALS, max_size=20))
def test_decimals_come_back_from_binary_and_text(values: list[Decimal | None]) -> None:
    array = pa.array(values, pa.decimal128(38, 7))
    for form, read in ((0, from_text), (1, from_binary)):
        back = [None if cell is None else read(cell, pg.NUMERIC) for cell in cells(array, pg.NUMERIC, form)]
        assert back == values


@given(st.lists(st.none() | st.datetimes(timezones=st.just(UTC)), max_size=20))
def test_times_come_back_from_binary_and_text(values: list[datetime | None]) -> None:
    array = pa.array(values, UTC_US)
    for form, read in ((0, from_text), (1, from_binary)):
        back = [None if cell is None else read(cell, pg.TIMESTAMPTZ) for cell in cells(array, pg.TIMESTAMPTZ, form)]
        assert back == values


@given(st.lists(st.none() | st.binary(max_size=30), max_size=20), st.lists(st.none() | TEXTS, max_size=5))
def test_bytes_and_lists_of_texts_come_back(blobs: list[bytes | None], texts: list[str | None]) -> None:
    for form, read in ((0, from_text), (1, from_binary)):
        back = [
            None if cell is None else read(cell, pg.BYTEA)
            for cell in cells(pa.array(blobs, pa.binary()), pg.BYTEA, form)
        ]
        assert back == blobs
        [cell] = cells(pa.array([texts], pa.list_(pa.string())), pg.array_of(pg.TEXT), form)
        assert cell is not None
        assert read(cell, pg.array_of(pg.TEXT)) == texts


def test_rows_are_messages_with_their_lengths() -> None:
    batch = pa.record_batch([pa.array([1, None]), pa.array(["ab", "c"])], names=["n", "t"])
    rows = data_rows_of(batch, [Column("n", pg.INT8, format=1), Column("t", pg.TEXT)])
    one = struct.pack(">hiqi", 2, 8, 1, 2) + b"ab"
    two = struct.pack(">hii", 2, -1, 1) + b"c"
    assert rows == b"".join(b"D" + struct.pack(">i", len(row) + 4) + row for row in (one, two))


def test_what_was_announced_counts_and_not_what_a_batch_has() -> None:
    assert cells(pa.array([7]), pg.TEXT, 1) == [b"7"]
    assert cells(pa.array([7], pa.int32()), pg.INT8, 1) == [struct.pack(">q", 7)]
    assert cells(pa.array([7]), pg.FLOAT8, 1) == [struct.pack(">d", 7.0)]


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (pg.BOOL, " TRUE ", True),
        (pg.BOOL, "off", False),
        (pg.INT2, "-32768", -32768),
        (pg.BYTEA, "a\\\\\\001", b"a\\\x01"),
        (pg.TIMESTAMPTZ, "2026-01-02 03:04:05+05:30", datetime(2026, 1, 1, 21, 34, 5, tzinfo=UTC)),
        (pg.TIMESTAMPTZ, "2026-01-02T03:04:05Z", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        (pg.DATE, "2026-01-02", date(2026, 1, 2)),
        (pg.TIME, "03:04:05.5", time(3, 4, 5, 500_000)),
        (pg.INTERVAL, "1 year 2 mons -3 days 04:05:06.5", pa.MonthDayNano([14, -3, 14_706_500_000_000])),
        (pg.UUID, "0192D3F07C4E7B1C8A603F4C5D6E7F80", "0192d3f0-7c4e-7b1c-8a60-3f4c5d6e7f80"),
        (pg.array_of(pg.INT4), "{{1,2},{NULL,4}}", [[1, 2], [None, 4]]),
    ],
    ids=lambda value: value.name if isinstance(value, pg.PgType) else None,
)
def test_a_parameter_is_read(kind: pg.PgType, text: str, value: Any) -> None:
    assert from_text(text.encode(), kind) == value


@pytest.mark.parametrize(
    ("kind", "data", "sqlstate"),
    [
        (pg.INT4, b"1.5", "22P02"),
        (pg.INT4, b"3000000000", "22003"),
        (pg.INT8, b"1_000", "22P02"),
        (pg.BOOL, b"maybe", "22P02"),
        (pg.NUMERIC, b"NaN", "22003"),
        (pg.TIMESTAMPTZ, b"infinity", "22008"),
        (pg.TIMESTAMPTZ, b"0044-03-15 BC", "22008"),
        (pg.DATE, b"2026-13-01", "22P02"),
        (pg.UUID, b"x", "22P02"),
        (pg.BYTEA, b"\\xabc", "22P02"),
        (pg.TEXT, b"\xff", "22021"),
        (pg.TEXT, b"a\0b", "22021"),
        (pg.array_of(pg.INT4), b"{1,2", "22P02"),
        (pg.array_of(pg.INT4), b"1,2", "22P02"),
        (pg.array_of(pg.INT4), b"{" * 100, "22P02"),
    ],
    ids=lambda value: value.name if isinstance(value, pg.PgType) else None,
)
def test_what_is_no_value_is_refused(kind: pg.PgType, data: bytes, sqlstate: str) -> None:
    with pytest.raises(SqlError) as raised:
        from_text(data, kind)
    assert raised.value.sqlstate == sqlstate


@given(st.binary(max_size=40), st.sampled_from([*pg.SCALARS, *pg.ARRAYS]))
def test_no_bytes_at_all_are_more_than_refused(data: bytes, kind: pg.PgType) -> None:
    for read in (from_text, from_binary):
        try:
            read(data, kind)
        except SqlError:
            continue


def test_an_array_keeps_what_is_in_quotes() -> None:
    assert read_array('{"NULL",null,"a\\"b", c d ,""}', str) == ["NULL", None, 'a"b', "c d", ""]
