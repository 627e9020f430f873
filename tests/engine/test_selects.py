"""CREATE VIEW: a SELECT under a name, read wherever a table is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from server_process import ServerProcess, SqlFailed


@pytest.fixture(scope="module")
def ns(shared_server: ServerProcess) -> Iterator[str]:
    """A namespace with a table whose rows are cold, hot and deleted."""
    sql = shared_server.sql
    sql("CREATE NAMESPACE sel; CREATE TABLE sel.t (id INT PRIMARY KEY, v TEXT, u UUID, at TIMESTAMP)")
    sql("INSERT INTO sel.t VALUES (1, 'x', '0189f0a0-0000-7000-8000-000000000001', '2026-01-01')")
    sql("INSERT INTO sel.t (id, v) VALUES (9, 'gone')")
    sql("FLUSH TABLE sel.t; INSERT INTO sel.t VALUES (2, 'y', NULL, NULL); DELETE FROM sel.t WHERE id = 9")
    yield "sel"
    sql("DROP NAMESPACE sel CASCADE")


def failure(server: ServerProcess, text: str, **options: Any) -> SqlFailed:
    with pytest.raises(SqlFailed) as failed:
        server.sql(text, **options)
    return failed.value


def test_a_view_is_read_like_a_table(shared_server: ServerProcess, ns: str) -> None:
    sql = shared_server.sql
    sql(
        "CREATE VIEW big AS SELECT id, upper(v) AS name, u, at, CURRENT_USER() AS who FROM t WHERE t.id > 0",
        namespace=ns,
    )
    rows = [
        [1, "X", "0189f0a0-0000-7000-8000-000000000001", "2026-01-01T00:00:00.000000Z", "ann"],
        [2, "Y", None, None, "ann"],
    ]
    assert sql("SELECT * FROM sel.big ORDER BY id", user="ann") == rows
    assert sql("SELECT big.name FROM big WHERE u = '0189F0A0-0000-7000-8000-000000000001'", namespace=ns) == [["X"]]
    assert sql("SELECT name FROM sel.big WHERE at = '2026-01-01' AND id = $1", 1) == [["X"]]
    assert sql("SELECT count(*) FROM sel.big") == [[2]]
    joined = "SELECT a.name, b.v FROM sel.big a JOIN sel.t b ON a.id = b.id JOIN sel.big c ON c.id = a.id ORDER BY 1"
    assert sql(joined) == [["X", "x"], ["Y", "y"]]
    assert sql("WITH q AS (SELECT * FROM sel.big) SELECT max(id) FROM q WHERE id IN (SELECT id FROM sel.big)") == [[2]]
    assert sql("SHOW COLUMNS FROM sel.big")[1][:2] == ["name", "TEXT"]
    assert sql("SELECT column_name, data_type FROM system.columns WHERE table_name = 'big' AND ordinal = 3") == [
        ["u", "UUID"]
    ]
    assert ["sel", "big", "QUERY"] in [row[:3] for row in sql("SHOW TABLES IN sel")]
    sql("COMMENT ON VIEW sel.big IS 'in capitals'; CREATE TABLE sel.copied AS SELECT id, name FROM sel.big")
    assert sql("SELECT comment FROM system.tables WHERE table_name = 'big'") == [["in capitals"]]
    assert sql("SELECT name FROM sel.copied WHERE id = 2") == [["Y"]]
    assert sql(
        "INSERT INTO sel.copied (id, name) SELECT id + 10, name FROM sel.big; SELECT count(*) FROM sel.copied"
    ) == [[4]]


def test_what_a_view_reads_keeps_its_columns_and_may_get_another_name(shared_server: ServerProcess, ns: str) -> None:
    sql = shared_server.sql
    sql("CREATE TABLE sel.base (id INT PRIMARY KEY, a TEXT, b INT); INSERT INTO sel.base VALUES (1, 'x', 5)")
    sql("CREATE VIEW sel.star AS SELECT * FROM sel.base; CREATE VIEW sel.over (n) AS SELECT star.id + b FROM sel.star")
    sql("ALTER TABLE sel.base ADD COLUMN c INT DEFAULT 7; ALTER TABLE sel.base ALTER COLUMN b SET DEFAULT 1")
    assert sql("SELECT * FROM sel.star") == [[1, "x", 5]]
    for refused in (
        "ALTER TABLE sel.base DROP COLUMN a",
        "ALTER TABLE sel.base RENAME COLUMN b TO bb",
        "ALTER TABLE sel.base ALTER COLUMN b TYPE BIGINT",
        "DROP TABLE sel.base",
        "DROP VIEW sel.star",
    ):
        assert failure(shared_server, refused).code == "table_in_use", refused
    sql("ALTER TABLE sel.base RENAME TO ground; ALTER VIEW sel.star RENAME TO sun")
    assert sql("SELECT n FROM sel.over") == [[6]]
    assert sql("SHOW CREATE TABLE sel.over") == [
        ['CREATE VIEW sel.over (n) AS SELECT star.id + b FROM sel.sun AS "star"']
    ]
    sql("CREATE OR REPLACE VIEW sel.sun AS SELECT id, a, CAST(b * 2 AS INT) AS b, c FROM sel.ground")
    assert sql("SELECT n FROM sel.over; SELECT * FROM sel.sun") == [[1, "x", 10, 7]]
    assert (
        failure(shared_server, "CREATE OR REPLACE VIEW sel.sun AS SELECT id, a FROM sel.ground").code == "unsupported"
    )
    circle = "CREATE OR REPLACE VIEW sel.sun AS SELECT g.id, a, b, c FROM sel.ground g, sel.over"
    assert failure(shared_server, circle).code == "unsupported"
    sql("DROP TABLE sel.ground CASCADE")
    assert failure(shared_server, "SELECT * FROM sel.over").code == "table_not_found"


def test_users_streams_and_system_tables_are_read_through_views(shared_server: ServerProcess, ns: str) -> None:
    sql = shared_server.sql
    sql("CREATE USER TABLE sel.mine (n INT); CREATE STREAM TABLE sel.ev (n INT); INSERT INTO sel.ev VALUES (7)")
    sql("INSERT INTO sel.mine VALUES (1)", user="ann")
    sql("CREATE VIEW sel.both AS SELECT n FROM sel.mine UNION ALL SELECT n FROM sel.ev")
    sql("CREATE VIEW sel.dead AS SELECT id FROM sel.t WHERE _deleted")
    sql("CREATE VIEW sel.named AS SELECT table_name FROM system.tables")
    assert sorted(sql("SELECT n FROM sel.both", user="ann")) == [[1], [7]]
    assert sql("SELECT n FROM sel.both", user="bob") == [[7]]
    assert sql("SELECT id FROM sel.dead") == [[9]]
    assert ["named"] in sql("SELECT table_name FROM sel.named")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("INSERT INTO sel.v VALUES (1)", "unsupported"),
        ("UPDATE sel.v SET id = 2", "unsupported"),
        ("DELETE FROM sel.v", "unsupported"),
        ("TRUNCATE sel.v", "unsupported"),
        ("FLUSH TABLE sel.v", "unsupported"),
        ("SUBSCRIBE TO SELECT * FROM sel.v", "unsupported"),
        ("ALTER TABLE sel.v ADD COLUMN x INT", "unsupported"),
        ("ALTER TABLE sel.v ENABLE ROW LEVEL SECURITY", "unsupported"),
        ("DROP TABLE sel.v", "unsupported"),
        ("DROP VIEW sel.t", "unsupported"),
        ("CREATE MATERIALIZED VIEW sel.m AS SELECT id FROM sel.v", "unsupported"),
        ("CREATE VIEW sel.v AS SELECT 1 AS id", "already_exists"),
        ("CREATE OR REPLACE VIEW sel.t AS SELECT 1 AS id", "already_exists"),
        ("CREATE VIEW sel.bad AS SELECT nothing FROM sel.t", "column_not_found"),
        ("CREATE VIEW sel.bad AS SELECT 1 AS a, 2 AS a", "invalid_value"),
        ("CREATE VIEW sel.bad AS SELECT $1 AS a", "unsupported"),
        ("CREATE VIEW sel.bad AS SELECT INTERVAL '1 day' AS a", "unsupported"),
        ("CREATE VIEW sel.bad (a, b) AS SELECT 1", "invalid_value"),
        ("CREATE VIEW sel.bad AS SELECT * FROM sel.nothing", "table_not_found"),
        ("CREATE VIEW sel.bad AS DELETE FROM sel.t", "unsupported"),
    ],
)
def test_what_no_view_does_is_refused(shared_server: ServerProcess, ns: str, text: str, code: str) -> None:
    shared_server.sql("CREATE VIEW IF NOT EXISTS sel.v AS SELECT id FROM sel.t")
    assert failure(shared_server, text).code == code
    assert failure(shared_server, "SELECT * FROM sel.bad").code == "table_not_found"


def test_views_are_there_after_a_restart(kalam_server: ServerProcess) -> None:
    kalam_server.sql("CREATE NAMESPACE k; CREATE TABLE k.t (id INT); INSERT INTO k.t VALUES (3)")
    kalam_server.sql("CREATE VIEW k.v AS SELECT id FROM k.t")
    kalam_server.kill()
    kalam_server.restart()
    assert kalam_server.sql("SELECT id FROM k.v") == [[3]]
