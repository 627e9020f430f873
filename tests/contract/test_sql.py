"""sql.md, statement by statement, as it is seen over HTTP."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from foreign_program import Program
from patience import PATIENCE_S
from server_process import ServerProcess, SqlFailed

Sql = Callable[..., Any]


@pytest.fixture
def sql(shared_server: ServerProcess, namespace: str) -> Sql:
    """Runs a text in the test's namespace."""

    def sql(text: str, *params: Any, user: str = "ann") -> Any:
        return shared_server.sql(text, *params, user=user, namespace=namespace)

    return sql


def code_of(sql: Sql, text: str, *params: Any, user: str = "ann") -> str:
    with pytest.raises(SqlFailed) as failed:
        sql(text, *params, user=user)
    return str(failed.value.code)


def columns_of(server: ServerProcess, text: str, **given: Any) -> list[tuple[str, str]]:
    return [(column["name"], column["type"]) for column in server.results(text, **given)[-1]["columns"]]


# Namespaces


def test_a_namespace_is_created_shown_and_dropped(sql: Sql, namespace: str) -> None:
    name = f"{namespace}x"
    assert "created" in sql(f"CREATE NAMESPACE {name.upper()}")
    assert "skipped" in sql(f"create namespace if not exists {name}")
    assert code_of(sql, f"CREATE NAMESPACE {name}") == "already_exists"
    assert name in [row[0] for row in sql("SHOW NAMESPACES")]
    assert sql(f"SELECT namespace FROM system.namespaces WHERE namespace = '{name}'") == [[name]]
    assert "dropped" in sql(f"DROP NAMESPACE {name}")
    assert "skipped" in sql(f"DROP NAMESPACE IF EXISTS {name}")
    assert code_of(sql, f"DROP NAMESPACE {name}") == "namespace_not_found"


def test_a_namespace_with_tables_is_dropped_with_cascade_alone(sql: Sql, namespace: str) -> None:
    for kind in ("STREAM", "SHARED", "USER"):
        sql(f"CREATE {kind} TABLE {kind} (a INT)")
    with pytest.raises(SqlFailed) as failed:
        sql(f"DROP NAMESPACE {namespace}")
    assert failed.value.code == "table_in_use"
    assert all(f"{namespace}.{kind}" in failed.value.problem["detail"] for kind in ("stream", "shared", "user"))
    sql(f"DROP NAMESPACE {namespace} CASCADE")
    assert sql(f"SELECT count(*) FROM system.tables WHERE namespace = '{namespace}'") == [[0]]


# Tables


def test_create_table_makes_a_shared_table(sql: Sql) -> None:
    assert "SHARED" in sql("CREATE TABLE t (a INT)")
    assert "skipped" in sql("CREATE TABLE IF NOT EXISTS t (a INT)")
    assert "skipped" in sql("CREATE SHARED TABLE IF NOT EXISTS t (b TEXT)")
    assert code_of(sql, "CREATE TABLE t (a INT)") == "already_exists"
    assert code_of(sql, "CREATE USER TABLE IF NOT EXISTS t (a INT)") == "already_exists"


def test_names_fold_to_lower_case(sql: Sql, namespace: str) -> None:
    sql(f"CREATE TABLE {namespace.upper()}.Orders (ID INT PRIMARY KEY, Total DECIMAL(5,2))")
    sql("INSERT INTO ORDERS (Id, TOTAL) VALUES (1, 2.5)")
    assert sql('SELECT iD, "total" AS "Total" FROM orders') == [[1, "2.50"]]


def test_a_dropped_table_leaves_nothing_to_the_next_of_its_name(sql: Sql) -> None:
    for kind in ("STREAM", "SHARED", "USER"):
        sql(f"CREATE {kind} TABLE t (a INT); INSERT INTO t VALUES (1), (2)")
        if kind != "STREAM":
            sql("FLUSH TABLE t; INSERT INTO t VALUES (3)")
        wrong = "USER" if kind == "STREAM" else "STREAM"
        assert code_of(sql, f"DROP {wrong} TABLE t") == "unsupported"
        sql(f"DROP {kind} TABLE t")
        assert code_of(sql, "SELECT * FROM t") == "table_not_found"
        assert code_of(sql, "DROP TABLE t") == "table_not_found"
        assert "skipped" in sql("DROP TABLE IF EXISTS t")
        assert sql(f"CREATE {kind} TABLE t (b TEXT); SELECT * FROM t") == []
        sql("DROP TABLE t")


def test_older_clauses_mean_the_same_as_options(sql: Sql) -> None:
    pairs = [
        ("STREAM", "RETENTION 10s EPHEMERAL MAX_BUFFER 1000", "retention = '10s', ephemeral = true, max_buffer = 1000"),
        ("STREAM", "", "max_buffer = 10000"),
        ("SHARED", "FLUSH POLICY ROWS 1000", "flush_policy = 'rows:1000'"),
        ("SHARED", "FLUSH POLICY TIME 300s", "flush_policy = 'interval:300'"),
        ("USER", "FLUSH POLICY ROWS 1000 OR TIME 600s", "flush_policy = 'rows:1000,interval:600'"),
        ("SHARED", "DELETED_RETENTION 7d", "deleted_retention = '7d'"),
    ]
    for kind, clause, options in pairs:
        sql(f"CREATE {kind} TABLE a (x INT) {clause}; CREATE {kind} TABLE b (x INT) WITH ({options})")
        described = [[row for row in sql(f"DESCRIBE TABLE {name}") if row[0] == "option"] for name in "ab"]
        assert described[0] == described[1]
        sql("DROP TABLE a; DROP TABLE b")


