"""The rows of ``pg_catalog`` that tell of one table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from kalam.access.model import PUBLIC, Command, Policy
from kalam_pg.catalogue import oids
from kalam_pg.catalogue.arrays import dumped
from kalam_pg.catalogue.described import MATERIALIZED, TABLE, VIEW, Described, DescribedColumn
from kalam_pg.catalogue.oids import Part
from kalam_pg.catalogue.text_functions import quote_ident

Row = tuple[str, Mapping[str, Any]]
"""The relation that a row belongs to, and its values by columns."""

PG_CLASS: Final = 1259
HEAP, BTREE = 2, 403
_ORDERED_BY: Final = {
    "bool": 424,
    "bytea": 10_006,
    "date": 3122,
    "float4": 10_012,
    "float8": 3123,
    "int2": 1979,
    "int4": 1978,
    "int8": 3124,
    "numeric": 3125,
    "text": 3126,
    "varchar": 3126,
    "timestamptz": 3127,
    "uuid": 10_065,
}
_TEXT_CLASS: Final = 3126
OPERATOR_CLASSES: Final = {
    424: ("bool_ops", 16),
    10_006: ("bytea_ops", 17),
    3122: ("date_ops", 1082),
    10_012: ("float4_ops", 700),
    3123: ("float8_ops", 701),
    1979: ("int2_ops", 21),
    1978: ("int4_ops", 23),
    3124: ("int8_ops", 20),
    3125: ("numeric_ops", 1700),
    3126: ("text_ops", 25),
    3127: ("timestamptz_ops", 1184),
    10_065: ("uuid_ops", 2950),
}
"""PostgreSQL's operator classes for keys, by their OIDs: names and types."""

_RELATION: Final = {
    "reltype": 0,
    "reloftype": 0,
    "relam": 0,
    "reltablespace": 0,
    "relpages": 0,
    "reltuples": -1.0,
    "relallvisible": 0,
    "reltoastrelid": 0,
    "relhasindex": 0,
    "relisshared": 0,
    "relpersistence": "p",
    "relchecks": 0,
    "relhasrules": 0,
    "relhastriggers": 0,
    "relhassubclass": 0,
    "relrowsecurity": 0,
    "relforcerowsecurity": 0,
    "relispopulated": 1,
    "relreplident": "d",
    "relispartition": 0,
    "relrewrite": 0,
    "relfrozenxid": 0,
    "relminmxid": 0,
}
_ATTRIBUTE: Final = {
    "attstattarget": -1,
    "attndims": 0,
    "attcacheoff": -1,
    "attcompression": "",
    "atthasmissing": 0,
    "attidentity": "",
    "attisdropped": 0,
    "attislocal": 1,
    "attinhcount": 0,
}
_COMMANDS: Final = {
    Command.ALL: "*",
    Command.SELECT: "r",
    Command.INSERT: "a",
    Command.UPDATE: "w",
    Command.DELETE: "d",
}
_NO_COUNTS: Final = {
    "seq_scan": 0,
    "seq_tup_read": 0,
    "idx_scan": 0,
    "idx_tup_fetch": 0,
    "n_tup_ins": 0,
    "n_tup_upd": 0,
    "n_tup_del": 0,
    "n_tup_hot_upd": 0,
    "n_live_tup": 0,
    "n_dead_tup": 0,
    "n_mod_since_analyze": 0,
    "n_ins_since_vacuum": 0,
    "vacuum_count": 0,
    "autovacuum_count": 0,
    "analyze_count": 0,
    "autoanalyze_count": 0,
}


