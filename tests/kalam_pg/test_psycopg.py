"""psycopg 3: types both ways, prepared statements, pipelines, cursors, blocks, errors, cancelling."""

from __future__ import annotations

import threading
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import ClientCursor, ServerCursor
from psycopg.pq import TransactionStatus
from psycopg.types.json import Json

TYPES = (
    "id BIGINT PRIMARY KEY, small SMALLINT, whole INT, x DOUBLE, f FLOAT, d DECIMAL(20,10), name TEXT, "
    "short VARCHAR(5), b BLOB, at TIMESTAMP, day DATE, j JSON, u UUID, ok BOOLEAN"
)
NAMES = "id, small, whole, x, f, d, name, short, b, at, day, j, u, ok"
ROWS: list[tuple[Any, ...]] = [
    (
        *(1, -7, 1 << 30, 1.25, 0.5, Decimal("-12345.0000000001"), "ä'\\\n", "abc", b"\x00\xff"),
        *(datetime(2026, 1, 2, 3, 4, 5, 678901, UTC), date(2026, 2, 3), {"a": [1, None]}),
        *(UUID("0192d3f0-7c4e-7b1c-8a60-3f4c5d6e7f80"), True),
    ),
    (2, *[None] * 13),
    (
        *(3, 32767, -(1 << 31), -0.0, 0.25, Decimal("0.0000000001"), "", "", b""),
        *(datetime(1, 1, 1, tzinfo=UTC), date(9999, 12, 31), []),
        *(UUID(int=(1 << 128) - 1), False),
    ),
    (
        *(4, 0, 0, float("inf"), float("-inf"), Decimal("9999999999.0000000000"), "NULL", "{}", b"\\x"),
        *(datetime(1969, 12, 31, 23, 59, 59, 999999, UTC), date(1, 1, 1), "text"),
        *(UUID(int=0), True),
    ),
]