def test_a_location_is_a_folder_that_is_nobody_elses(sql: Sql, shared_server: ServerProcess, namespace: str) -> None:
    data = shared_server.data_dir
    mine = f"{data}/tables/{namespace}"
    sql(f"CREATE TABLE a (k INT) WITH (location = '{mine}/a')")
    sql(f"CREATE USER TABLE b (k INT) WITH (location = '{mine}/b/${{user_id}}/rows')")
    refused = ["/etc", "relative", f"{mine}/../../..", f"{mine}/a", f"{mine}/a/b", mine, f"{data}", f"{data}/nats"]
    refused += [f"{data}/nats/x", f"{data}/snapshots", f"{data}/shared/x", f"{data}/kalam.db", f"{mine}/${{user_id}}"]
    for location in refused:
        assert code_of(sql, f"CREATE TABLE c (k INT) WITH (location = '{location}')") == "invalid_option", location
    assert code_of(sql, f"CREATE USER TABLE c (k INT) WITH (location = '{mine}/c')") == "invalid_option"
    for table in "ab":
        sql(f"INSERT INTO {table} VALUES (1); FLUSH TABLE {table}")
        assert sql(f"SELECT k FROM {table}") == [[1]]
    assert list((data / "tables" / namespace / "a").rglob("*.parquet"))
    assert list((data / "tables" / namespace / "b" / "ann" / "rows").rglob("*.parquet"))


def test_keys_of_every_type_are_unique_hot_and_cold(sql: Sql) -> None:
    keys = {"BIGINT": "5", "TEXT": "'A '", "UUID": "'01890a5d-ac96-774b-bcce-b302099a8057'", "DATE": "'2026-01-02'"}
    keys |= {"TIMESTAMP": "'2026-01-02T03:04:05Z'", "DECIMAL(5,2)": "1.5", "SMALLINT": "-1"}
    for kind, key in keys.items():
        sql(f"CREATE TABLE t (v INT, k {kind} PRIMARY KEY); INSERT INTO t VALUES (1, {key})")
        for _ in ("hot", "cold"):
            with pytest.raises(SqlFailed) as failed:
                sql(f"INSERT INTO t VALUES (2, {key})")
            assert failed.value.code == "duplicate_key"
            assert "Decimal(" not in str(failed.value)
            assert "datetime" not in str(failed.value)
            assert sql(f"SELECT v FROM t WHERE k = {key}") == [[1]]
            sql("FLUSH TABLE t")
        assert sql(f"DELETE FROM t WHERE k = {key}") == "1 row deleted"
        assert sql(f"INSERT INTO t VALUES (3, {key}); SELECT v FROM t") == [[3]]
        sql("DROP TABLE t")


def test_show_create_table_makes_the_same_table_again(sql: Sql) -> None:
    sql(
        "CREATE STREAM TABLE s (k TEXT DEFAULT 'it''s', v DECIMAL(7,2) NOT NULL) "
        "WITH (retention = '1h', subject_key = k, max_buffer = 5, format = 'msgpack')"
    )
    sql(
        "CREATE USER TABLE u (k UUID DEFAULT UUID_V7() PRIMARY KEY, v VARCHAR(5) DEFAULT CURRENT_USER(), "
        "t TIMESTAMP NOT NULL DEFAULT NOW(), j JSON DEFAULT '{\"a\": [1]}') "
        "WITH (flush_policy = 'rows:7', compression = 'snappy', deleted_retention = 'off')"
    )
    sql("CREATE TABLE r (v REAL, b BYTEA)")
    for table in ("s", "u", "r"):
        [[statement]] = sql(f"SHOW CREATE TABLE {table}")
        described = sql(f"DESCRIBE TABLE {table}")
        sql(f"DROP TABLE {table}")
        sql(statement)
        assert sql(f"SHOW CREATE TABLE {table}") == [[statement]]
        again = sql(f"DESCRIBE TABLE {table}")
        assert [row for row in again if row[1] != "table_id"] == [row for row in described if row[1] != "table_id"]


