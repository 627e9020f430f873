"""COPY both ways, in text, CSV and binary: what PostgreSQL reads and writes, all rows or none."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.types.json import Json

ROWS: list[tuple[Any, ...]] = [
    (1, 1.5, Decimal("-0.001"), 'tab\t"quote" \\ line\nend', b"\x00\xff", datetime(2026, 1, 2, 3, 4, 5, 6, UTC), True),
    (2, None, None, None, None, None, None),
    (3, float("nan"), Decimal("12345.678"), "", b"", datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC), False),
    (4, -0.0, Decimal(0), "\\N", b"\\", datetime(2026, 1, 1, tzinfo=UTC), True),
    (5, 1e300, Decimal("1.100"), "\\.", b"a,b", datetime(2026, 1, 1, tzinfo=UTC), True),
]
NAMES = "id, x, d, name, b, at, ok"


@pytest.fixture(scope="module", autouse=True)
def tables(pg_url: str) -> None:
    with psycopg.connect(pg_url, autocommit=True) as connection:
        connection.execute("CREATE NAMESPACE cop")


@pytest.fixture
def table(connection: psycopg.Connection, request: pytest.FixtureRequest) -> Iterator[str]:
    name = "cop.typed"
    connection.execute(
        f"CREATE SHARED TABLE {name} (id BIGINT PRIMARY KEY, x DOUBLE, d DECIMAL(10,3), name TEXT, b BLOB, "
        "at TIMESTAMP, ok BOOLEAN)"
    )
    yield name
    connection.execute(f"DROP TABLE {name}")


def rows_of(connection: psycopg.Connection, table: str) -> list[tuple[Any, ...]]:
    return connection.execute(f"SELECT {NAMES} FROM {table} ORDER BY id").fetchall()


def same(one: list[tuple[Any, ...]], other: list[tuple[Any, ...]]) -> bool:
    return list(map(repr, one)) == [repr(row) for row in other]


@pytest.mark.parametrize("form", ["text", "binary"])
def test_rows_that_are_written_one_by_one_are_there(connection: psycopg.Connection, table: str, form: str) -> None:
    with connection.cursor().copy(f"COPY {table} ({NAMES}) FROM STDIN (FORMAT {form})") as copy:
        if form == "binary":
            copy.set_types(["int8", "float8", "numeric", "text", "bytea", "timestamptz", "bool"])
        for row in ROWS:
            copy.write_row(row)
    assert same(
        rows_of(connection, table),
        [(*row[:2], row[2] if row[2] is None else row[2].quantize(Decimal("0.001")), *row[3:]) for row in ROWS],
    )


@pytest.mark.parametrize("form", ["text", "csv", "csv, HEADER", "binary", "csv, DELIMITER ';', QUOTE '''', NULL 'nil'"])
def test_what_is_copied_out_can_be_copied_in(connection: psycopg.Connection, table: str, form: str) -> None:
    with connection.cursor().copy(f"COPY {table} ({NAMES}) FROM STDIN") as copy:
        for row in ROWS:
            copy.write_row(row)
    before = rows_of(connection, table)
    with connection.cursor().copy(f"COPY (SELECT {NAMES} FROM {table} ORDER BY id) TO STDOUT (FORMAT {form})") as copy:
        data = b"".join(bytes(part) for part in copy)
    connection.execute(f"DELETE FROM {table}")
    with connection.cursor().copy(f"COPY {table} FROM STDIN (FORMAT {form})") as copy:
        for start in range(0, len(data), 7):  # in pieces that end anywhere
            copy.write(data[start : start + 7])
    assert same(rows_of(connection, table), before)


def test_rows_are_read_out_one_message_each(connection: psycopg.Connection) -> None:
    with connection.cursor().copy("COPY (SELECT value, NULL FROM generate_series(1, 3) AS g(value)) TO STDOUT") as copy:
        copy.set_types(["int8", "text"])
        assert list(copy.rows()) == [(1, None), (2, None), (3, None)]
    with connection.cursor().copy("COPY (SELECT 1 AS a, 'x,y' AS b, '' AS c, NULL AS d) TO STDOUT CSV HEADER") as copy:
        assert b"".join(map(bytes, copy)) == b'a,b,c,d\n1,"x,y","",\n'


@pytest.mark.parametrize(
    ("form", "data", "sqlstate"),
    [
        ("text", b"1\t2\n", "22P04"),
        ("text", b"1\t1\t1\tx\t\\N\t\\N\t\\N\tmore\n", "22P04"),
        ("text", b"one\t1\t1\tx\t\\N\t\\N\t\\N\n", "22P02"),
        ("text", b"1\t1\t1\tx\t\\N\tyesterday\t\\N\n", "22P02"),
        ("text", b"1\t1\t1\t\xff\t\\N\t\\N\t\\N\n", "22021"),
        ("text", b"1\t1\t1\tx\t\\N\t\\N\t\\N\n1\t1\t1\tx\t\\N\t\\N\t\\N\n", "23505"),
        ("csv", b'1,2,"3\n', "22P04"),
        ("csv", b"1,2\n", "22P04"),
        ("binary", b"no signature at all", "22P04"),
        ("binary", b"PGCOPY\n\xff\r\n\0" + bytes(8) + b"\0\x02", "22P04"),
        ("binary", b"PGCOPY\n\xff\r\n\0" + bytes(8) + b"\0\x07\0\0\0\x02ab", "22P04"),
    ],
    ids=lambda value: None if isinstance(value, bytes) else value,
)
def test_what_is_wrong_is_told_and_nothing_is_stored(
    connection: psycopg.Connection, table: str, form: str, data: bytes, sqlstate: str
) -> None:
    good = b"77\t1\t1\tx\t\\N\t\\N\t\\N\n" if form == "text" else b""
    with (
        pytest.raises(psycopg.Error) as raised,
        connection.cursor().copy(f"COPY {table} FROM STDIN (FORMAT {form})") as copy,
    ):
        copy.write(good + data)
    assert raised.value.sqlstate == sqlstate
    assert rows_of(connection, table) == []


def test_a_client_that_gives_up_stores_nothing(connection: psycopg.Connection, table: str) -> None:
    def give_up() -> None:
        with connection.cursor().copy(f"COPY {table} (id) FROM STDIN") as copy:
            copy.write("1\n")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        give_up()
    assert rows_of(connection, table) == []


def test_every_type_is_read_from_text(connection: psycopg.Connection) -> None:
    connection.execute("CREATE SHARED TABLE cop.more (id BIGINT PRIMARY KEY, day DATE, j JSON, u UUID, s SMALLINT)")
    with connection.cursor().copy("COPY cop.more FROM STDIN WITH CSV NULL '-'") as copy:
        copy.write('1,2026-02-03,"{""a"": 1}",0192D3F0-7c4e-7b1c-8a60-3f4c5d6e7f80,7\n2,-,-,-,-\n')
    assert connection.execute("SELECT * FROM cop.more ORDER BY id").fetchall()[0][:5] == (
        *(1, date(2026, 2, 3), {"a": 1}, UUID("0192d3f0-7c4e-7b1c-8a60-3f4c5d6e7f80"), 7),
    )
    assert connection.execute("SELECT day, j, u, s FROM cop.more WHERE id = 2").fetchone() == (None,) * 4
    with connection.cursor().copy("COPY cop.more (id, j) FROM STDIN (FORMAT binary)") as copy:
        copy.set_types(["int8", "json"])
        copy.write_row((3, Json({"b": 2})))
    assert connection.execute("SELECT j FROM cop.more WHERE id = 3").fetchone() == ({"b": 2},)


def test_many_rows_come_in_order_and_are_counted(connection: psycopg.Connection) -> None:
    connection.execute("CREATE SHARED TABLE cop.many (id BIGINT PRIMARY KEY, name TEXT)")
    cursor = connection.cursor()
    with cursor.copy("COPY cop.many FROM STDIN") as copy:
        for start in range(0, 200_000, 10_000):
            copy.write("".join(f"{n}\tname {n}\n" for n in range(start, start + 10_000)))
    assert cursor.rowcount == 200_000
    assert connection.execute("SELECT count(*), max(id), min(name) FROM cop.many").fetchone() == (
        *(200_000, 199_999, "name 0"),
    )
