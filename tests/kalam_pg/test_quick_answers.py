"""What is answered without a plan is answered to the byte as with one: rows by their key, and rows of literals."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from psycopg.pq import Format

from kalam_pg import types as pg
from kalam_pg.values.few_rows import lone_row, writer_of
from kalam_pg.values.rows import Column, data_rows_of

TYPES = (
    "a BOOLEAN, b SMALLINT, c INT, d BIGINT, e FLOAT, f DOUBLE, g DECIMAL(20, 4), h TEXT, i VARCHAR(9), j BLOB, "
    "k TIMESTAMP, l DATE, m JSON, n UUID"
)
UUID = "'00000000-0000-0000-0000-00000000000f'"
ROWS = (
    f"""(1, true, -3, 4, -5, 1.5, 0.1, 12.5, 'é', 'v', X'00ff', '2026-01-02 03:04:05.678901', '0001-01-01',
    '{{"a": 1}}', {UUID})""",
    f"""(2, false, 0, 0, 9223372036854775807, 1e30, 1e20, -0.0001, '', '', X'', '1969-12-31 23:59:59', '9999-12-31',
    '[]', {UUID})""",
    "(3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)",
    f"(4, true, 1, 1, 1, 'NaN', '-Infinity', 0, 'x', 'y', X'01', '2026-01-01', '2026-01-01', '1', {UUID})",
    f"(5, true, 1, 1, 1, 0.1, -0.0, 100, 'x', 'y', X'01', '2026-01-01', '2026-01-01', '1', {UUID})",
)


@pytest.fixture(scope="module")
def keyed(pg_url: str) -> str:
    """A table with a row of each kind, of which one half lies in segments."""
    with psycopg.connect(pg_url, autocommit=True) as opened:
        opened.execute("CREATE NAMESPACE quick")
        opened.execute(f"CREATE SHARED TABLE quick.kinds (id BIGINT PRIMARY KEY, {TYPES})")
        opened.execute(f"INSERT INTO quick.kinds VALUES {', '.join(ROWS[:3])}")
        opened.execute("FLUSH TABLE quick.kinds")
        opened.execute(f"INSERT INTO quick.kinds VALUES {', '.join(ROWS[3:])}")
    return "quick.kinds"


def answered(connection: psycopg.Connection, text: str, values: Sequence[bytes], form: int) -> tuple[Any, ...]:
    """The columns of an answer, as they are told, and the bytes of its rows."""
    result = connection.pgconn.exec_params(text.encode(), values, result_format=form)
    assert result.status == psycopg.pq.ExecStatus.TUPLES_OK, result.error_message
    columns = range(result.nfields)
    told = [(result.fname(at), result.ftype(at), result.fmod(at), result.fformat(at)) for at in columns]
    return told, [[result.get_value(row, at) for at in columns] for row in range(result.ntuples)]


@pytest.mark.parametrize("form", [Format.TEXT, Format.BINARY])
def test_a_row_by_its_key_is_what_a_query_gives(connection: psycopg.Connection, keyed: str, form: Format) -> None:
    for key in (b"1", b"2", b"3", b"4", b"5", b"6"):
        quick = [
            answered(connection, f"SELECT * FROM {keyed} WHERE id = $1", [key], form) for _ in range(2)
        ]  # the second time the text is known
        planned = answered(connection, f"SELECT * FROM {keyed} WHERE id = $1 AND true", [key], form)
        assert quick == [planned, planned]
        assert len(planned[1]) == (key != b"6")


def test_a_row_by_its_key_is_the_same_in_a_simple_query(connection: psycopg.Connection, keyed: str) -> None:
    for key in range(1, 7):
        texts = [f"SELECT n, f AS g, id FROM {keyed} WHERE id = {key}{more}" for more in ("", "", " AND true")]
        first, second, planned = (connection.pgconn.exec_(text.encode()) for text in texts)
        shown = [
            [(each.fname(at), each.ftype(at), each.get_value(0, at)) for at in range(3)]
            for each in (first, second, planned)
        ]
        assert shown[0] == shown[1] == shown[2]
        assert first.ntuples == second.ntuples == planned.ntuples == (key < 6)


@pytest.mark.parametrize("declared", [[], [20], [21], [23], [25], [1043]])
@pytest.mark.parametrize("shown", ["*", "f, id AS key, n"])
def test_a_row_by_its_key_is_described_as_the_query_is(
    connection: psycopg.Connection, keyed: str, declared: list[int], shown: str
) -> None:
    described = []
    for place, more in enumerate(("", " AND true")):
        connection.pgconn.prepare(b"s%d" % place, f"SELECT {shown} FROM {keyed} WHERE id = $1{more}".encode(), declared)
        found = connection.pgconn.describe_prepared(b"s%d" % place)
        columns = [(found.fname(at), found.ftype(at), found.fmod(at)) for at in range(found.nfields)]
        described.append((found.status, [found.param_type(at) for at in range(found.nparams)], columns))
        connection.execute(f"DEALLOCATE s{place}")
    assert described[0] == described[1]


@pytest.mark.parametrize(
    "text", ["SELECT 1", "SELECT -7 AS n, 'it''s', NULL, TRUE, 'x' AS m", "SELECT 1; ", "select 2"]
)
def test_a_row_of_literals_is_always_what_it_was_first(connection: psycopg.Connection, text: str) -> None:
    for form in (Format.TEXT, Format.BINARY):
        first, *others = (answered(connection, text, [], form) for _ in range(3))
        assert others == [first, first]
    simple = [connection.execute(text).fetchall() for _ in range(2)]
    assert simple[0] == simple[1]


def test_only_literals_are_kept(connection: psycopg.Connection) -> None:
    for text in ("SELECT uuid() AS u", "SELECT 1 WHERE random() < 2", "SELECT now()"):
        connection.execute(text)
    assert connection.execute("SELECT uuid()").fetchone() != connection.execute("SELECT uuid()").fetchone()
    error = connection.pgconn.exec_params(b"SELECT 1", [b"x"]).error_message
    assert b"bind message supplies 1 parameters" in error


DOUBLES = st.floats(allow_nan=True, allow_infinity=True)


@given(st.lists(st.none() | DOUBLES | st.integers(-(10**16), 10**16).map(float), min_size=1, max_size=4))
@example([0.0, -0.0, 1e10, 1e-4])
@example([9999999999.999998, 0.00009999999999999999, 5e-324, 1.7976931348623157e308])
def test_doubles_are_written_one_by_one_as_in_columns(values: list[float | None]) -> None:
    array = pa.array(values, pa.float64())
    for form in (0, 1):
        column = Column("c", pg.FLOAT8, format=form)
        many = data_rows_of(pa.record_batch([pa.concat_arrays([array] * 9)], names=["c"]), [column])
        assert data_rows_of(pa.record_batch([array], names=["c"]), [column]) * 9 == many


def test_a_decimal_of_another_scale_is_left_to_the_kernels() -> None:
    write = writer_of(pa.decimal128(9, 2), pg.NUMERIC, 0)
    assert write is not None
    assert lone_row([Decimal("1.50"), None], [write, write]) == b"D" + struct.pack(">ihi4si", 18, 2, 4, b"1.50", -1)
    with pytest.raises(ValueError, match=r"^$"):
        lone_row([Decimal("1.5")], [write])