def test_describe_shows_the_columns_options_and_what_is_stored(sql: Sql, namespace: str) -> None:
    sql("CREATE STREAM TABLE s (k INT NOT NULL DEFAULT 7) RETENTION 10s")
    sql("CREATE TABLE t (k INT PRIMARY KEY, v TEXT)")
    sql(
        "INSERT INTO s VALUES (1), (2); INSERT INTO t VALUES (1, 'a'), (2, 'b'); FLUSH TABLE t; "
        "INSERT INTO t VALUES (3, 'c')"
    )
    stream = " | ".join(str(row) for row in sql("DESCRIBE TABLE s"))
    shared = {row[1]: row[2] for row in sql("DESCRIBE TABLE t")}
    for words in (
        "retention = 10 seconds",
        "max_buffer = 10000 rows",
        f"kalam.stream.{namespace}.s",
        "NOT NULL DEFAULT 7",
    ):
        assert words in stream
    assert "'buffered_rows', '2'" in stream
    assert (shared["hot_rows"], shared["cold_rows"], shared["segments"]) == ("1", "2", "1")
    assert (shared["kind"], shared["schema_version"]) == ("SHARED", "1")
    assert "PRIMARY KEY" in shared["k"]
    assert shared["subject"].startswith(f"kalam.shared.{namespace}.t.")
    sql("UPDATE t SET v = 'd' WHERE k = 3; UPDATE t SET v = 'e' WHERE k = 3; DELETE FROM t WHERE k = 1")
    assert ["hot_rows", "1"] in sql("SHOW STATS FOR TABLE t")
    assert ["cold_rows", "2"] in sql("SHOW STATS FOR TABLE t")
    assert [row[0] for row in sql("DESCRIBE TABLE t HISTORY")] == [1]
    assert sorted(row[1] for row in sql(f"SHOW TABLES IN {namespace}")) == ["s", "t"]


SYSTEM_TABLES = {
    "namespaces": "namespace created_at",
    "tables": "namespace table_name table_type table_id options schema_version created_at comment",
    "columns": "namespace table_name column_name ordinal data_type is_nullable column_default is_primary_key "
    "key_ordinal comment",
    "table_schemas": "namespace table_name schema_version columns created_at",
    "segments": "namespace table_name user_id path rows bytes min_seq max_seq schema_version created_at",
    "jobs": "job_id job_type namespace table_name status parameters result error created_at started_at finished_at",
    "stats": "name value",
}


def test_system_tables_have_the_promised_columns(shared_server: ServerProcess) -> None:
    for table, names in SYSTEM_TABLES.items():
        shown = columns_of(shared_server, f"SELECT * FROM system.{table}")
        assert [name for name, _ in shown] == names.split(), table


def test_system_columns_lists_what_create_table_said(sql: Sql, namespace: str) -> None:
    sql("CREATE TABLE t (k BIGINT PRIMARY KEY, v INT DEFAULT -5, w VARCHAR(3) NOT NULL)")
    query = "SELECT column_name, ordinal, data_type, is_nullable, column_default, is_primary_key FROM system.columns "
    assert sql(f"{query} WHERE namespace = '{namespace}' ORDER BY ordinal") == [
        ["k", 1, "BIGINT", False, None, True],
        ["v", 2, "INT", True, "-5", False],
        ["w", 3, "VARCHAR(3)", False, None, False],
    ]
    sql("CREATE TABLE u (v INT, k BIGINT, l TEXT, PRIMARY KEY (l, k))")
    query = "SELECT column_name, is_nullable, is_primary_key, key_ordinal FROM system.columns "
    assert sql(f"{query} WHERE namespace = '{namespace}' AND table_name = 'u' ORDER BY ordinal") == [
        ["v", True, False, None],
        ["k", False, True, 2],
        ["l", False, True, 1],
    ]


# Rows


def test_insert_takes_values_a_query_defaults_and_expressions(sql: Sql) -> None:
    sql("CREATE TABLE t (k INT PRIMARY KEY, v TEXT DEFAULT 'd', n INT)")
    assert sql("INSERT INTO t VALUES (1, 'a', NULL), (2, DEFAULT, -7)") == "2 rows inserted"
    assert sql("INSERT INTO t (n, k) VALUES (1 + 2 * 3, 3), (length('four'), 4)") == "2 rows inserted"
    assert sql("INSERT INTO t (k, v) SELECT k + 10, upper(v) FROM t WHERE k < $1", 3) == "2 rows inserted"
    assert sql("INSERT INTO t (k, v) VALUES ($1, $2), ($3, $2)", 20, "p", 21) == "2 rows inserted"
    assert sql("INSERT INTO t SELECT k, v, n FROM t WHERE false") == "0 rows inserted"
    assert sql("SELECT k, v, n FROM t ORDER BY k") == [
        [1, "a", None],
        [2, "d", -7],
        [3, "d", 7],
        [4, "d", 4],
        [11, "A", None],
        [12, "D", None],
        [20, "p", None],
        [21, "p", None],
    ]


def test_returning_shows_the_rows_as_they_are_stored(sql: Sql, shared_server: ServerProcess, namespace: str) -> None:
    sql("CREATE TABLE t (k INT PRIMARY KEY, v TEXT DEFAULT 'd')")
    [result] = shared_server.results("INSERT INTO t (k) VALUES (1), (2) RETURNING *", namespace=namespace)
    assert [column["name"] for column in result["columns"]] == ["k", "v", "_updated", "_deleted"]
    assert result["rows"] == sql("SELECT * FROM t ORDER BY k")
    assert sql("UPDATE t SET v = v || $1 RETURNING k * 10 AS ten, v", "!") == [[10, "d!"], [20, "d!"]]
    assert sql("DELETE FROM t WHERE k = 1 RETURNING k, v, _deleted") == [[1, "d!", True]]
    assert sql("DELETE FROM t WHERE k = 1 RETURNING k") == []
    sql("CREATE STREAM TABLE s (k INT, v TEXT DEFAULT 'd')")
    assert sql("INSERT INTO s (k) VALUES (1), (2) RETURNING v, k") == [["d", 1], ["d", 2]]