def attribute(relation: int, place: int, column: DescribedColumn) -> Mapping[str, Any]:
    """A column's row in ``pg_attribute``."""
    kind = column.type
    return {
        **_ATTRIBUTE,
        "attrelid": relation,
        "attname": column.name,
        "atttypid": kind.oid,
        "attlen": kind.size,
        "attnum": place,
        "atttypmod": column.typmod,
        "attndims": int(kind.is_array),
        "attbyval": int(kind.by_value),
        "attalign": kind.alignment,
        "attstorage": kind.storage,
        "attnotnull": int(not column.nullable),
        "atthasdef": int(column.default is not None),
        "attgenerated": "s" if column.generated else "",
        "attcollation": kind.collation,
    }


def rows(table: Described) -> Iterator[Row]:
    """Every row of ``pg_catalog`` that tells of a table."""
    yield (
        "pg_class",
        {
            **_RELATION,
            "oid": table.oid,
            "relname": table.name,
            "relnamespace": table.schema_oid,
            "relowner": owner_oid(table.owner),
            "relam": 0 if table.kind == VIEW else HEAP,
            "relfilenode": 0 if table.kind == VIEW else table.oid,
            "relhasindex": int(bool(table.key)),
            "relhasrules": int(table.kind == VIEW),
            "relkind": table.kind,
            "relnatts": len(table.columns),
            "relrowsecurity": int(table.row_security),
            "relreplident": "n" if table.kind == VIEW else "d",
            "relpersistence": "t" if table.temporary else "p",
        },
    )
    for place, column in enumerate(table.columns, 1):
        yield "pg_attribute", attribute(table.oid, place, column)
        if column.default is not None:
            number = oids.of_default(table.of, place)
            yield "pg_attrdef", {"oid": number, "adrelid": table.oid, "adnum": place, "adbin": column.default}
    for place, said in enumerate((table.comment, *(column.comment for column in table.columns))):
        if said is not None:
            told = {"objoid": table.oid, "classoid": PG_CLASS, "objsubid": place, "description": said}
            yield "pg_description", told
    if table.key:
        yield from _key_rows(table)
    for policy in table.policies:
        yield from _policy_rows(table, policy)
    yield from _lists(table)


def owner_oid(owner: str) -> int:
    """The OID of a role."""
    return oids.FIRST_ROLE if owner == "admin" else oids.of_name("role", owner)


def key_columns(table: Described) -> list[DescribedColumn]:
    """The columns of its key."""
    return [table.columns[place - 1] for place in table.key]


def key_names(table: Described) -> str:
    """The columns of its key, as SQL."""
    return ", ".join(quote_ident(column.name) for column in key_columns(table))


def index_definition(table: Described, *, qualified: bool = True) -> str:
    """What ``pg_get_indexdef`` gives for the index of its key."""
    called = quote_ident(table.name)
    if qualified:
        called = f"{quote_ident(table.schema)}.{called}"
    return f"CREATE UNIQUE INDEX {quote_ident(table.key_name)} ON {called} USING btree ({key_names(table)})"


def _key_rows(table: Described) -> Iterator[Row]:
    index, columns = table.part(Part.INDEX), key_columns(table)
    yield (
        "pg_class",
        {
            **_RELATION,
            "oid": index,
            "relname": table.key_name,
            "relnamespace": table.schema_oid,
            "relowner": owner_oid(table.owner),
            "relam": BTREE,
            "relfilenode": index,
            "reltuples": 0.0,
            "relkind": "i",
            "relnatts": len(columns),
            "relreplident": "n",
        },
    )
    for place, column in enumerate(columns, 1):
        indexed = DescribedColumn(column.name, column.type, column.typmod)
        yield "pg_attribute", attribute(index, place, indexed)
    yield "pg_index", _index(table, columns)
    yield (
        "pg_constraint",
        {
            "oid": table.part(Part.CONSTRAINT),
            "conname": table.key_name,
            "connamespace": table.schema_oid,
            "contype": "p",
            "condeferrable": 0,
            "condeferred": 0,
            "convalidated": 1,
            "conrelid": table.oid,
            "contypid": 0,
            "conindid": index,
            "conparentid": 0,
            "confrelid": 0,
            "confupdtype": " ",
            "confdeltype": " ",
            "confmatchtype": " ",
            "conislocal": 1,
            "coninhcount": 0,
            "connoinherit": 1,
            "conkey": dumped(table.key),
        },
    )


