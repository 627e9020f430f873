"""What tools ask is answered, and as a real PostgreSQL answers it, where one is installed.

``asked_by_tools.sql`` has queries of the forms that each tool sends. The PostgreSQL that judges has the same tables.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio
from catalogue_session import CatalogueSession, catalogue_session

pytestmark = pytest.mark.asyncio(loop_scope="module")

ASKED: Final = dict(
    re.findall(r"-- (.+)\n((?:(?!-- ).*\n)+)", Path(__file__).with_name("asked_by_tools.sql").read_text())
)
WITHOUT_ROWS: Final = frozenset(
    {
        *("npgsql: composite types", "npgsql: enums", "dbt: what depends on what", "metabase: enums"),
        *("superset: views of a schema", "superset: unique and foreign keys"),
    }
)
TOLD_OTHERWISE: Final = {
    "jdbc: schemas": "PostgreSQL has pg_toast, Kalam has system",
    "jdbc: indexes": "pages",
    "npgsql: types": "domains and ranges",
    "dbt: schemas": "as above",
    "dbeaver: databases": "the OID",
    "dbeaver: a schema": "the OID",
    "dbeaver: relations of a schema": "row types, TOAST, transactions",
    "dbeaver: columns": "PostgreSQL lists ctid and the like",
    "dbeaver: constraints": "the OID",
    "dbeaver: indexes": "sizes",
    "dbeaver: a setting": "what is said of it",
    "dbeaver: keywords": "only reserved words are listed",
    "dbeaver: a type": "the comment",
    "metabase: privileges": "system.* are views",
    "metabase: tables": "the comment",
    "postgres.js: arrays": "fewer types",
    "duckdb: what kind of server it is": "the version",
    "django: columns": "as dbeaver's",
    "django: tables": "system.* are views, and information_schema has fewer",
    "pgcli: where one is": "inet_server_port",
}
"""Where rows differ, and why; names and types of columns do not."""
TABLES: Final = """
CREATE SCHEMA lab;
CREATE TABLE lab.readings (sensor text NOT NULL, celsius double precision, _row_id bigint
  GENERATED ALWAYS AS (1) STORED PRIMARY KEY, {own});
CREATE TABLE public.orders (id bigint PRIMARY KEY, customer varchar(40) NOT NULL DEFAULT 'nobody',
  amount numeric(10,2), at timestamptz DEFAULT now(), doc json, flag boolean, {own});
CREATE TABLE public.parts (plant text, number int, weight real, {own}, PRIMARY KEY (plant, number));
CREATE TABLE lab.notes (id uuid PRIMARY KEY, body text, {own});
CREATE TABLE lab.clicks (page text, n smallint, raw bytea, d date);
COMMENT ON TABLE public.parts IS 'all of them';
COMMENT ON COLUMN public.orders.amount IS 'in euros';
""".replace(
    "{own}",
    "_updated timestamptz GENERATED ALWAYS AS ('epoch'::timestamptz) STORED, "
    "_deleted boolean GENERATED ALWAYS AS (false) STORED",
)
"""What ``catalogue_session`` makes, with what Kalam adds to it."""
OWN_COLUMNS: Final = frozenset({"_row_id", "_updated", "_deleted"})
"""What Kalam's information_schema.columns leaves out, for nobody may write them."""
DEFAULTS: Final = frozenset(
    {
        "now()",
        "NOW()",
        "'nobody'",
        "'nobody'::character varying",
        "false",
        "1",
        "'1970-01-01 00:00:00+00'::timestamp with time zone",
    }
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def session(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[CatalogueSession]:
    async with catalogue_session(tmp_path_factory.mktemp("tools")) as opened:
        yield opened


@pytest.fixture(scope="module")
def judge() -> Iterator[Any]:
    """A connection to a PostgreSQL 15 of its own, in a folder that another user can reach."""
    psycopg = pytest.importorskip("psycopg")
    programs = next(
        (folder for folder in (Path("/usr/lib/postgresql/15/bin"), *which("initdb")) if (folder / "initdb").exists()),
        None,
    )
    if programs is None or "15" not in version(programs):
        pytest.skip("no PostgreSQL 15 is installed")
    folder = Path(tempfile.mkdtemp())
    who: dict[str, Any] = {}
    if os.geteuid() == 0:  # which PostgreSQL does not run as
        try:
            nobody = pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        who = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    data = folder / "data"

    def run(*command: str | Path) -> None:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder, **who)

    run(programs / "initdb", "-D", data, "-U", "admin", "-A", "trust", "-N", "--locale=C", "-E", "UTF8")
    options = f"-k {folder} -c listen_addresses= -c fsync=off -c shared_buffers=16MB -c timezone=UTC"
    run(programs / "pg_ctl", "-D", data, "-o", options, "-l", folder / "log", "-w", "start")
    try:
        with psycopg.connect(f"host={folder} user=admin dbname=postgres", autocommit=True) as first:
            first.execute("CREATE DATABASE kalam TEMPLATE template0")
        with psycopg.connect(f"host={folder} user=admin dbname=kalam", autocommit=True) as connection:
            connection.execute(TABLES)
            yield connection
    finally:
        run(programs / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
        shutil.rmtree(folder)


def which(program: str) -> list[Path]:
    found = shutil.which(program)
    return [Path(found).resolve().parent] if found else []


def version(programs: Path) -> str:
    return subprocess.run([programs / "initdb", "--version"], capture_output=True, text=True).stdout


@pytest.mark.parametrize("name", ASKED)
async def test_what_a_tool_asks_is_answered(session: CatalogueSession, name: str) -> None:
    answer = await session.answer(ASKED[name].strip().rstrip(";"))
    assert bool(answer.rows) is (name not in WITHOUT_ROWS)


@pytest.mark.parametrize("name", ASKED)
async def test_a_tool_hears_what_postgresql_tells(session: CatalogueSession, judge: Any, name: str) -> None:
    query = ASKED[name].strip().rstrip(";")
    cursor = judge.execute(query)
    answer = await session.answer(query)
    assert [(field.name, field.oid) for field in answer.fields] == [
        (column.name, column.type_code) for column in cursor.description
    ]
    if name not in TOLD_OTHERWISE:
        oids = [field.oid for field in answer.fields]
        lists_columns = "information_schema.columns" in query.lower().replace('"', "")
        told = [row for row in cursor if not lists_columns or OWN_COLUMNS.isdisjoint(names(row))]
        assert comparable(answer.rows, oids) == comparable(told, oids)


def names(row: tuple[Any, ...]) -> set[str]:
    return {value for value in row if isinstance(value, str)}


def comparable(rows: list[tuple[Any, ...]], oids: list[int]) -> list[str]:
    """Rows in one order, without what PostgreSQL writes in other words: defaults, and OIDs of its own making."""
    return sorted(repr([shown(value, oid) for value, oid in zip(row, oids, strict=True)]) for row in rows)


def shown(value: Any, oid: int) -> Any:
    if oid in (22, 30) and isinstance(value, list):
        return " ".join(map(str, value))
    if oid == 26 and isinstance(value, int) and value >= 16_384:
        return "an oid"
    if isinstance(value, bytes):
        return value.decode()
    return "a default" if isinstance(value, str) and value in DEFAULTS else value