def test_select_star_shows_the_declared_columns_and_then_the_system_columns(
    shared_server: ServerProcess, sql: Sql, namespace: str
) -> None:
    sql(
        "CREATE TABLE a (z INT, b TEXT); CREATE USER TABLE c (z INT, b TEXT PRIMARY KEY); "
        "CREATE STREAM TABLE d (z INT, b TEXT)"
    )
    expected = {"a": "z b _row_id _updated _deleted", "c": "z b _updated _deleted", "d": "z b"}
    for table, names in expected.items():
        for _ in ("empty", "hot", "cold"):
            shown = columns_of(shared_server, f"SELECT * FROM {table}", namespace=namespace, user="ann")
            assert [name for name, _ in shown] == names.split()
            if table != "d":
                sql(f"FLUSH TABLE {table}")
            sql(f"INSERT INTO {table} (z, b) VALUES (1, uuid())")


def test_the_types_of_a_result_are_those_of_the_table(shared_server: ServerProcess, sql: Sql, namespace: str) -> None:
    types = ["BOOLEAN", "SMALLINT", "INT", "BIGINT", "FLOAT", "DOUBLE", "DECIMAL(7,2)"]
    types += ["TEXT", "BLOB", "TIMESTAMP", "DATE", "JSON", "UUID", "VARCHAR(3)"]
    columns = ", ".join(f"c{number} {name}" for number, name in enumerate(types))
    sql(f"CREATE TABLE t ({columns})")
    names = ", ".join(f"c{number}" for number in range(len(types)))
    for _ in ("hot", "cold"):
        assert [kind for _, kind in columns_of(shared_server, f"SELECT {names} FROM t", namespace=namespace)] == types
        sql("INSERT INTO t (c1) VALUES (1); FLUSH TABLE t")


def test_aliases_of_types_are_those_of_postgresql(shared_server: ServerProcess, sql: Sql, namespace: str) -> None:
    aliases = {"INT2": "SMALLINT", "INT4": "INT", "INT8": "BIGINT", "INTEGER": "INT", "REAL": "FLOAT", "STRING": "TEXT"}
    aliases |= {
        "BYTEA": "BLOB",
        "TIMESTAMPTZ": "TIMESTAMP",
        "VARCHAR": "TEXT",
        "BOOL": "BOOLEAN",
        "NUMERIC(5,1)": "DECIMAL(5,1)",
    }
    aliases |= {"DOUBLE PRECISION": "DOUBLE", "JSONB": "JSON", "VARCHAR(9)": "VARCHAR(9)"}
    sql(f"CREATE STREAM TABLE t ({', '.join(f'c{number} {alias}' for number, alias in enumerate(aliases))})")
    shown = columns_of(shared_server, "SELECT * FROM t", namespace=namespace)
    assert [kind for _, kind in shown] == list(aliases.values())


def test_update_changes_the_named_columns_and_bumps_updated(sql: Sql) -> None:
    sql("CREATE TABLE t (k INT PRIMARY KEY, v TEXT, n INT); INSERT INTO t VALUES (1, 'a', 1), (2, 'b', 2), (3, 'c', 3)")
    for _ in ("hot", "cold"):
        before = {row[0]: row for row in sql("SELECT k, v, n, _updated, _deleted FROM t")}
        assert sql("UPDATE t SET n = n * 10, v = $2 WHERE k >= $1", 2, "x") == "2 rows updated"
        assert sql("UPDATE t SET n = 0 WHERE k = 99") == "0 rows updated"
        after = {row[0]: row for row in sql("SELECT k, v, n, _updated, _deleted FROM t")}
        assert after[1] == before[1]
        assert after[2][:3] == [2, "x", before[2][2] * 10]
        assert datetime.fromisoformat(after[2][3]) > datetime.fromisoformat(before[2][3])
        assert after[2][3] == after[3][3]
        sql("FLUSH TABLE t")


def test_update_sees_the_old_values_of_every_column(sql: Sql) -> None:
    sql("CREATE TABLE t (k INT PRIMARY KEY, a INT, b INT); INSERT INTO t VALUES (1, 10, 20)")
    sql("UPDATE t SET a = b, b = a")
    assert sql("SELECT a, b FROM t") == [[20, 10]]
    sql("UPDATE t SET a = (SELECT max(b) + $1 FROM t), b = NULL WHERE k = $2", 5, 1)
    assert sql("SELECT a, b FROM t") == [[15, None]]


