"""psql, SQLAlchemy, asyncpg and JDBC find what there is by what they ask themselves."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import asyncpg
import psycopg
import pytest
import sqlalchemy as sa

ASKED: Final = Path(__file__).with_name("asked_by_tools.sql")
TABLES: Final = """
CREATE NAMESPACE seen;
CREATE SHARED TABLE seen.orders (
    id BIGINT PRIMARY KEY, customer VARCHAR(40) NOT NULL DEFAULT 'nobody', amount DECIMAL(10,2), at TIMESTAMP);
CREATE SHARED TABLE seen.parts (plant TEXT, number INT, weight FLOAT, PRIMARY KEY (plant, number));
CREATE STREAM TABLE seen.clicks (page TEXT, raw BLOB);
CREATE MATERIALIZED VIEW seen.large AS SELECT id, customer FROM seen.orders WHERE amount > 100;
COMMENT ON TABLE seen.parts IS 'all of them';
"""
DESCRIBED: Final = r"""
                                       Table "seen.orders"
  Column  |           Type           | Collation | Nullable |              Default
----------+--------------------------+-----------+----------+------------------------------------
 id       | bigint                   |           | not null |
 customer | character varying(40)    |           | not null | 'nobody'
 amount   | numeric(10,2)            |           |          |
 at       | timestamp with time zone |           |          |
 _updated | timestamp with time zone |           |          | generated always as (now()) stored
 _deleted | boolean                  |           |          | generated always as (false) stored
Indexes:
    "orders_pkey" PRIMARY KEY, btree (id)
