"""DuckDB attaches Kalam as a PostgreSQL: it scans tables, pushes filters, writes rows."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import duckdb
import duckdb_extensions
import psycopg
import pytest
from server_process import ServerProcess

SEEN = datetime(1852, 11, 27, 1, 2, 3, 500_000, UTC)
CODE = "0189c8a6-1111-7222-8333-444455556666"
TABLES = f"""
CREATE NAMESPACE duck;
CREATE SHARED TABLE duck.people (id BIGINT PRIMARY KEY, name TEXT NOT NULL, born DATE, tall DOUBLE,
  price DECIMAL(10,2), flag BOOLEAN, raw BLOB, seen TIMESTAMP, code UUID);
INSERT INTO duck.people VALUES
  (1, 'Ada', '1815-12-10', 1.65, 12.30, true, X'00ff', '1852-11-27 01:02:03.5Z', '{CODE}'),
  (2, 'Zoë ☃', NULL, NULL, -0.05, NULL, NULL, NULL, NULL);
CREATE SHARED TABLE duck.many (id BIGINT PRIMARY KEY, n INT, half DOUBLE);
INSERT INTO duck.many SELECT value, value % 7, value / 2.0 FROM generate_series(1, 20000)
"""


@pytest.fixture(scope="module")
def attached(pg_server: ServerProcess, pg_url: str) -> Iterator[duckdb.DuckDBPyConnection]:
    pg_server.sql(TABLES)
    duckdb_extensions.import_extension("postgres_scanner")
    address = urlsplit(pg_url)
    with duckdb.connect() as duck:
        duck.execute("LOAD postgres_scanner")
        duck.execute(
            f"ATTACH 'host={address.hostname} port={address.port} user=admin dbname=kalam' AS k (TYPE postgres)"
        )
        duck.execute("SET TimeZone = 'UTC'")
        yield duck


def test_duckdb_scans_filters_and_writes(attached: duckdb.DuckDBPyConnection, connection: psycopg.Connection) -> None:
    def ask(text: str) -> list[tuple[Any, ...]]:
        return attached.execute(text).fetchall()

    assert ask("SELECT table_name FROM duckdb_tables() WHERE schema_name = 'duck' ORDER BY 1") == [
        ("many",),
        ("people",),
    ]
    kinds = "SELECT data_type FROM duckdb_columns() WHERE schema_name = 'duck' AND table_name = 'people' LIMIT 9"
    assert [kind for [kind] in ask(kinds)] == [
        *("BIGINT", "VARCHAR", "DATE", "DOUBLE", "DECIMAL(10,2)", "BOOLEAN", "BLOB", "TIMESTAMP WITH TIME ZONE", "UUID")
    ]
    listed = "id, name, born, tall, price, flag, raw, seen, code"
    ada = (1, "Ada", date(1815, 12, 10), 1.65, Decimal("12.30"), True, b"\0\xff", SEEN, UUID(CODE))
    assert ask(f"SELECT {listed} FROM k.duck.people ORDER BY id") == [
        ada,
        (2, "Zoë ☃", None, None, Decimal("-0.05"), None, None, None, None),
    ]
    assert ask("SELECT name FROM k.duck.people WHERE id = 2 AND name LIKE 'Z%'") == [("Zoë ☃",)]
    several = "SELECT count(*), sum(n), sum(half), max(id) FROM k.duck.many WHERE n <> 3"
    assert ask(several) == connection.execute(several.replace("k.duck", "duck")).fetchall()
    joined = "SELECT n, count(*) FROM k.duck.many JOIN (VALUES (1), (2)) AS v(x) ON n = x GROUP BY n ORDER BY n"
    assert ask(joined) == [(1, 2858), (2, 2857)]
    assert ask("SELECT most FROM postgres_query('k', 'SELECT max(half) AS most FROM duck.many')") == [(10_000.0,)]
    ask("INSERT INTO k.duck.people (id, name, tall) SELECT 10 + i, 'n' || i, i / 4 FROM range(3) AS t(i)")
    ask("CALL postgres_execute('k', 'DELETE FROM duck.people WHERE id = 11')")
    ask("CREATE TABLE k.duck.made AS SELECT id, n FROM k.duck.many WHERE id < 100")
    written = connection.execute("SELECT id, name, tall FROM duck.people WHERE id > 9 ORDER BY id").fetchall()
    assert written == [(10, "n0", 0.0), (12, "n2", 0.5)]
    assert connection.execute("SELECT count(*), max(id), sum(n) FROM duck.made").fetchall() == [(99, 99, 295)]


def test_duckdbs_changes_by_ctid_are_refused_and_told(attached: duckdb.DuckDBPyConnection) -> None:
    with pytest.raises(duckdb.Error, match="no column ctid"):
        attached.execute("DELETE FROM k.duck.people WHERE id = 1")