async def test_update_of_the_key_is_published_as_a_delete_and_an_insert(
    program: Program, namespace: str, sql: Sql
) -> None:
    changes = await program.listen(f"kalam.shared.{namespace}.t.*")
    sql("CREATE TABLE t (k INT PRIMARY KEY, v TEXT); INSERT INTO t VALUES (1, 'a'), (2, 'b')")
    assert [row["k"] for row in (await changes()).json["rows"]] == [1, 2]
    assert sql("UPDATE t SET k = k + 10 WHERE k = 1") == "1 row updated"
    deleted, inserted = await changes(), await changes()
    assert (deleted.subject.rsplit(".", 1)[1], inserted.subject.rsplit(".", 1)[1]) == ("delete", "insert")
    assert (deleted.json["seq"], inserted.json["seq"]) == (3, 4)
    assert ([row["k"] for row in deleted.json["rows"]], [row["k"] for row in inserted.json["rows"]]) == ([1], [11])
    assert [row["_deleted"] for row in (*deleted.json["rows"], *inserted.json["rows"])] == [True, False]
    assert sql("SELECT k, v FROM t ORDER BY k") == [[2, "b"], [11, "a"]]
    assert code_of(sql, "UPDATE t SET k = 2 WHERE k = 11") == "duplicate_key"
    assert code_of(sql, "UPDATE t SET k = 5") == "duplicate_key"
    assert sql("UPDATE t SET k = k + 9") == "2 rows updated"
    assert sql("SELECT k, v FROM t ORDER BY k") == [[11, "b"], [20, "a"]]


def test_a_deleted_row_is_seen_only_where_deleted_is_named(sql: Sql) -> None:
    sql("CREATE TABLE t (k INT PRIMARY KEY, v TEXT); INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c')")
    for kept in (True, False):
        assert sql("DELETE FROM t WHERE k = 1") == ("1 row deleted" if kept else "0 rows deleted")
        assert sql("SELECT k, _deleted FROM t ORDER BY k") == [[2, False], [3, False]]
        assert sql("SELECT k FROM t WHERE _deleted ORDER BY k") == [[1]]
        assert sql("SELECT k, _deleted FROM t WHERE _deleted OR k = 2 ORDER BY k") == [[1, True], [2, False]]
        assert sql("SELECT count(*) FROM t WHERE _deleted IS NOT NULL") == [[3]]
        assert sql("SELECT count(*) FROM t x WHERE x._deleted = false") == [[2]]
        assert sql("SELECT (SELECT count(*) FROM t) AS a, (SELECT count(*) FROM t WHERE _deleted) AS b") == [[2, 1]]
        assert sql("SELECT count(*) FROM t a JOIN t b ON a.k = b.k WHERE b._deleted") == [[0]]
        assert sql("UPDATE t SET v = 'z' WHERE _deleted") == "0 rows updated"
        assert sql("UPDATE t SET v = 'z' WHERE k = 1") == "0 rows updated"
        sql("FLUSH TABLE t")
    assert sql("INSERT INTO t VALUES (1, 'again')") == "1 row inserted"
    assert sql("SELECT k, v, _deleted FROM t WHERE k = 1 AND _deleted IN (true, false)") == [[1, "again", False]]


def test_delete_without_where_deletes_every_row_hot_and_cold(sql: Sql) -> None:
    sql("CREATE TABLE t (k INT PRIMARY KEY); INSERT INTO t SELECT value FROM generate_series(1, 50); FLUSH TABLE t")
    sql("INSERT INTO t SELECT value FROM generate_series(51, 100)")
    assert sql("DELETE FROM t") == "100 rows deleted"
    assert sql("SELECT count(*) FROM t") == [[0]]
    assert sql("INSERT INTO t SELECT value FROM generate_series(1, 100)") == "100 rows inserted"


def test_a_statement_changes_all_of_its_rows_or_none(sql: Sql) -> None:
    sql("CREATE TABLE t (k INT PRIMARY KEY, n SMALLINT); INSERT INTO t VALUES (1, 1), (2, 32767), (3, 3)")
    assert code_of(sql, "UPDATE t SET n = n + 1") == "invalid_value"
    assert code_of(sql, "INSERT INTO t VALUES (4, 4), (3, 3)") == "duplicate_key"
    assert code_of(sql, "INSERT INTO t SELECT k + 2, n FROM t") == "duplicate_key"
    assert sql("SELECT k, n FROM t ORDER BY k") == [[1, 1], [2, 32767], [3, 3]]


async def test_concurrent_updates_of_one_row_are_all_counted(sql: Sql) -> None:
    sql("CREATE TABLE t (k INT PRIMARY KEY, n INT); INSERT INTO t VALUES (1, 0)")

    def add_a_hundred() -> None:
        for _ in range(100):
            assert sql("UPDATE t SET n = n + 1 WHERE k = 1") == "1 row updated"

    await asyncio.gather(*(asyncio.to_thread(add_a_hundred) for _ in range(10)))
    assert sql("SELECT n FROM t") == [[1_000]]


# STREAM tables


def test_a_stream_shows_its_rows_in_the_order_of_their_inserts(sql: Sql) -> None:
    sql("CREATE STREAM TABLE s (k INT, v TEXT); INSERT INTO s VALUES (3, 'c'), (1, 'a'); INSERT INTO s VALUES (2, 'b')")
    assert sql("SELECT * FROM s") == [[3, "c"], [1, "a"], [2, "b"]]
    assert sql("SELECT k FROM s WHERE k <> 1") == [[3], [2]]
    assert sql("SELECT k FROM s LIMIT 1") == [[3]]
    keys = [row[0] for row in sql("SELECT _key FROM s")]
    assert len(set(keys)) == 3
    assert all(part.isdigit() for key in keys for part in key.split(":"))
    assert sql(f"SELECT k FROM s WHERE _key = '{keys[1]}'") == [[1]]
    assert sql(f"SELECT * FROM s WHERE _key = '{keys[1]}'") == [[1, "a"]]
    assert sql("SELECT *, _key FROM s LIMIT 1") == [[3, "c", keys[0]]]
    assert sql("SELECT _key, t.* FROM s AS t WHERE t.k = 2") == [[keys[2], 2, "b"]]