def _index(table: Described, columns: list[DescribedColumn]) -> Mapping[str, Any]:
    """The row of ``pg_index``; its vectors are JSON arrays."""
    return {
        "indexrelid": table.part(Part.INDEX),
        "indrelid": table.oid,
        "indnatts": len(columns),
        "indnkeyatts": len(columns),
        "indisunique": 1,
        "indnullsnotdistinct": 0,
        "indisprimary": 1,
        "indisexclusion": 0,
        "indimmediate": 1,
        "indisclustered": 0,
        "indisvalid": 1,
        "indcheckxmin": 0,
        "indisready": 1,
        "indislive": 1,
        "indisreplident": 0,
        "indkey": dumped(table.key),
        "indcollation": dumped(column.type.collation for column in columns),
        "indclass": dumped(_ORDERED_BY.get(column.type.name, _TEXT_CLASS) for column in columns),
        "indoption": dumped(0 for _ in columns),
    }


def _policy_rows(table: Described, policy: Policy) -> Iterator[Row]:
    number = oids.of_name("policy", f"{table.of} {policy.name}")
    roles = [0 if name == PUBLIC else owner_oid(name) for name in policy.grantees]
    yield (
        "pg_policy",
        {
            "oid": number,
            "polname": policy.name,
            "polrelid": table.oid,
            "polcmd": _COMMANDS[policy.command],
            "polpermissive": 1,
            "polroles": dumped(roles),
            "polqual": policy.using,
            "polwithcheck": policy.check,
        },
    )
    yield (
        "pg_policies",
        {
            "schemaname": table.schema,
            "tablename": table.name,
            "policyname": policy.name,
            "permissive": "PERMISSIVE",
            "roles": dumped(policy.grantees),
            "cmd": policy.command.value,
            "qual": policy.using,
            "with_check": policy.check,
        },
    )


def _lists(table: Described) -> Iterator[Row]:
    """The rows of the views that list tables by name."""
    named = {"schemaname": table.schema, "relname": table.name, "relid": table.oid}
    own = table.schema in ("pg_catalog", "information_schema")
    if table.kind == VIEW:
        yield (
            "pg_views",
            {
                "schemaname": table.schema,
                "viewname": table.name,
                "viewowner": table.owner,
                "definition": table.definition,
            },
        )
    if table.kind == MATERIALIZED:
        yield (
            "pg_matviews",
            {
                "schemaname": table.schema,
                "matviewname": table.name,
                "matviewowner": table.owner,
                "hasindexes": int(bool(table.key)),
                "ispopulated": 1,
                "definition": table.definition,
            },
        )
    if table.kind == TABLE:
        yield (
            "pg_tables",
            {
                "schemaname": table.schema,
                "tablename": table.name,
                "tableowner": table.owner,
                "hasindexes": int(bool(table.key)),
                "hasrules": 0,
                "hastriggers": 0,
                "rowsecurity": int(table.row_security),
            },
        )
    if table.kind != VIEW:
        yield "pg_stat_all_tables", {**_NO_COUNTS, **named}
        if not own:
            yield "pg_stat_user_tables", {**_NO_COUNTS, **named}
    if table.key:
        index = {"indexrelid": table.part(Part.INDEX), "indexrelname": table.key_name}
        for relation in ("pg_stat_all_indexes", "pg_stat_user_indexes"):
            yield relation, {**named, **index, "idx_scan": 0, "idx_tup_read": 0, "idx_tup_fetch": 0}
        yield (
            "pg_indexes",
            {
                "schemaname": table.schema,
                "tablename": table.name,
                "indexname": table.key_name,
                "indexdef": index_definition(table),
            },
        )