def as_given(row: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(Json(value) if place == 11 and value is not None else value for place, value in enumerate(row))


@pytest.fixture(scope="module", autouse=True)
def tables(pg_url: str) -> None:
    with psycopg.connect(pg_url, autocommit=True) as connection:
        connection.execute("CREATE NAMESPACE psy")
        connection.execute(f"CREATE SHARED TABLE psy.typed ({TYPES})")
        connection.execute("CREATE SHARED TABLE psy.numbers (n BIGINT PRIMARY KEY, name TEXT)")
        marks = ", ".join(["%s"] * 14)
        connection.cursor().executemany(
            f"INSERT INTO psy.typed ({NAMES}) VALUES ({marks})", [as_given(row) for row in ROWS]
        )
        connection.execute(
            "INSERT INTO psy.numbers SELECT value, 'n' || value FROM generate_series(1, 2000) AS g(value)"
        )


@pytest.mark.parametrize("binary", [False, True], ids=["text", "binary"])
def test_every_type_comes_back_as_it_was_given(connection: psycopg.Connection, binary: bool) -> None:
    cursor = connection.cursor(binary=binary)
    assert cursor.execute(f"SELECT {NAMES} FROM psy.typed ORDER BY id").fetchall() == ROWS


def test_the_types_of_a_table_are_announced_as_postgresql_has_them(connection: psycopg.Connection) -> None:
    described = connection.execute(f"SELECT {NAMES} FROM psy.typed LIMIT 0").description
    assert described is not None
    assert [column.type_code for column in described] == [
        *(20, 21, 23, 701, 700, 1700, 25, 1043, 17, 1184, 1082, 114, 2950, 16)
    ]
    assert (described[5].precision, described[5].scale, described[7].display_size) == (20, 10, 5)


@pytest.mark.parametrize("binary", [False, True], ids=["text", "binary"])
@pytest.mark.parametrize("name", [name for name in NAMES.split(", ") if name != "j"])
def test_a_parameter_of_each_type_finds_its_row(connection: psycopg.Connection, name: str, binary: bool) -> None:
    value = ROWS[0][NAMES.split(", ").index(name)]
    mark = "%b" if binary else "%t"
    found = connection.execute(f"SELECT id FROM psy.typed WHERE {name} = {mark} ORDER BY id", (value,)).fetchall()
    assert (1,) in found


def test_a_list_is_one_parameter(connection: psycopg.Connection) -> None:
    found = connection.execute("SELECT n FROM psy.numbers WHERE n = ANY(%s) ORDER BY n", ([3, 1, 5000],)).fetchall()
    assert found == [(1,), (3,)]


@pytest.mark.parametrize("binary", [False, True], ids=["text", "binary"])
def test_lists_come_as_arrays(connection: psycopg.Connection, binary: bool) -> None:
    cursor = connection.cursor(binary=binary)
    row = cursor.execute("SELECT [1, NULL, 3] AS a, ['x,y', 'NULL', '', 'a\"b'] AS t").fetchone()
    assert row == ([1, None, 3], ["x,y", "NULL", "", 'a"b'])


def test_statements_that_are_prepared_run_again(connection: psycopg.Connection) -> None:
    for n in (1, 2, 3):
        row = connection.execute("SELECT name FROM psy.numbers WHERE n = %s", (n,), prepare=True).fetchone()
        assert row == (f"n{n}",)


def test_a_client_cursor_puts_values_into_the_text(connection: psycopg.Connection) -> None:
    cursor = ClientCursor(connection)
    assert cursor.execute("SELECT %s || 'b', %s", ("a'", 5)).fetchone() == ("a'b", 5)


def test_several_statements_in_one_text_answer_in_order(connection: psycopg.Connection) -> None:
    cursor = ClientCursor(connection)
    cursor.execute("SELECT 1; SELECT 2 AS two; SHOW search_path")
    assert cursor.fetchone() == (1,)
    assert cursor.nextset()
    assert cursor.fetchone() == (2,)
    assert cursor.nextset()
    assert cursor.fetchone() == ('"$user", public',)


def test_a_pipeline_answers_each_statement(connection: psycopg.Connection) -> None:
    with connection.pipeline():
        cursors = [connection.execute("SELECT name FROM psy.numbers WHERE n = %s", (n,)) for n in range(1, 21)]
        assert [cursor.fetchone() for cursor in cursors] == [(f"n{n}",) for n in range(1, 21)]


def test_rows_are_streamed_one_by_one(connection: psycopg.Connection) -> None:
    rows = list(connection.cursor().stream("SELECT n FROM psy.numbers ORDER BY n"))
    assert rows == [(n,) for n in range(1, 2001)]


def test_a_named_cursor_brings_its_rows_in_parts(pg_url: str) -> None:
    with psycopg.connect(pg_url) as connection, connection.cursor("part") as cursor:
        assert isinstance(cursor, ServerCursor)
        cursor.execute("SELECT n FROM psy.numbers ORDER BY n")
        assert cursor.fetchmany(3) == [(1,), (2,), (3,)]
        assert connection.execute("SELECT 7").fetchone() == (7,)  # others run meanwhile
        assert cursor.fetchone() == (4,)
        assert len(cursor.fetchall()) == 1_996


def test_cursors_that_rest_keep_nobody_from_reading(pg_url: str, connection: psycopg.Connection) -> None:
    with psycopg.connect(pg_url) as resting:
        cursors = [resting.cursor(f"rests {place}") for place in range(12)]  # more than queries may run at once
        for cursor in cursors:
            cursor.execute("SELECT n FROM psy.numbers ORDER BY n")
            assert cursor.fetchone() == (1,)
        assert connection.execute("SELECT count(*) FROM psy.numbers WHERE n < 100").fetchone() == (99,)
        assert [cursor.fetchone() for cursor in cursors] == [(2,)] * 12
        for cursor in cursors:
            cursor.close()


def test_rowcount_and_returning_tell_what_was_changed(connection: psycopg.Connection) -> None:
    connection.execute("CREATE SHARED TABLE psy.changed (n BIGINT PRIMARY KEY, name TEXT)")
    assert connection.execute("INSERT INTO psy.changed VALUES (1, 'a'), (2, 'b')").rowcount == 2
    assert connection.execute("UPDATE psy.changed SET name = 'c' WHERE n > 0").rowcount == 2
    assert connection.execute("DELETE FROM psy.changed WHERE n = %s RETURNING n, name", (2,)).fetchall() == [(2, "c")]
    added = connection.execute("INSERT INTO psy.changed VALUES (%s, %s) RETURNING n + 1 AS m", (3, "x"))
    assert added.fetchall() == [(4,)]
    assert connection.execute("DELETE FROM psy.changed WHERE n = 77").statusmessage == "DELETE 0"


def test_executemany_is_one_insert_of_all_rows_or_of_none(connection: psycopg.Connection) -> None:
    connection.execute("CREATE SHARED TABLE psy.many (n BIGINT PRIMARY KEY, name TEXT)")
    cursor = connection.cursor()
    cursor.executemany("INSERT INTO psy.many VALUES (%s, %s)", [(n, str(n)) for n in range(500)])
    assert cursor.rowcount == 500
    with pytest.raises(psycopg.errors.UniqueViolation):
        cursor.executemany("INSERT INTO psy.many VALUES (%s, %s)", [(n, "again") for n in range(1_000, 400, -1)])
    assert connection.execute("SELECT count(*), max(n) FROM psy.many").fetchone() == (500, 499)


WRONG = {
    "42601": "SELEC 1",
    "42P01": "SELECT * FROM psy.nothing",
    "3F000": "SELECT * FROM nowhere.nothing",
    "42703": "SELECT nothing FROM psy.numbers",
    "23505": "INSERT INTO psy.numbers VALUES (1, 'again')",
    "23502": "INSERT INTO psy.numbers VALUES (NULL, 'x')",
    "22001": "INSERT INTO psy.typed (id, short) VALUES (99, 'longer')",
    "42P06": "CREATE NAMESPACE psy",
    "42P07": "CREATE SHARED TABLE psy.numbers (n BIGINT PRIMARY KEY)",
    "22012": "SELECT 1 / 0",
    "42704": "SHOW nothing_at_all",
    "34000": "FETCH 1 FROM nobody",
    "25P01": "DECLARE c CURSOR FOR SELECT 1",
}
REFUSED = (
    "CREATE INDEX i ON psy.numbers (name)",
    "NOTIFY x",
    "PREPARE TRANSACTION 'x'",
    "COPY psy.numbers FROM '/etc/passwd'",
    "SET client_encoding TO 'LATIN1'",
    "DECLARE c SCROLL CURSOR FOR SELECT 1",
)


@pytest.mark.parametrize("sqlstate", WRONG)
def test_an_error_has_postgresqls_code(connection: psycopg.Connection, sqlstate: str) -> None:
    with pytest.raises(psycopg.Error) as raised:
        connection.execute(WRONG[sqlstate])
    assert raised.value.sqlstate == sqlstate
    assert connection.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.parametrize("sql", REFUSED)
def test_what_there_is_not_is_refused(connection: psycopg.Connection, sql: str) -> None:
    with pytest.raises(psycopg.errors.FeatureNotSupported):
        connection.execute(sql)


def test_the_place_of_a_syntax_error_is_told(connection: psycopg.Connection) -> None:
    with pytest.raises(psycopg.errors.SyntaxError) as raised:
        ClientCursor(connection).execute("SELECT 1;\n  SELECT 2 FROM WHERE x")
    assert raised.value.diag.statement_position == "27"


def test_a_block_has_the_status_that_drivers_look_at(pg_url: str) -> None:
    with psycopg.connect(pg_url) as connection:
        assert connection.info.transaction_status == TransactionStatus.IDLE
        connection.execute("SELECT 1")
        assert connection.info.transaction_status == TransactionStatus.INTRANS
        with pytest.raises(psycopg.errors.SyntaxError):
            connection.execute("SELEC 1")
        assert connection.info.transaction_status == TransactionStatus.INERROR
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            connection.execute("SELECT 1")
        connection.rollback()
        assert connection.info.transaction_status == TransactionStatus.IDLE


def test_a_savepoint_takes_a_failed_block_back(pg_url: str) -> None:
    with psycopg.connect(pg_url) as connection:
        connection.execute("SELECT 1")
        with pytest.raises(psycopg.errors.SyntaxError), connection.transaction():
            connection.execute("SELEC 1")
        assert connection.execute("SELECT 2").fetchone() == (2,)


def test_rollback_behind_a_write_says_that_the_write_stays(pg_url: str) -> None:
    heard: list[str] = []
    with psycopg.connect(pg_url) as connection:
        connection.add_notice_handler(lambda diag: heard.append(f"{diag.severity} {diag.sqlstate}"))
        connection.execute("INSERT INTO psy.numbers VALUES (9000, 'stays')")
        connection.rollback()
        assert heard == ["WARNING 25000"]
        assert connection.execute("DELETE FROM psy.numbers WHERE n = 9000").rowcount == 1


def test_a_block_that_only_reads_refuses_writes(connection: psycopg.Connection) -> None:
    connection.execute("BEGIN READ ONLY")
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        connection.execute("INSERT INTO psy.numbers VALUES (9001, 'x')")
    assert connection.execute("COMMIT").statusmessage == "ROLLBACK"


def test_a_time_zone_that_is_set_is_answered_with_a_notice(connection: psycopg.Connection) -> None:
    heard: list[str] = []
    connection.add_notice_handler(lambda diag: heard.append(str(diag.message_primary)))
    connection.execute("SET TIME ZONE 'Europe/Berlin'")
    assert "UTC" in heard[0]
    assert connection.execute("SHOW timezone").fetchone() == ("UTC",)


def test_the_search_path_is_where_a_table_without_a_namespace_is_found(pg_url: str) -> None:
    with psycopg.connect(pg_url, options="-c search_path=psy", autocommit=True) as connection:
        assert connection.execute("SELECT count(*) FROM typed").fetchone() == (4,)
        connection.execute("SET search_path TO nowhere")
        with pytest.raises(psycopg.Error):
            connection.execute("SELECT count(*) FROM typed")
        connection.execute("RESET search_path")
        assert connection.execute("SELECT count(*) FROM typed").fetchone() == (4,)


SLOW = "SELECT count(*) FROM generate_series(1, 100000) a, generate_series(1, 100000) b"


def test_the_name_of_the_database_may_stand_before_a_table(connection: psycopg.Connection, pg_url: str) -> None:
    connection.execute(
        'CREATE NAMESPACE named; CREATE SHARED TABLE "kalam"."named"."t" (id INT PRIMARY KEY, kalam TEXT)'
    )
    connection.execute("INSERT INTO KALAM.named.t VALUES (1, 'kalam.named.t'), (2, '\"kalam\".\"named\".x')")
    found = connection.execute('SELECT kalam.named.t.id, t.kalam FROM "kalam"."named"."t" AS t WHERE t.id = %s', (1,))
    assert found.fetchall() == [(1, "kalam.named.t")]
    assert (
        connection.execute("SELECT count(*) FROM kalam.pg_catalog.pg_class WHERE relname = 't'").fetchone() is not None
    )
    with pytest.raises(psycopg.errors.UndefinedColumn) as raised:
        connection.execute('SELECT nothing FROM "kalam"."named"."t"')
    assert raised.value.diag.statement_position == "8"
    with pytest.raises(psycopg.errors.SyntaxError, match=r"namespace\.table"):
        connection.execute("SELECT 1 FROM other.named.t")
    with psycopg.connect(pg_url.removesuffix("kalam") + "named", autocommit=True) as other:  # the name of a namespace
        assert other.execute("SELECT named.t.id FROM named.t WHERE named.t.id = 2").fetchall() == [(2,)]
        with pytest.raises(psycopg.errors.SyntaxError, match=r"namespace\.table"):
            other.execute("SELECT 1 FROM named.named.t")


def test_a_query_is_cancelled_by_its_key(connection: psycopg.Connection) -> None:
    timer = threading.Timer(0.3, connection.cancel_safe)
    timer.start()
    with pytest.raises(psycopg.errors.QueryCanceled, match="user request"):
        connection.execute(SLOW)
    timer.join()
    assert connection.execute("SELECT 1").fetchone() == (1,)


def test_statement_timeout_ends_a_query(connection: psycopg.Connection) -> None:
    connection.execute("SET statement_timeout TO '200ms'")
    with pytest.raises(psycopg.errors.QueryCanceled, match="statement timeout"):
        connection.execute(SLOW)
    connection.execute("SET statement_timeout TO 0")
    assert connection.execute("SELECT 1").fetchone() == (1,)


def test_discard_all_is_as_a_new_session(connection: psycopg.Connection) -> None:
    connection.execute("SET search_path TO psy")
    connection.execute("DISCARD ALL")
    assert connection.execute("SHOW search_path").fetchone() == ('"$user", public',)


@pytest.mark.parametrize(
    ("sql", "value", "sqlstate"),
    [
        ("SELECT n FROM psy.numbers WHERE n = %s", "seven", "22P02"),
        ("SELECT id FROM psy.typed WHERE at = %s", "infinity", "22008"),
    ],
    ids=["number", "time"],
)
def test_a_parameter_that_is_none_of_its_type_is_refused(
    connection: psycopg.Connection, sql: str, value: str, sqlstate: str
) -> None:
    with pytest.raises(psycopg.Error) as raised:
        connection.execute(sql, (value,))
    assert raised.value.sqlstate == sqlstate


def test_the_columns_of_many_tables_are_told_in_their_order(connection: psycopg.Connection) -> None:
    connection.execute("CREATE NAMESPACE many")
    for number in range(100):
        connection.execute(f"CREATE SHARED TABLE many.t{number:02} (id BIGINT PRIMARY KEY, n{number} INT, name TEXT)")
    asked = (
        "SELECT table_schema, table_name, column_name, ordinal_position, data_type, is_nullable, is_generated "
        "FROM information_schema.columns WHERE table_schema = 'many' ORDER BY table_name, ordinal_position"
    )
    expected = [
        ("many", f"t{number:02}", *told, "NEVER")
        for number in range(100)
        for told in (
            ("id", 1, "bigint", "NO"),
            (f"n{number}", 2, "integer", "YES"),
            ("name", 3, "text", "YES"),
        )
    ]
    for binary in (False, True):
        assert connection.execute(asked, binary=binary).fetchall() == expected
    connection.execute("DROP NAMESPACE many CASCADE")