def test_a_stream_refuses_update_and_flush_and_takes_delete(sql: Sql) -> None:
    sql("CREATE STREAM TABLE s (k INT); INSERT INTO s VALUES (1), (2), (3), (2)")
    assert code_of(sql, "UPDATE s SET k = 1") == "unsupported"
    assert code_of(sql, "MERGE INTO s USING s AS t ON t.k = s.k WHEN MATCHED THEN DELETE") == "unsupported"
    assert code_of(sql, "FLUSH TABLE s") == "unsupported"
    assert code_of(sql, "CHECK TABLE s") == "unsupported"
    assert code_of(sql, "INSERT INTO s VALUES (1) ON CONFLICT (k) DO NOTHING") == "unsupported"
    assert sql("DELETE FROM s WHERE k = $1", 2) == "2 events deleted"
    assert sql("SELECT k FROM s") == [[1], [3]]
    assert sql("INSERT INTO s VALUES (4)") == "1 row inserted"
    assert sql("SELECT k FROM s") == [[1], [3], [4]]


def test_max_buffer_is_exact(sql: Sql) -> None:
    sql("CREATE STREAM TABLE s (k INT) MAX_BUFFER 10")
    for first in range(0, 100, 7):
        sql(f"INSERT INTO s SELECT value FROM generate_series({first}, {first + 6})")
        last = first + 6
        assert [row[0] for row in sql("SELECT k FROM s")] == list(range(max(0, last - 9), last + 1))
        assert sql("SELECT count(*) FROM s") == [[min(10, last + 1)]]


async def test_a_row_past_its_retention_is_invisible_at_once(sql: Sql, wait_until: Any) -> None:
    sql("CREATE STREAM TABLE s (k INT) RETENTION 1s; INSERT INTO s VALUES (1)")
    [[key]] = sql("SELECT _key FROM s")
    stored_ms = int(key.split(":")[0])

    def gone() -> bool:
        [[now_ms, count]] = sql("SELECT CAST(extract(epoch FROM now()) * 1000 AS BIGINT), count(*) FROM s")
        assert count == 1 or now_ms >= stored_ms + 1_000 - 5
        assert count == 0 or now_ms <= stored_ms + 1_000 + 5
        return bool(count == 0)

    await wait_until(gone)
    sql("INSERT INTO s VALUES (2)")
    assert sql("SELECT k FROM s") == [[2]]


# USER tables


def test_each_user_sees_and_touches_his_own_rows_alone(sql: Sql) -> None:
    sql("CREATE USER TABLE t (k INT PRIMARY KEY, who TEXT DEFAULT CURRENT_USER(), n INT DEFAULT 0)")
    users = ("ann", "bob", "Ann", "eve-1")
    for user in users:
        sql("INSERT INTO t (k) VALUES (1), (2), (3)", user=user)
    for _ in ("hot", "cold"):
        sql("UPDATE t SET n = n + 1", user="bob")
        sql("DELETE FROM t WHERE k = 3", user="eve-1")
        for user in users:
            rows = sql("SELECT k, who, n FROM t ORDER BY k", user=user)
            expected = [[k, user] for k in (1, 2, 3) if (user, k) != ("eve-1", 3)]
            assert [row[:2] for row in rows] == expected
            assert {row[2] for row in rows} == ({0} if user != "bob" else {rows[0][2]})
        assert sql("SELECT count(*) FROM t x JOIN t y ON true", user="bob") == [[9]]
        sql("FLUSH TABLE t", user="nobody")
    assert sql("SELECT n FROM t", user="bob") == [[2]] * 3
    assert sql("SELECT * FROM t", user="nobody") == []
    assert code_of(sql, "INSERT INTO t (k) VALUES (1)", user="bob") == "duplicate_key"
    sql("INSERT INTO t (k) SELECT k + 10 FROM t", user="ann")
    assert sql("SELECT count(*) FROM t", user="ann") == [[6]]
    assert sql("SELECT count(*) FROM t WHERE _deleted", user="ann") == [[0]]
    assert sql("SELECT k FROM t WHERE _deleted", user="eve-1") == [[3]]


# Queries


