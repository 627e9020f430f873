"""Temporary tables: what a session has for itself, as PostgreSQL has it."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
from login_book import wait_until
from server_process import ServerProcess, SqlFailed

NAMESPACE = "temporary"


@pytest.fixture(scope="module", autouse=True)
def tables(pg_url: str) -> None:
    with psycopg.connect(pg_url, autocommit=True) as opened:
        opened.execute(f"CREATE NAMESPACE {NAMESPACE}")
        opened.execute(f"CREATE TABLE {NAMESPACE}.things (id INT PRIMARY KEY, name TEXT, price DECIMAL(10,2))")
        opened.execute(f"INSERT INTO {NAMESPACE}.things VALUES (1, 'a', 1.50), (2, 'b', 2.50), (3, 'c', NULL)")


@pytest.fixture
def session(pg_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(pg_url, autocommit=True, options=f"-c search_path={NAMESPACE}") as opened:
        yield opened


def rows(session: psycopg.Connection, text: str, *parameters: object) -> list[tuple[object, ...]]:
    return session.execute(text, parameters).fetchall()  # type: ignore[arg-type] # the texts are the tests' own


def code(session: psycopg.Connection, text: str) -> str | None:
    with pytest.raises(psycopg.Error) as caught:
        session.execute(text)  # type: ignore[arg-type] # as above
    return caught.value.sqlstate


def test_rows_are_inserted_read_changed_and_removed(session: psycopg.Connection) -> None:
    session.execute("CREATE TEMPORARY TABLE t (id INT, name TEXT NOT NULL DEFAULT 'none', at TIMESTAMP)")
    assert session.execute("INSERT INTO t VALUES (1, 'a', '2026-01-02 03:04:05'), (2, 'b', NULL)").rowcount == 2
    session.execute("INSERT INTO t (id) VALUES (%s)", (3,))
    with session.cursor() as cursor:
        cursor.executemany("INSERT INTO t (id, name) VALUES (%s, %s)", [(4, "d"), (5, "e")])
    assert rows(session, "SELECT id, name FROM t ORDER BY id") == [(1, "a"), (2, "b"), (3, "none"), (4, "d"), (5, "e")]
    assert session.execute("UPDATE t SET name = name || '!', id = id + 10 WHERE id > 3").rowcount == 2
    assert session.execute("DELETE FROM t x WHERE x.id IN (SELECT id FROM things) AND x.name <> 'b'").rowcount == 2
    assert rows(session, "SELECT * FROM t ORDER BY id") == [(2, "b", None), (14, "d!", None), (15, "e!", None)]
    assert code(session, "INSERT INTO t VALUES (9, NULL, NULL)") == "23502"
    assert code(session, "UPDATE t SET name = NULL") == "23502"
    assert rows(session, "INSERT INTO t (id, name) VALUES (20, 'x') RETURNING id * 2 AS twice, name") == [(40, "x")]
    assert rows(session, "UPDATE t SET id = 21 WHERE id = %s RETURNING id", 20) == [(21,)]
    assert rows(session, "DELETE FROM t WHERE id = 21 RETURNING *") == [(21, "x", None)]
    assert session.execute("DELETE FROM t").rowcount == 3
    assert rows(session, "SELECT count(*) FROM t") == [(0,)]
    session.execute("DROP TABLE t")
    assert code(session, "SELECT * FROM t") == "42P01"


def test_a_query_fills_one_and_it_joins_with_ordinary_tables(session: psycopg.Connection) -> None:
    made = session.execute("CREATE TEMP TABLE dear AS SELECT id, price * 2 AS twice FROM things WHERE price > 1")
    assert made.statusmessage == "CREATE TABLE" or made.rowcount == 2
    found = rows(session, "SELECT t.name, d.twice FROM dear d JOIN things t USING (id) ORDER BY 1")
    assert [(name, str(twice)) for name, twice in found] == [("a", "3.00"), ("b", "5.00")]
    session.execute("CREATE LOCAL TEMPORARY TABLE named (a, b) ON COMMIT PRESERVE ROWS AS SELECT id, name FROM things")
    assert rows(session, "WITH few AS (SELECT * FROM named WHERE a < 3) SELECT sum(a) FROM few") == [(3,)]
    session.execute("INSERT INTO named SELECT a + 100, b FROM named")
    assert rows(session, "SELECT count(*), max(a) FROM named") == [(6, 103)]
    session.execute("CREATE TABLE kept AS SELECT * FROM named")
    assert rows(session, f"SELECT count(*) FROM {NAMESPACE}.kept") == [(6,)]
    session.execute(f"INSERT INTO {NAMESPACE}.things (id, name) SELECT a, b FROM named WHERE a > 100")
    session.execute("UPDATE things SET price = (SELECT max(a) FROM named) WHERE id > 100")
    assert session.execute("DELETE FROM things WHERE id IN (SELECT a FROM named WHERE a > 100)").rowcount == 3
    assert code(session, "CREATE TEMP TABLE dear (a INT)") == "42P07"
    session.execute("CREATE TEMP TABLE IF NOT EXISTS dear (a INT)")


def test_one_hides_a_table_of_its_name_until_it_is_dropped(session: psycopg.Connection) -> None:
    assert rows(session, "SELECT name FROM things WHERE id = %s", 1) == [("a",)]
    session.execute("CREATE TEMP TABLE things (id INT, name TEXT)")
    assert rows(session, "SELECT name FROM things WHERE id = %s", 1) == []
    session.execute("INSERT INTO things VALUES (1, 'mine')")
    assert rows(session, "SELECT name FROM things WHERE id = 1") == [("mine",)]
    assert rows(session, "SELECT name FROM pg_temp.things WHERE id = 1") == [("mine",)]
    assert rows(session, f"SELECT name FROM {NAMESPACE}.things WHERE id = 1") == [("a",)]
    session.execute("DELETE FROM things")
    assert code(session, "ALTER TABLE things ADD COLUMN x INT") == "0A000"
    session.execute("DROP TABLE things")
    assert rows(session, "SELECT name FROM things WHERE id = 1") == [("a",)]
    assert code(session, "SELECT * FROM pg_temp.things") == "42P01"


def test_two_sessions_have_tables_of_the_same_name(session: psycopg.Connection, pg_url: str) -> None:
    with psycopg.connect(pg_url, autocommit=True, options=f"-c search_path={NAMESPACE}") as second:
        for number, one in enumerate((session, second)):
            one.execute("CREATE TEMP TABLE same (n INT)")
            one.execute("INSERT INTO same VALUES (%s)", (number,))
        assert [rows(one, "SELECT n FROM same") for one in (session, second)] == [[(0,)], [(1,)]]
        asked = "SELECT table_schema, table_type FROM information_schema.tables WHERE table_name = 'same'"
        (own,), (others,) = rows(session, asked), rows(second, asked)
        assert own[1] == others[1] == "LOCAL TEMPORARY"
        assert own != others
        assert rows(session, "SELECT column_name FROM information_schema.columns WHERE table_name = 'same'") == [("n",)]
        assert rows(session, "SELECT relpersistence FROM pg_class WHERE oid = 'same'::regclass") == [("t",)]
        for text in (f"SELECT * FROM {others[0]}.same", f"INSERT INTO {others[0]}.same VALUES (7)"):
            assert code(session, text) == "42P01"
        assert code(session, f"DROP TABLE {others[0]}.same") == "42P01"
        assert rows(second, f"SELECT n FROM {others[0]}.same") == [(1,)]
        second.execute("DISCARD TEMP")
        assert code(second, "SELECT * FROM same") == "42P01"
        assert rows(session, "SELECT n FROM same") == [(0,)]
    session.execute("DISCARD ALL")
    assert rows(session, "SELECT count(*) FROM pg_class WHERE relname = 'same'") == [(0,)]


def test_no_default_namespace_leads_to_those_of_another_session(
    session: psycopg.Connection, pg_server: ServerProcess, pg_url: str
) -> None:
    session.execute("CREATE TEMP TABLE hidden AS SELECT 7 AS n")
    [[namespace]] = rows(session, "SELECT table_schema FROM information_schema.tables WHERE table_name = 'hidden'")
    asked = (
        "SELECT * FROM hidden",
        "SELECT n FROM hidden WHERE n = 7",
        "CREATE TEMP TABLE copied AS SELECT * FROM hidden",
        f"CREATE TABLE {NAMESPACE}.copied AS SELECT * FROM hidden",
        f"INSERT INTO {NAMESPACE}.things (id) SELECT n FROM hidden",
        f"DELETE FROM {NAMESPACE}.things USING hidden WHERE id = n",
        "INSERT INTO hidden VALUES (8)",
        "DROP TABLE hidden",
        f"COPY {namespace}.hidden FROM STDIN",
    )
    with psycopg.connect(pg_url, autocommit=True, options=f"-c search_path={namespace}") as second:
        assert [code(second, text) for text in asked] == ["42P01"] * len(asked)
        second.execute("CREATE TEMP TABLE own AS SELECT 1 AS n")
        assert [code(second, text) for text in asked] == ["42P01"] * len(asked)
        assert rows(second, "SELECT n FROM own") == [(1,)]
    for text in asked[:-1]:
        with pytest.raises(SqlFailed) as caught:
            pg_server.sql(text, namespace=str(namespace))
        assert caught.value.code in ("table_not_found", "unsupported")
    session.execute(f"SET search_path = {namespace}")  # type: ignore[arg-type] # as above
    assert rows(session, "SELECT n FROM hidden") == [(7,)]
    assert rows(session, f"SELECT count(*) FROM {NAMESPACE}.things WHERE id = 7") == [(0,)]


def test_a_block_that_is_rolled_back_takes_them_back(session: psycopg.Connection) -> None:
    session.execute("CREATE TEMP TABLE before AS SELECT 1 AS n")
    notices: list[str] = []
    session.add_notice_handler(lambda told: notices.append(str(told.message_primary)))
    session.execute("BEGIN")
    session.execute("CREATE TEMP TABLE within AS SELECT 2 AS n")
    session.execute("INSERT INTO before VALUES (3)")
    session.execute("SAVEPOINT here")
    session.execute("DROP TABLE before")
    session.execute("ROLLBACK TO here")
    assert rows(session, "SELECT sum(n) FROM before") == [(4,)]
    session.execute("ROLLBACK")
    assert rows(session, "SELECT sum(n) FROM before") == [(1,)]
    assert code(session, "SELECT * FROM within") == "42P01"
    assert notices == []
    session.execute("BEGIN READ ONLY")
    session.execute("INSERT INTO before VALUES (5)")
    assert code(session, "CREATE TEMP TABLE no (n INT)") == "25006"
    session.execute("COMMIT")
    assert rows(session, "SELECT sum(n) FROM before") == [(1,)]


def test_savepoints_bring_back_what_was_there_at_each(session: psycopg.Connection) -> None:
    def there() -> list[object]:
        asked = "SELECT table_name FROM information_schema.tables WHERE table_type = 'LOCAL TEMPORARY' ORDER BY 1"
        return [(name, rows(session, f"SELECT n FROM {name} ORDER BY n")) for (name,) in rows(session, asked)]

    session.execute("CREATE TEMP TABLE a AS SELECT 1 AS n")
    states = [there()]
    session.execute("BEGIN")
    for level, texts in enumerate(
        (
            ["INSERT INTO a VALUES (2)", "CREATE TEMP TABLE b AS SELECT 10 AS n"],
            ["DROP TABLE a", "CREATE TEMP TABLE a AS SELECT 5 AS n", "TRUNCATE b"],
            [],
            ["DROP TABLE b", "CREATE TEMP TABLE c AS SELECT 7 AS n"],
            ["DISCARD TEMP"],
        )
    ):
        session.execute(f"SAVEPOINT s{level}")  # type: ignore[arg-type] # as above
        for text in texts:
            session.execute(text)  # type: ignore[arg-type] # as above
        states.append(there())
    assert states[-1] == []
    for level in (4, 3):
        session.execute(f"ROLLBACK TO s{level}")  # type: ignore[arg-type] # as above
        assert there() == states[level]
    session.execute("INSERT INTO a VALUES (6)")
    session.execute("RELEASE s2")
    session.execute("ROLLBACK TO s1")
    assert there() == states[1]
    session.execute("RELEASE s0")
    session.execute("ROLLBACK")
    assert there() == states[0]


def test_the_files_of_one_user_are_bounded_in_all_sessions_together(
    session: psycopg.Connection, pg_server: ServerProcess, pg_url: str
) -> None:
    assert pg_server.process is not None
    pid = pg_server.process.pid
    filled = "CREATE TEMP TABLE t{} AS SELECT value AS n FROM generate_series(1, 20000)"
    former = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (400, former[1]))
    try:
        with psycopg.connect(pg_url, autocommit=True) as second, psycopg.connect(pg_url, user="other") as others:
            for number in range(20):
                (session, second)[number % 2].execute(filled.format(number))  # type: ignore[arg-type] # as above
            for one in (session, second):
                assert code(one, filled.format(20)) == "54000"
            second.execute("CREATE TEMP TABLE few AS SELECT 1 AS n")
            more = "INSERT INTO few SELECT value FROM generate_series(1, 6000)"
            second.execute(more)
            assert code(second, more) == "54000"  # which would be a file, together with what is in memory
            assert rows(second, "SELECT count(*) FROM few") == [(6_001,)]
            others.execute(filled.format(20))  # type: ignore[arg-type] # as above
            assert rows(others, "SELECT count(*) FROM t20") == [(20_000,)]
            session.execute("DROP TABLE t0")
            second.execute(filled.format(20))  # type: ignore[arg-type] # as above
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, former)


def test_savepoints_cost_nothing_for_each_table(session: psycopg.Connection, pg_server: ServerProcess) -> None:
    for number in range(500):
        session.execute(f"CREATE TEMP TABLE t{number} (n INT)")  # type: ignore[arg-type] # as above
    session.execute("BEGIN")
    before = _memory(pg_server)
    with session.pipeline():
        for _ in range(5_000):
            session.execute("SAVEPOINT again")
    assert _memory(pg_server) - before < 40_000_000  # a copy of the 500 for each were 90 MB
    session.execute("ROLLBACK")


def _memory(server: ServerProcess) -> int:
    assert server.process is not None
    return int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]) * 4_096


def test_on_commit_says_what_stays(session: psycopg.Connection) -> None:
    with session.transaction():
        session.execute("CREATE TEMP TABLE kept (n INT) ON COMMIT PRESERVE ROWS")
        session.execute("CREATE TEMP TABLE emptied (n INT) ON COMMIT DELETE ROWS")
        session.execute("CREATE TEMP TABLE gone ON COMMIT DROP AS SELECT 1 AS n")
        for name in ("kept", "emptied", "gone"):
            session.execute(f"INSERT INTO {name} VALUES (1)")  # type: ignore[arg-type] # as above
        assert rows(session, "SELECT count(*) FROM gone") == [(2,)]
    assert rows(session, "SELECT (SELECT count(*) FROM kept), (SELECT count(*) FROM emptied)") == [(1, 0)]
    assert code(session, "SELECT * FROM gone") == "42P01"
    session.execute("CREATE TEMP TABLE gone (n INT) ON COMMIT DROP")
    assert code(session, "SELECT * FROM gone") == "42P01"


def test_what_a_statement_of_theirs_cannot_be_is_refused(session: psycopg.Connection) -> None:
    session.execute("CREATE TEMP TABLE t (id INT PRIMARY KEY, n INT)")
    session.execute("INSERT INTO t VALUES (1, 1)")
    assert code(session, "INSERT INTO t VALUES (1, 2)") == "23505"
    assert code(session, "INSERT INTO t VALUES (1, 2) ON CONFLICT (id) DO NOTHING") == "0A000"
    assert code(session, "CREATE VIEW v AS SELECT * FROM t") == "0A000"
    assert code(session, "GRANT SELECT ON TABLE t TO PUBLIC") == "0A000"
    assert code(session, "DROP STREAM TABLE t") == "0A000"
    assert code(session, "CREATE TEMP VIEW w AS SELECT 1 AS n") == "0A000"
    assert code(session, "CREATE TEMP TABLE u (n INT) WITH (fillfactor = 70)") == "0A000"
    assert code(session, f"CREATE TEMP TABLE {NAMESPACE}.u (n INT)") == "42602"
    assert code(session, "CREATE NAMESPACE pg_temp_7") == "42602"
    assert code(session, "MERGE INTO t USING (SELECT 1 AS id) AS s ON s.id = t.id WHEN MATCHED THEN DELETE") == "0A000"
    with pytest.raises(psycopg.Error, match="CREATE TEMPORARY TABLE"):
        session.execute("CREATE TABLE pg_temp.u (n INT)")
    assert rows(session, "SELECT id, n FROM t") == [(1, 1)]
    session.execute("TRUNCATE t")
    assert rows(session, "SELECT count(*) FROM t") == [(0,)]


def test_copy_goes_in_and_out(session: psycopg.Connection) -> None:
    session.execute("CREATE TEMP TABLE t (id BIGINT, name TEXT)")
    with session.cursor() as cursor:
        with cursor.copy("COPY t (id, name) FROM STDIN") as copy:
            for number in range(20_000):
                copy.write_row((number, f"name {number}"))
        assert cursor.rowcount == 20_000
        with cursor.copy("COPY t TO STDOUT") as copy:
            assert sum(bytes(data).count(b"\n") for data in copy) == 20_000
    assert rows(session, "SELECT sum(id), count(DISTINCT name) FROM t") == [(199_990_000, 20_000)]


def test_a_prepared_statement_reads_the_table_that_has_the_name_now(session: psycopg.Connection) -> None:
    session.execute("CREATE TEMP TABLE t AS SELECT 1 AS n")
    with session.cursor() as cursor:
        for _ in range(7):
            assert cursor.execute("SELECT * FROM t WHERE n = %s", (1,), prepare=True).fetchall() == [(1,)]
        cursor.execute("DROP TABLE t")
        cursor.execute("CREATE TEMP TABLE t AS SELECT 1 AS n, 'x' AS more")
        assert cursor.execute("SELECT * FROM t WHERE n = %s", (1,), prepare=True).fetchall() == [(1, "x")]


def test_many_rows_are_in_files_without_a_name_and_go_with_the_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    flags = ("--pg-port=0",)
    server = ServerProcess(tmp_path / "data", flags=flags, environment={"KALAM_TEMPORARY_BYTES_MAX": "20000000"})
    server.start()
    try:
        url = str(server.announcement["pg_url"]).replace("//", "//admin@") + "/kalam"
        with psycopg.connect(url, autocommit=True) as session:
            filled = "CREATE TEMP TABLE big AS SELECT value AS n FROM generate_series(1, 1000000)"
            session.execute(filled)
            assert rows(session, "SELECT count(*), sum(n) FROM big") == [(1_000_000, 500_000_500_000)]
            assert _large_files(server, folder) == 1
            with pytest.raises(psycopg.errors.ProgramLimitExceeded, match="temporary_bytes_max"):
                session.execute("CREATE TEMP TABLE bigger AS SELECT n FROM big UNION ALL SELECT n + 1 FROM big")
            session.execute("DELETE FROM big WHERE n > 10")
            session.execute(filled.replace("big", "again"))
        with psycopg.connect(url, autocommit=True) as session:
            assert code(session, "SELECT * FROM pg_temp.big") == "42P01"
        asyncio.run(wait_until(lambda: _large_files(server, folder) == 0))
        assert list(folder.rglob("*")) == []
    finally:
        server.kill()
    assert not any("temp" in path.name for path in (tmp_path / "data").rglob("*"))


def _large_files(server: ServerProcess, folder: Path) -> int:
    """How many files of some size that were in the folder the server has open."""
    found: set[str] = set()
    for link in Path(f"/proc/{server.process.pid}/fd").iterdir():
        with suppress(OSError):  # of one that is closed meanwhile
            if str(target := link.readlink()).startswith(str(folder)) and link.stat().st_size > 1_000_000:
                found.add(str(target))
    return len(found)


def test_ordinary_tables_are_changed_by_what_one_holds(session: psycopg.Connection) -> None:
    session.execute("CREATE TABLE IF NOT EXISTS stock (id INT PRIMARY KEY, name TEXT, n INT)")
    session.execute("TRUNCATE stock")
    session.execute("INSERT INTO stock VALUES (1, 'a', 1), (2, 'b', 2), (3, 'c', 3)")
    session.execute("CREATE TEMP TABLE came (id INT, name TEXT)")
    session.execute("INSERT INTO came VALUES (1, 'A'), (2, 'B'), (2, 'B'), (9, 'X')")
    stock = "SELECT id, name, n FROM stock ORDER BY id"
    updated = f"UPDATE {NAMESPACE}.stock SET name = came.name, n = n + 1 FROM came WHERE came.id = {NAMESPACE}.stock.id"
    assert session.execute(updated).rowcount == 2  # type: ignore[arg-type] # as above
    assert rows(session, stock) == [(1, "A", 2), (2, "B", 3), (3, "c", 3)]
    assert code(session, "UPDATE stock SET n = 0 FROM came WHERE id = came.id") is not None
    assert session.execute("DELETE FROM stock s USING came c WHERE c.id = s.id AND c.id = %s", (1,)).rowcount == 1
    assert code(session, "MERGE INTO stock USING came c ON c.id = stock.id WHEN MATCHED THEN DELETE") == "22023"
    merged = (
        "MERGE INTO stock AS d USING (SELECT DISTINCT id, name FROM came) AS s ON (s.id = d.id) "
        "WHEN MATCHED THEN UPDATE SET n = CASE WHEN d.n > 2 THEN 0 ELSE 1 END "
        'WHEN NOT MATCHED THEN INSERT ("id", "name") VALUES ("id", "name" || %s)'
    )
    assert session.execute(merged, ("!",)).rowcount == 3
    assert rows(session, stock) == [(1, "A!", None), (2, "B", 0), (3, "c", 3), (9, "X!", None)]
    taken = "MERGE INTO stock USING came ON came.id = stock.id + 7 WHEN NOT MATCHED THEN INSERT (id) VALUES (came.id)"
    assert code(session, taken) == "23505"
    assert session.execute("UPDATE came SET name = s.name FROM stock s WHERE s.id = came.id").rowcount == 4
    assert session.execute("DELETE FROM came USING stock s WHERE s.id = came.id AND s.n = 0").rowcount == 2
    assert rows(session, "SELECT id, name FROM came ORDER BY id") == [(1, "A!"), (9, "X!")]
