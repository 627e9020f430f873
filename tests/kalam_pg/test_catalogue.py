"""What ``pg_catalog`` and ``information_schema`` tell of tables, and what is asked of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
import pytest_asyncio
from catalogue_session import CatalogueSession, catalogue_session, recognised

from kalam.engine import Session
from kalam.errors import (
    Cancelled,
    ColumnNotFound,
    InvalidValue,
    KalamError,
    NotFound,
    SyntaxFault,
    TableNotFound,
    Timeout,
    TooLarge,
    Unsupported,
)
from kalam_pg.catalogue import Catalogue, recognise
from kalam_pg.catalogue.pg_types import by_name
from kalam_pg.catalogue.relations import relations

pytestmark = pytest.mark.asyncio(loop_scope="module")

ENDLESS = "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT max(n), version() FROM t"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def session(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[CatalogueSession]:
    async with catalogue_session(tmp_path_factory.mktemp("catalogue")) as opened:
        yield opened


# What is told of tables.


async def test_every_relation_of_the_list_is_there_with_its_columns(session: CatalogueSession) -> None:
    for relation in relations().values():
        answer = await session.answer(f"SELECT * FROM {relation.schema}.{relation.name} LIMIT 1")
        told = [(field.name, field.oid) for field in answer.fields]
        assert told == [(name, by_name()[kind].oid) for name, kind in relation.columns], relation.name


async def test_tables_are_listed_by_namespace_with_what_they_are(session: CatalogueSession) -> None:
    rows = await session.rows(
        "SELECT n.nspname, c.relname, c.relkind, pg_get_userbyid(c.relowner), obj_description(c.oid, 'pg_class') "
        "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE nspname IN ('lab', 'public') ORDER BY 1, 2"
    )
    assert rows == [
        ("lab", "clicks", "r", "admin", "STREAM table: events, kept for a while"),
        ("lab", "notes", "r", "admin", "USER table: everybody sees rows of their own"),
        ("lab", "notes_pkey", "i", "admin", None),
        ("lab", "readings", "r", "admin", None),
        ("lab", "readings_pkey", "i", "admin", None),
        ("public", "orders", "r", "admin", None),
        ("public", "orders_pkey", "i", "admin", None),
        ("public", "parts", "r", "admin", "all of them"),
        ("public", "parts_pkey", "i", "admin", None),
    ]


async def test_columns_have_the_types_of_the_wire_and_the_servers_own_come_last_and_generated(
    session: CatalogueSession,
) -> None:
    rows = await session.rows(
        "SELECT attname, format_type(atttypid, atttypmod), attnotnull, pg_get_expr(d.adbin, d.adrelid), attgenerated, "
        "col_description(attrelid, attnum) FROM pg_attribute a LEFT JOIN pg_attrdef d ON adrelid = attrelid "
        "AND adnum = attnum WHERE attrelid = 'orders'::regclass AND attnum > 0 ORDER BY attnum"
    )
    assert rows == [
        ("id", "bigint", True, None, "", None),
        ("customer", "character varying(40)", True, "'nobody'", "", None),
        ("amount", "numeric(10,2)", False, None, "", "in euros"),
        ("at", "timestamp with time zone", False, "NOW()", "", None),
        ("doc", "json", False, None, "", None),
        ("flag", "boolean", False, None, "", None),
        ("_updated", "timestamp with time zone", False, "now()", "s", None),
        ("_deleted", "boolean", False, "false", "s", None),
    ]
    streamed = await session.rows(
        "SELECT attname, atttypid::regtype FROM pg_attribute WHERE attrelid = 'lab.clicks'::regclass ORDER BY attnum"
    )
    assert streamed == [("page", "text"), ("n", "smallint"), ("raw", "bytea"), ("d", "date")]


async def test_oids_follow_from_the_tables_ids(session: CatalogueSession) -> None:
    for table in session.caller.tables():
        if table.key:
            row = await session.rows(
                "SELECT c.oid, i.indexrelid, k.oid, k.conname FROM pg_class c JOIN pg_index i ON indrelid = c.oid "
                "JOIN pg_constraint k ON conrelid = c.oid WHERE c.oid = $1::regclass",
                str(table.name),
            )
            first = 16384 + table.table_id * 8
            assert row == [(first, first + 1, first + 2, f"{table.name.table}_pkey")]


async def test_a_key_is_an_index_and_a_constraint(session: CatalogueSession) -> None:
    assert await session.rows(
        "SELECT indkey, indkey[0], indkey[1], indnkeyatts, indisprimary, pg_get_indexdef(indexrelid), "
        "pg_get_indexdef(indexrelid, 2, true), pg_get_constraintdef(k.oid), conkey, conkey[1] "
        "FROM pg_index JOIN pg_constraint k ON conindid = indexrelid WHERE indrelid = 'parts'::regclass"
    ) == [
        (
            *([1, 2], 1, 2, 2, True),
            "CREATE UNIQUE INDEX parts_pkey ON public.parts USING btree (plant, number)",
            *("number", "PRIMARY KEY (plant, number)", [1, 2], 1),
        )
    ]
    assert await session.rows(
        "SELECT constraint_name, column_name, k.ordinal_position FROM information_schema.table_constraints "
        "JOIN information_schema.key_column_usage k USING (constraint_name) WHERE constraint_type = 'PRIMARY KEY' "
        "AND k.table_name = 'parts' ORDER BY 3"
    ) == [("parts_pkey", "plant", 1), ("parts_pkey", "number", 2)]


async def test_the_standards_schema_tells_the_same(session: CatalogueSession) -> None:
    assert await session.rows(
        "SELECT table_schema, table_name, table_type, is_insertable_into FROM information_schema.tables "
        "WHERE table_schema IN ('lab', 'system') AND table_name IN ('clicks', 'readings', 'tables') ORDER BY 1, 2"
    ) == [
        ("lab", "clicks", "BASE TABLE", "YES"),
        ("lab", "readings", "BASE TABLE", "YES"),
        ("system", "tables", "VIEW", "NO"),
    ]
    assert await session.rows(
        "SELECT column_name, data_type, udt_name, is_nullable, column_default, character_maximum_length, "
        "numeric_precision, numeric_scale, is_generated FROM information_schema.columns "
        "WHERE table_name = 'orders' AND ordinal_position NOT IN (1, 4, 5) ORDER BY ordinal_position"
    ) == [
        ("customer", "character varying", "varchar", "NO", "'nobody'", 40, None, None, "NEVER"),
        ("amount", "numeric", "numeric", "YES", None, None, 10, 2, "NEVER"),
        ("flag", "boolean", "bool", "YES", None, None, None, None, "NEVER"),
    ]


async def test_what_is_made_altered_and_dropped_is_seen_at_once(session: CatalogueSession) -> None:
    listed = (
        "SELECT attname, col_description(attrelid, attnum) FROM pg_attribute WHERE attrelid = to_regclass('lab.x') "
        "AND attgenerated = '' ORDER BY attnum"
    )
    caller = session.caller
    await caller.execute("CREATE TABLE lab.x (id INT PRIMARY KEY)")
    assert await session.rows(listed) == [("id", None)]
    await caller.execute("ALTER TABLE lab.x ADD COLUMN v TEXT; COMMENT ON COLUMN lab.x.v IS 'new'")
    assert await session.rows(listed) == [("id", None), ("v", "new")]
    await caller.execute("DROP TABLE lab.x")
    assert await session.rows(listed) == []
    assert await session.value("SELECT count(*) FROM information_schema.columns WHERE table_name = 'x'") == 0


# What is asked.


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("current_schema()", "public"),
        ("current_schemas(true)", ["pg_catalog", "public"]),
        ("current_database()", "kalam"),
        ("current_user", "admin"),
        ("pg_backend_pid()", 7),
        ("current_setting('server_version_num')::int / 10000", 15),
        ("current_setting('no.such', true)", None),
        ("split_part(version(), ' ', 2)", "15.0"),
        ("'orders'::regclass", "orders"),
        ("'lab.readings'::regclass", "lab.readings"),
        ("'pg_class'::regclass::oid", 1259),
        ("1259::regclass::text", "pg_class"),
        ("to_regclass('nothing')", None),
        ("'character varying'::regtype::oid", 1043),
        ("'text[]'::regtype", "text[]"),
        ("23::regtype", "integer"),
        ("'textin'::regproc", "textin"),
        ("2200::regnamespace", "public"),
        ("format_type(1700, 655366)", "numeric(10,2)"),
        ("format_type(1184, 3)", "timestamp(3) with time zone"),
        ("format_type(NULL, 1)", None),
        ("quote_ident('Odd name') || quote_ident('select') || quote_ident('plain')", '"Odd name""select"plain'),
        ("quote_literal('it''s')", "'it''s'"),
        ("parse_ident('a.\"B c\"')", ["a", "B c"]),
        ("format('%I.%I=%L%%', current_schema(), 'A b', NULL)", 'public."A b"=NULL%'),
        ("pg_size_pretty(123456789::bigint)", "118 MB"),
        ("pg_encoding_to_char(6)", "UTF8"),
        ("has_table_privilege('orders', 'SELECT, INSERT')", True),
        ("has_table_privilege('pg_class', 'INSERT')", False),
        ("has_schema_privilege('lab', 'CREATE')", True),
        ("pg_relation_is_updatable('orders'::regclass, false)", 28),
        ("pg_column_is_updatable('orders'::regclass, 7::smallint, false)", False),
        ("pg_table_is_visible('orders'::regclass) AND NOT pg_table_is_visible('lab.notes'::regclass)", True),
        ("regexp_replace(version(), '^(\\w+) .*$', '\\1!')", "PostgreSQL!"),
        (
            "version() ~* 'KALAM' AND version() !~ 'kalam' AND version() LIKE 'Postgre%' AND version() ILIKE '%(K%'",
            True,
        ),
        ("current_schema() = ANY (ARRAY['lab', 'public'])", True),
        ("current_schema() <> ALL ('{lab,system}'::text[])", True),
        ("array_to_string(array_append(current_schemas(false), 'x'), '|')", "public|x"),
        ("(current_schemas(true))[1]", "pg_catalog"),
        ("array_upper(current_schemas(true), 1)", 2),
        ("CASE pg_is_in_recovery() WHEN true THEN 'standby' ELSE 'primary' END", "primary"),
        ("(pg_is_in_recovery())::text", "false"),
        ("coalesce(NULL, current_schema(), 'x')", "public"),
        ("nullif(current_schema(), 'public')", None),
        ("pg_advisory_unlock_all()", None),
        ("ARRAY[1.5, NULL]", [Decimal("1.5"), None]),
        ("ARRAY[pg_is_in_recovery()]", [False]),
        ("ARRAY['orders'::regclass]", ["orders"]),
        ("ARRAY[1::float8]", [1.0]),
        ("EXISTS (SELECT 1 FROM pg_class WHERE relname = 'orders')", True),
        ("ARRAY(SELECT attname FROM pg_attribute WHERE attrelid = 'parts'::regclass AND attnum < 3 ORDER BY 1)", None),
    ],
)
async def test_functions_give_what_they_give_in_postgresql(
    session: CatalogueSession, expression: str, value: object
) -> None:
    found = await session.value(f"SELECT {expression} FROM current_database()")
    assert found == (["number", "plant"] if expression.startswith("ARRAY(") else value)


@pytest.mark.parametrize(
    ("query", "rows"),
    [
        (
            "SELECT unnest(conkey), generate_subscripts(conkey, 1) FROM pg_constraint WHERE conname = 'parts_pkey'",
            [(1, 1), (2, 2)],
        ),
        (
            "SELECT (information_schema._pg_expandarray(indkey)).x FROM pg_index WHERE indrelid = 'parts'::regclass",
            [(1,), (2,)],
        ),
        (
            (
                "SELECT a.attname, k.at FROM pg_index i CROSS JOIN unnest(i.indkey) WITH ORDINALITY AS k(number, at) "
                "JOIN pg_attribute a ON attrelid = indrelid AND attnum = k.number WHERE indrelid = 'parts'::regclass "
                "ORDER BY 2 DESC"
            ),
            [("number", 2), ("plant", 1)],
        ),
        (
            (
                "SELECT string_agg(attname, '+' ORDER BY attnum DESC) FILTER (WHERE attnum < 4), array_agg(attnum), "
                "count(DISTINCT attgenerated), bool_and(attnotnull), count(*) FROM pg_attribute "
                "WHERE attrelid = 'parts'::regclass"
            ),
            [("weight+number+plant", [1, 2, 3, 4, 5], 2, False, 5)],
        ),
        (
            (
                "WITH t(name, kind) AS (SELECT relname, relkind FROM pg_class WHERE relname IN ('orders', 'parts')) "
                "SELECT kind, max(name) FROM t GROUP BY kind UNION ALL SELECT 'x', NULL ORDER BY 1"
            ),
            [("r", "parts"), ("x", None)],
        ),
        (
            (
                "SELECT s.v, n.nspname FROM (VALUES (1, 'lab'), (2, 'none')) AS s(v, name) "
                "LEFT JOIN pg_namespace n ON n.nspname = s.name ORDER BY s.v"
            ),
            [(1, "lab"), (2, None)],
        ),
        (
            (
                "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'lab'::regnamespace "
                "ORDER BY relname OFFSET 1 LIMIT 1"
            ),
            [("notes",)],
        ),
        (
            (
                "SELECT DISTINCT relkind, row_number() OVER (PARTITION BY relkind ORDER BY relname) FROM pg_class "
                "WHERE relname IN ('orders', 'parts') ORDER BY 2"
            ),
            [("r", 1), ("r", 2)],
        ),
        (
            (
                "SELECT c.relname, (SELECT count(*) FROM pg_attribute a WHERE a.attrelid = c.oid AND attnum > 0) AS n "
                "FROM pg_class c WHERE c.relname = 'parts' AND c.relhasindex = 't' AND (c.relkind, c.relpersistence) "
                "IN (('r', 'p'), ('v', 'p'))"
            ),
            [("parts", 5)],
        ),
        (
            "SELECT name, setting, unit FROM pg_settings WHERE name IN ('statement_timeout', 'TimeZone') ORDER BY name",
            [("TimeZone", "UTC", None), ("statement_timeout", "0", "ms")],
        ),
        (
            "SELECT usename, state FROM pg_stat_activity WHERE pid = pg_backend_pid()",
            [("admin", "active")],
        ),
        ("SELECT rolname, rolsuper FROM pg_roles", [("admin", True)]),
        (
            "SELECT privilege_type FROM information_schema.role_table_grants WHERE table_name = 'parts' ORDER BY 1",
            [("DELETE",), ("INSERT",), ("SELECT",), ("UPDATE",)],
        ),
    ],
    ids=lambda value: value[:60] if isinstance(value, str) else "",
)
async def test_queries_are_answered_as_in_postgresql(
    session: CatalogueSession, query: str, rows: list[tuple[Any, ...]]
) -> None:
    assert await session.rows(query) == rows


async def test_times_are_times(session: CatalogueSession) -> None:
    answer = await session.answer("SELECT now(), pg_postmaster_start_time()")
    assert [field.oid for field in answer.fields] == [1184, 1184]
    assert all(isinstance(value, datetime) and value.tzinfo is not None for value in answer.rows[0])


@pytest.mark.parametrize(
    ("expression", "name", "oid"),
    [
        ("relname", "relname", 19),
        ("relname::text", "relname", 25),
        ("'x'::regclass::oid", "oid", 26),
        ("count(*)", "count", 20),
        ("relkind", "relkind", 18),
        ("relhasindex", "relhasindex", 16),
        ("oid::regclass", "oid", 2205),
        ("relacl", "relacl", 1034),
        ("1", "?column?", 23),
        ("NULL", "?column?", 25),
        ("'x'", "?column?", 25),
        ("relname = 'x'", "?column?", 16),
        ("CASE WHEN true THEN 1 END", "case", 23),
        ("CASE WHEN true THEN 1 ELSE relnatts END", "relnatts", 23),
        ("coalesce(relname, 'x')", "coalesce", 19),
        ("array_agg(relname)", "array_agg", 1003),
        ("ARRAY['a']", "array", 1009),
        ("(SELECT nspname AS n FROM pg_namespace LIMIT 1)", "n", 19),
        ('relname AS "Name"', "Name", 19),
        ("relname AS select", "select", 19),
        ("reltuples", "reltuples", 700),
    ],
)
async def test_columns_have_postgresqls_names_and_types(expression: str, name: str, oid: int) -> None:
    (field,) = Catalogue(query_time_s=1, rows_max=1).describe(recognised(f"SELECT {expression} FROM pg_class")).fields
    assert (field.name, field.oid) == (name, oid)


@pytest.mark.parametrize(
    ("query", "declared", "parameters"),
    [
        ("SELECT 1 FROM pg_class WHERE oid = $1", (), (26,)),
        ("SELECT 1 FROM pg_class WHERE relname = $1 AND relkind = ANY ($2)", (), (19, 1002)),
        ("SELECT 1 FROM pg_type WHERE oid = ANY ($1::oid[])", (), (1028,)),
        ("SELECT 1 FROM pg_class WHERE relname LIKE $1 LIMIT $2", (), (25, 20)),
        ("SELECT 1 FROM pg_class WHERE oid = $1::regclass", (), (2205,)),
        ("SELECT 1 FROM pg_class WHERE oid IN ($1, $2) AND relhasindex = $3", (), (26, 26, 16)),
        ("SELECT $2, current_schema()", (), (25, 25)),
        ("SELECT 1 FROM pg_class WHERE relname = $1", (1043,), (1043,)),
        ("SELECT quote_literal($1::int8::text)", (), (20,)),
    ],
)
async def test_parameters_have_the_types_of_what_they_stand_beside(
    query: str, declared: tuple[int, ...], parameters: tuple[int, ...]
) -> None:
    described = Catalogue(query_time_s=1, rows_max=1).describe(recognised(query), declared)
    assert described.parameters == parameters


async def test_parameters_are_values_of_those_types(session: CatalogueSession) -> None:
    query = "SELECT relname FROM pg_class WHERE oid = ANY ($1::oid[]) AND relname LIKE $2 AND relhasindex = $3 LIMIT $4"
    oids = [row[0] for row in await session.rows("SELECT oid FROM pg_class WHERE relkind = 'r' AND relhasindex")]
    assert await session.rows(query, oids, "ord%", True, 5) == [("orders",)]
    assert await session.rows("SELECT 1 FROM pg_class WHERE oid = $1", "1259") == [(1,)]
    with pytest.raises(InvalidValue, match="2 parameters"):
        await session.rows("SELECT $1, $2 FROM pg_class", 1)


@pytest.mark.parametrize(
    ("query", "error", "said"),
    [
        ("SELECT 'nothing'::regclass", TableNotFound, 'relation "nothing" does not exist'),
        ("SELECT * FROM pg_catalog.pg_nothing", TableNotFound, "pg_catalog.pg_nothing"),
        ("SELECT nothing FROM pg_class", ColumnNotFound, 'column "nothing" does not exist'),
        ("SELECT x.relname FROM pg_class c", TableNotFound, "missing FROM-clause entry"),
        ("SELECT oid FROM pg_class, pg_type", InvalidValue, "ambiguous"),
        ("SELECT 'x'::regtype", NotFound, 'type "x" does not exist'),
        ("SELECT current_setting('nothing')", NotFound, "nothing"),
        ("SELECT 1 FROM pg_class WHERE oid = 'x'", InvalidValue, 'invalid input syntax for type oid: "x"'),
        ("SELECT 1 FROM pg_class WHERE relhasindex = 'perhaps'", InvalidValue, "boolean"),
        ("SELECT '{1'::int[], version()", InvalidValue, "malformed array literal"),
        ("SELECT version() ~ '('", InvalidValue, "regular expression"),
        ("SELECT no_such(oid) FROM pg_class", Unsupported, "no_such"),
        ("SELECT pg_sleep(9)", Unsupported, "pg_sleep"),
        ("SELECT pg_advisory_lock(1)", Unsupported, "pg_advisory_lock"),
        ("SELECT DISTINCT ON (relkind) relname FROM pg_class", Unsupported, "DISTINCT ON"),
        ("SELECT * FROM pg_class FOR UPDATE", Unsupported, "LOCKS"),
        ("SELECT relname FROM pg_class UNION SELECT 1, 2", InvalidValue, "same number of columns"),
        ("SELECT generate_series(1, 1000000), version()", TooLarge, "generate_series"),
        ("SELECT repeat(version(), 10000000)", TooLarge, "characters"),
        ("SELECT regexp_replace(repeat('a', 9999), 'a', repeat(version(), 9999), 'g')", TooLarge, "characters"),
        ("SELECT array_to_string(array_agg(1), repeat('a', 999999)) FROM pg_type", TooLarge, "characters"),
        ("SELECT string_agg(repeat('a', 99999), '') FROM pg_type", TooLarge, "characters"),
        ("SELECT format(repeat('%1$s', 9999), repeat('a', 9999)), version()", TooLarge, "characters"),
        ("SELECT repeat('a', 999999) FROM pg_attribute", TooLarge, "bytes"),
        ("SELECT 1 FROM pg_class WHERE oid IN ()", SyntaxFault, "IN"),
        ("SELECT left(version(), 'x'::regclass)", TableNotFound, "x"),
        ("SELECT split_part(version(), 1, 'x')", Unsupported, "arguments"),
    ],
)
async def test_what_is_wrong_is_told(session: CatalogueSession, query: str, error: type[KalamError], said: str) -> None:
    with pytest.raises(error) as told:
        await session.rows(query)
    assert said in told.value.detail
    assert await session.value("SELECT current_schema()") == "public"


@pytest.mark.parametrize(
    "query",
    [
        "SELECT 1 FROM pg_class",
        "select 1 from PG_CATALOG.Pg_Class",
        "/* a tool */ SELECT 1 FROM information_schema.tables",
        "WITH t AS (SELECT 1 FROM pg_type) SELECT * FROM t",
        "SELECT current_user",
        "SELECT user",
        "SELECT VERSION()",
        "SELECT pg_catalog.set_config('search_path', '', false)",
        "SELECT $1::regclass",
        "TABLE pg_class",
    ],
)
async def test_what_names_the_catalogue_is_about_it(query: str) -> None:
    assert recognise(query) is not None


@pytest.mark.parametrize(
    "query",
    [
        "SELECT 1",
        "SELECT 'pg_class'",
        "SELECT version FROM lab.t",
        "SELECT current_user FROM lab.t",
        "SELECT pg_id FROM lab.pg_orders",
        "SELECT * FROM lab.version",
        "WITH pg_class AS (SELECT 1) SELECT * FROM pg_class",
        "INSERT INTO lab.t SELECT 1 FROM pg_class",
        "SHOW search_path",
        "SELECT FROM WHERE pg_class",
        "SELECT now(), array_length(ARRAY[1], 1), format('%s', 'pg_class')",
    ],
)
async def test_what_does_not_is_the_engines(query: str) -> None:
    assert recognise(query) is None


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM pg_class c JOIN lab.readings r ON true",
        "SELECT sensor, version() FROM lab.readings",
        "SELECT 'lab.readings'::regclass, sensor FROM lab.readings",
        "SELECT * FROM lab.readings WHERE sensor IN (SELECT relname FROM pg_class)",
    ],
)
async def test_the_catalogue_beside_tables_is_refused(query: str) -> None:
    with pytest.raises(Unsupported, match="cannot be joined to tables"):
        recognise(query)


# Bounds.


async def test_a_query_ends_at_its_time_and_leaves_the_next_alone(session: CatalogueSession) -> None:
    catalogue = Catalogue(query_time_s=0.05, rows_max=10)
    with pytest.raises(Timeout):
        await catalogue.answer(recognised(ENDLESS), session)
    with pytest.raises(TooLarge, match="more than 10 rows"):
        await catalogue.answer(recognised("SELECT 1 FROM pg_type"), session)
    assert (await catalogue.answer(recognised("SELECT current_schema()"), session)).rows == [("public",)]
    await catalogue.aclose()


async def test_more_users_than_snapshots_are_kept_are_answered_at_the_same_time(session: CatalogueSession) -> None:
    catalogue = Catalogue(query_time_s=60, rows_max=10)
    sessions = [CatalogueSession(session.running, catalogue, f"user{number}") for number in range(20)]
    asked = [each.value("SELECT current_user || count(*) FROM pg_tables WHERE schemaname = 'lab'") for each in sessions]
    assert await asyncio.gather(*asked, *(each.value("SELECT user") for each in sessions)) == [
        *(f"user{number}3" for number in range(20)),
        *(f"user{number}" for number in range(20)),
    ]
    await catalogue.aclose()


async def test_a_query_is_listed_and_cancelled_like_any_other(session: CatalogueSession) -> None:
    session.request_id = "mine"
    try:
        asked = asyncio.create_task(session.rows(ENDLESS))
        while ENDLESS not in await listed(session):
            assert not asked.done()
            await asyncio.sleep(0)  # the task has to begin
        session.caller.cancel("mine")
        with pytest.raises(Cancelled):
            await asked
    finally:
        session.request_id = None
    assert await session.value("SELECT current_schema()") == "public"


async def listed(session: CatalogueSession) -> list[str]:
    caller = session.running.engine.caller(Session(), "test")
    (result,) = await caller.execute("SHOW QUERIES")
    assert result.data is not None
    return [str(text) for text in result.data.column("sql").to_pylist()]


async def test_a_deep_text_is_an_error_and_no_end(session: CatalogueSession) -> None:
    for text in ("(" * 500 + "1" + ")" * 500, "NOT " * 2_000 + "true", "1" + "+1" * 2_000):
        found = recognise(f"SELECT {text} FROM pg_class")
        if found is not None:
            with pytest.raises((SyntaxFault, Unsupported)):
                await session.rows(found.text)


async def test_a_long_text_is_answered_and_one_beyond_all_tools_is_the_engines(session: CatalogueSession) -> None:
    long = f"SELECT count(*) FROM pg_class WHERE relname IN ({', '.join(f'{name!r}' for name in range(4_000))}, $1)"
    assert len(long) > 20_000
    assert await session.value(long.replace("(0,", "('orders', 0,"), "parts") == 2
    assert recognise(f"SELECT '{'x' * 200_000}' FROM pg_class") is None


async def test_a_setting_is_set_by_its_function(session: CatalogueSession) -> None:
    assert await session.value("SELECT set_config('search_path', 'lab', false)") == "lab"
    try:
        assert await session.value("SELECT current_schema() || current_setting('search_path')") == "lablab"
        assert await session.value("SELECT 'notes'::regclass") == "notes"
    finally:
        session.settings.reset_all()