def test_a_query_joins_tables_of_every_kind(sql: Sql) -> None:
    sql("CREATE TABLE item (id INT PRIMARY KEY, name TEXT); CREATE USER TABLE cart (id INT PRIMARY KEY, n INT)")
    sql("CREATE STREAM TABLE seen (id INT, at TIMESTAMP DEFAULT NOW())")
    sql(
        "INSERT INTO item VALUES (1, 'tea'), (2, 'cup'), (3, 'pot'); FLUSH TABLE item; "
        "UPDATE item SET name = 'Cup' WHERE id = 2"
    )
    sql("INSERT INTO cart VALUES (2, 5); INSERT INTO seen (id) VALUES (2), (2), (3)")
    rows = sql(
        "WITH views AS (SELECT id, count(*) AS views FROM seen GROUP BY id) "
        "SELECT i.name, v.views, coalesce(c.n, 0) AS n, rank() OVER (ORDER BY v.views DESC) AS place "
        "FROM item i JOIN views v USING (id) LEFT JOIN cart c ON c.id = i.id ORDER BY place"
    )
    assert rows == [["Cup", 2, 5, 1], ["pot", 1, 0, 2]]
    assert [row[0] for row in sql("EXPLAIN SELECT * FROM item")] == ["logical_plan", "physical_plan"]
    assert sql("EXPLAIN ANALYZE SELECT * FROM item")


def test_a_table_needs_a_namespace_and_use_names_one(shared_server: ServerProcess, namespace: str) -> None:
    shared_server.sql(f"CREATE TABLE {namespace}.t (a INT); INSERT INTO {namespace}.t VALUES (7)")
    assert code_of(shared_server.sql, "SELECT * FROM t") == "namespace_not_found"
    assert shared_server.sql("SELECT a FROM t", namespace=namespace) == [[7]]
    assert shared_server.sql(f"USE {namespace}; SELECT a FROM t") == [[7]]
    assert code_of(shared_server.sql, "SELECT a FROM t") == "namespace_not_found"


def test_statements_run_in_order_and_stop_at_the_first_error(shared_server: ServerProcess, namespace: str) -> None:
    text = "CREATE TABLE t (k INT PRIMARY KEY); INSERT INTO t VALUES (1), (2); SELECT k FROM t ORDER BY k"
    results = shared_server.results(text, namespace=namespace)
    assert [result["row_count"] for result in results] == [0, 2, 2]
    assert [bool(result["message"]) for result in results] == [True, True, False]
    assert results[2] == {
        "columns": [{"name": "k", "type": "INT"}],
        "rows": [[1], [2]],
        "row_count": 2,
        "message": None,
    }
    with pytest.raises(SqlFailed) as failed:
        shared_server.results(
            "SELECT ';' AS a; -- a comment; with a semicolon\nINSERT INTO t VALUES (3); SELEC 1; DELETE FROM t",
            namespace=namespace,
        )
    problem = failed.value.problem
    assert (problem["status"], problem["code"], problem["statement"]) == (400, "syntax_error", 3)
    assert (problem["results"][0]["rows"], problem["results"][1]["row_count"]) == ([[";"]], 1)
    assert len(problem["results"]) == 2
    assert shared_server.sql("SELECT count(*) FROM t", namespace=namespace) == [[3]]


def test_a_syntax_error_says_where_it_is(sql: Sql) -> None:
    with pytest.raises(SqlFailed) as failed:
        sql("SELECT 1;\nSELECT 2,\n  FROM WHERE")
    problem = failed.value.problem
    assert (problem["statement"], problem["line"]) == (2, 3)
    assert problem["column"] >= 3


def test_parameters_are_values_of_every_kind(sql: Sql) -> None:
    sql("CREATE TABLE t (k INT PRIMARY KEY, v TEXT, d DOUBLE, b BOOLEAN, j JSON, at TIMESTAMP)")
    document = {"a": [1, None, "x"]}
    sql("INSERT INTO t VALUES ($1, $2, $3, $4, $5, $6)", 1, "x", 1.5, True, document, "2026-01-02T03:04:05Z")
    sql("INSERT INTO t VALUES ($1, $2, $2, $2, $2, $2)", 2, None)
    assert sql("SELECT v, d, b, j, at FROM t ORDER BY k") == [
        ["x", 1.5, True, document, "2026-01-02T03:04:05.000000Z"],
        [None] * 5,
    ]
    assert sql(
        "SELECT k FROM t WHERE v = $1 AND d = $2 AND b = $3 AND at = $4", "x", 1.5, True, "2026-01-02T03:04:05Z"
    ) == [[1]]
    assert sql("SELECT k FROM t WHERE k IN ($1, $2) ORDER BY k LIMIT $3", 1, 2, 1) == [[1]]
    assert sql("SELECT $2 AS b, $1 AS a", 1, "two") == [["two", 1]]
    assert sql("SELECT '$1' AS a", 1) == [["$1"]]


# Jobs