"""
COMMANDS: Final = (
    *(r"\d", r"\d+ seen.*", r"\dt+ seen.*", r"\dn+", r"\du+", r"\l+", r"\di+ seen.*", r"\ds", r"\df", r"\dx", r"\dT"),
    *(r"\dp seen.*", r"\dC", r"\dD", r"\do", r"\da", r"\db", r"\dc", r"\des", r"\dE", r"\dL", r"\dRp", r"\dy", r"\dd"),
    *(r"\dS pg_class", r"\d information_schema.tables", r"\dconfig *zone*", r"\dAc", r"\dX", r"\dFd", r"\ddp", r"\z"),
)
JAVA: Final = """
import java.sql.*;
public class Asked {
  static int rows(ResultSet r) throws SQLException { int n = 0; while (r.next()) n++; r.close(); return n; }
  public static void main(String[] args) throws Exception {
    try (Connection c = DriverManager.getConnection(args[0], "admin", "")) {
      DatabaseMetaData d = c.getMetaData();
      System.out.println(rows(d.getTables(null, "seen", "%", new String[]{"TABLE", "MATERIALIZED VIEW"}))
        + " " + rows(d.getColumns(null, "seen", "orders", "%")) + " " + rows(d.getPrimaryKeys(null, "seen", "parts"))
        + " " + rows(d.getIndexInfo(null, "seen", "parts", false, false)) + " " + rows(d.getCatalogs())
        + " " + rows(d.getImportedKeys(null, "seen", "parts")) + " " + rows(d.getUDTs(null, null, "%", null))
        + " " + (rows(d.getTypeInfo()) > 50) + " " + (rows(d.getSchemas()) > 2)
        + " " + rows(d.getProcedures(null, "seen", "%"))
        + " " + rows(d.getBestRowIdentifier(null, "seen", "parts", 1, true)) + " " + d.getSQLKeywords().length());
    }
  }
}
"""


@pytest.fixture(scope="module", autouse=True)
def tables(pg_url: str) -> None:
    with psycopg.connect(pg_url, autocommit=True) as connection:
        connection.execute(TABLES)


def psql(pg_url: str, *commands: str) -> str:
    if shutil.which("psql") is None:
        pytest.skip("psql is not installed")
    asked = [word for command in commands for word in ("-c", command)]
    run = subprocess.run(["psql", "-X", pg_url, *asked], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "ERROR" not in run.stderr, run.stderr
    return run.stdout


def test_psql_describes_a_table(pg_url: str) -> None:
    described = [line.rstrip() for line in psql(pg_url, r"\d seen.orders").splitlines()]
    assert described == [*DESCRIBED.strip("\n").splitlines(), ""]


def test_psql_lists_tables_by_what_they_are(pg_url: str) -> None:
    listed = psql(pg_url, r"\pset format unaligned", r"\d seen.*", r"\dtmv+ seen.*", r"\dv system.t*")
    assert 'Materialized view "seen.large"' in listed
    assert '"parts_pkey" PRIMARY KEY, btree (plant, number)' in listed
    assert "seen|clicks|table|admin|permanent|heap||STREAM table: events, kept for a while" in listed
    assert "seen|parts|table|admin|permanent|heap||all of them" in listed
    assert "seen|large|materialized view|admin|permanent|heap||" in listed
    assert "system|tables|view|admin" in listed


def test_psqls_backslash_commands_are_answered(pg_url: str) -> None:
    assert psql(pg_url, *COMMANDS).count("(0 rows)") >= 10  # and none ends in an error


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "pg8000"])
def test_sqlalchemy_reflects(pg_url: str, driver: str) -> None:
    engine = sa.create_engine(pg_url.replace("postgresql:", f"postgresql+{driver}:"))
    inspector = sa.inspect(engine)
    assert sorted(inspector.get_table_names(schema="seen")) == ["clicks", "orders", "parts"]
    assert inspector.get_materialized_view_names(schema="seen") == ["large"]
    assert inspector.get_pk_constraint("parts", schema="seen")["constrained_columns"] == ["plant", "number"]
    assert inspector.get_table_comment("parts", schema="seen") == {"text": "all of them"}
    assert inspector.has_table("orders", schema="seen")
    assert not inspector.has_table("orders", schema="lab")
    assert inspector.get_indexes("parts", schema="seen") == inspector.get_foreign_keys("parts", schema="seen") == []
    metadata = sa.MetaData()
    metadata.reflect(engine, schema="seen", views=True)
    columns = metadata.tables["seen.orders"].columns
    assert [(column.name, str(column.type), column.nullable) for column in columns] == [
        ("id", "BIGINT", False),
        ("customer", "VARCHAR(40)", False),
        ("amount", "NUMERIC(10, 2)", True),
        ("at", "TIMESTAMP", True),
        ("_updated", "TIMESTAMP", True),
        ("_deleted", "BOOLEAN", True),
    ]
    assert columns["_updated"].computed is not None
    engine.dispose()


def test_asyncpg_reads_types_and_arrays_in_binary(pg_url: str) -> None:
    async def asked() -> list[Any]:
        connection = await asyncpg.connect(pg_url)
        try:
            await connection.set_type_codec("json", encoder=str, decoder=str, schema="pg_catalog")
            row = await connection.fetchrow(
                "SELECT indkey, indclass, indisprimary, conkey, conname, relkind, c.oid::regclass::text AS named, "
                "reltuples, ARRAY(SELECT attname FROM pg_attribute WHERE attrelid = c.oid AND attnum = ANY (conkey)), "
                "1.5 FROM pg_index JOIN pg_constraint ON conindid = indexrelid JOIN pg_class c ON c.oid = indrelid "
                "WHERE indrelid = $1::regclass AND conname = ANY ($2)",
                "seen.parts",
                ["parts_pkey", "nothing"],
            )
            await connection.reset()
            return list(row)
        finally:
            await connection.close()

    row = asyncio.run(asked())
    assert row[:7] == [[1, 2], [3126, 1978], True, [1, 2], "parts_pkey", b"r", "seen.parts"]
    assert [*row[7:9], str(row[9])] == [-1.0, ["plant", "number"], "1.5"]


@pytest.mark.parametrize("binary", [False, True], ids=["text", "binary"])
def test_every_type_of_the_catalogue_is_read_in_both_formats(pg_url: str, binary: bool) -> None:
    with psycopg.connect(pg_url, autocommit=True) as connection:
        cursor = connection.cursor(binary=binary)
        cursor.execute(
            "SELECT indrelid, conname, relkind, relhasindex, conkey, reltuples, relnatts, 1.5, NULL, count(*) OVER (), "
            "ARRAY['a', NULL], now() IS NOT NULL, indoption::int2[], ARRAY[indrelid] FROM pg_index JOIN pg_constraint "
            "ON conindid = indexrelid JOIN pg_class c ON c.oid = indrelid WHERE indrelid = %s::regclass",
            ["seen.parts"],
        )
        (row,) = cursor.fetchall()
        assert row[1:7] == ("parts_pkey", "r", True, [1, 2], -1.0, 5)
        assert (str(row[7]), *row[8:10]) == ("1.5", None, 1)
        assert row[10:] == (["a", None], True, [0, 0], [row[0]])
        if not binary:  # psycopg has no reader for vectors
            cursor.execute("SELECT indkey, indclass FROM pg_index WHERE indrelid = %s::regclass", ["seen.parts"])
            assert cursor.fetchall() == [("1 2", "3126 1978")]


def test_jdbc_finds_tables_columns_and_keys(pg_url: str, tmp_path: Path) -> None:
    driver = Path("/usr/share/java/postgresql.jar")
    if shutil.which("java") is None or not driver.exists():
        pytest.skip("no Java with PostgreSQL's JDBC driver is installed")
    source = tmp_path / "Asked.java"
    source.write_text(JAVA)
    url = "jdbc:" + pg_url.replace("admin@", "")
    run = subprocess.run(["java", "-cp", driver, source, url], capture_output=True, text=True)
    assert (run.stdout.split(), run.stderr) == (
        ["4", "6", "2", "2", "1", "0", "0", "true", "true", "0", "2", run.stdout.split()[-1]],
        "",
    )


def test_what_a_view_reads_is_what_its_rule_depends_on(connection: psycopg.Connection) -> None:
    connection.execute("CREATE NAMESPACE hung")
    connection.execute("CREATE SHARED TABLE hung.t (id BIGINT PRIMARY KEY, v TEXT)")
    connection.execute("CREATE VIEW hung.plain AS SELECT id FROM hung.t")
    connection.execute("CREATE VIEW hung.above AS SELECT a.id FROM hung.plain AS a JOIN hung.t AS b ON a.id = b.id")
    connection.execute("CREATE MATERIALIZED VIEW hung.kept AS SELECT id, v FROM hung.t WHERE id > 1")
    asked = dict(re.findall(r"-- (.+)\n((?:(?!-- ).*\n)+)", ASKED.read_text()))["dbt: what depends on what"]
    told = {row[1::2] for row in connection.execute(asked.encode()).fetchall() if row[0] == "hung"}
    assert told == {("plain", "t"), ("above", "plain"), ("above", "t"), ("kept", "t")}
    connection.execute("DROP VIEW hung.above")
    assert {row[1::2] for row in connection.execute(asked.encode()).fetchall() if row[0] == "hung"} == {
        ("plain", "t"),
        ("kept", "t"),
    }
    connection.execute("DROP NAMESPACE hung CASCADE")