def test_flush_answers_one_row_a_job(shared_server: ServerProcess, sql: Sql, namespace: str) -> None:
    sql("CREATE TABLE a (k INT); CREATE USER TABLE b (k INT); CREATE STREAM TABLE c (k INT)")
    sql("INSERT INTO a VALUES (1), (2); INSERT INTO b VALUES (1); INSERT INTO c VALUES (1)")
    sql("INSERT INTO b VALUES (1)", user="bob")
    [result] = shared_server.results(f"FLUSH ALL TABLES IN {namespace}")
    names = [column["name"] for column in result["columns"]]
    assert names == ["job_id", "table", "rows_flushed", "segments", "bytes", "duration_ms"]
    assert [row[1:4] for row in result["rows"]] == [[f"{namespace}.a", 2, 1], [f"{namespace}.b", 2, 2]]
    assert sql("STORAGE FLUSH TABLE a") == []
    jobs = sql(
        f"SELECT job_id, job_type, table_name, status FROM system.jobs WHERE namespace = '{namespace}' ORDER BY job_id"
    )
    assert [job[1:] for job in jobs] == [["flush", "a", "completed"], ["flush", "b", "completed"]]
    assert [job[0] for job in jobs] == [row[0] for row in result["rows"]]
    assert [row[1] for row in sql("SHOW JOBS") if row[2] == namespace] == ["flush", "flush"]
    segments = sql(
        f"SELECT table_name, user_id, rows, min_seq, max_seq FROM system.segments WHERE namespace = '{namespace}'"
    )
    assert sorted(segments) == [["a", "", 2, 1, 2], ["b", "ann", 1, 1, 1], ["b", "bob", 1, 1, 1]]


@pytest.mark.parametrize(
    ("query", "code", "words"),
    [
        ("SELECT sum(v) FROM {}", "invalid_value", "function sum does not take arguments of these types"),
        ("SELECT * FROM {} WHERE d = 'hot'", "invalid_value", "'hot'"),
        ("DELETE FROM {} WHERE d = 'hot'", "invalid_value", "'hot'"),
        ("SELECT * FROM system.nope", "table_not_found", "system.nope"),
        ("SELECT 1 FROM {0}, {0}", "invalid_value", "mistakes.t is read twice under one name"),
        ("UPDATE {0} SET v = 'a' FROM {0} WHERE t.id = 1", "invalid_value", "mistakes.t is read twice under one name"),
        ("DELETE FROM {0} WHERE id IN (SELECT id, v FROM {0})", "invalid_value", "several columns"),
    ],
)
def test_a_mistake_in_a_query_is_named_and_no_defect(shared_server: Any, query: str, code: str, words: str) -> None:
    shared_server.sql("CREATE NAMESPACE IF NOT EXISTS mistakes")
    shared_server.sql("CREATE TABLE IF NOT EXISTS mistakes.t (id BIGINT PRIMARY KEY, v TEXT, d DOUBLE)")
    shared_server.sql("INSERT INTO mistakes.t VALUES (1, 'x', 1.5) ON CONFLICT (id) DO NOTHING")
    with pytest.raises(SqlFailed, match=words) as failed:
        shared_server.sql(query.format("mistakes.t"))
    assert failed.value.code == code


@pytest.mark.parametrize(
    ("query", "code", "place", "hint"),
    [
        ("SELECT id,\n  'nothing', nothing\nFROM {t}", "column_not_found", (2, 14), "there are id, name"),
        ("SELECT a.nothing FROM {t} a", "column_not_found", (1, 8), "there are id, name"),
        ("SELECT id FROM {t} WHERE nam = 'x'", "column_not_found", (1, None), "did you mean name?"),
        ("SELECT id FROM {t} a CROSS JOIN {t} b", "column_not_found", (1, 8), "write which one: table.id"),
        ("UPDATE {t} SET name = nothing", "column_not_found", (1, None), None),
        ("DELETE FROM {t} WHERE nothing = 1", "column_not_found", (1, None), None),
        ("SELECT *\nFROM {t}s", "table_not_found", (2, 6), None),
        ("SELECT cuont(id) FROM {t}", "unsupported", (1, 8), "did you mean count?"),
        (
            "UPDATE {t} SET id = u.id FROM {t} u WHERE u.id = t.id RETURNING nothing.id",
            "column_not_found",
            (1, None),
            "RETURNING shows the rows of the changed table alone",
        ),
    ],
)
def test_what_is_not_there_is_named_at_its_place(
    shared_server: ServerProcess, namespace: str, query: str, code: str, place: tuple[int, int | None], hint: str | None
) -> None:
    table = f"{namespace}.t"
    shared_server.sql(f"CREATE TABLE {table} (id INT PRIMARY KEY, name TEXT)")
    with pytest.raises(SqlFailed) as caught:
        shared_server.sql(query.format(t=table))
    problem = caught.value.problem
    assert (problem["code"], problem["line"]) == (code, place[0])
    assert problem["column"] == (place[1] or query.format(t=table).index("noth" if "noth" in query else "nam =") + 1)
    assert hint is None or problem["hint"].startswith(hint)


@pytest.mark.parametrize("names", ["", "postgresql"])
@pytest.mark.parametrize("query", ["SELECT count(*)", "SELECT 1, 1", "WITH x AS (SELECT 1 AS one) SELECT one FROM x"])
@pytest.mark.parametrize("word", ["EXPLAIN", "EXPLAIN ANALYZE"])
def test_a_query_is_explained_whatever_names_are_asked_for(
    shared_server: ServerProcess, word: str, query: str, names: str
) -> None:
    body = {"sql": f"{word} {query}"} | ({"names": names} if names else {})
    request = urllib.request.Request(
        f"{shared_server.http_url}/v1/sql", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
        [result] = json.load(response)["results"]
    assert [column["name"] for column in result["columns"]] == ["plan_type", "plan"]
    assert "Exec" in result["rows"][-1][1]
