"""The rows of the catalogue that are the same for everybody: types, access methods, PostgreSQL's own relations."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from kalam_pg.catalogue import oids, pg_types, relations, table_rows
from kalam_pg.catalogue.described import Described, described_relation
from kalam_pg.catalogue.table_rows import OPERATOR_CLASSES, Row

_ACCESS_METHODS = ((2, "heap", "heap_tableam_handler", "t"), (403, "btree", "bthandler", "i"))
_COLLATIONS = ((100, "default", "d", -1, None), (950, "C", "c", -1, "C"), (951, "POSIX", "c", -1, "POSIX"))
_LANGUAGES = ((12, "internal", 0, 0), (13, "c", 0, 0), (14, "sql", 0, 1))
_PROCEDURE = {
    "pronamespace": oids.PG_CATALOG,
    "proowner": oids.FIRST_ROLE,
    "prolang": 12,
    "procost": 1.0,
    "prorows": 0.0,
    "provariadic": 0,
    "prokind": "f",
    "prosecdef": 0,
    "proleakproof": 0,
    "proisstrict": 1,
    "proretset": 0,
    "provolatile": "i",
    "proparallel": "s",
    "pronargs": 1,
    "pronargdefaults": 0,
    "prorettype": 0,
    "proargtypes": "[]",
}


def rows() -> Iterator[Row]:
    """Those of ``pg_catalog`` but what its relations say of themselves."""
    yield from _types()
    for oid, name, called, kind in _ACCESS_METHODS:
        yield "pg_am", {"oid": oid, "amname": name, "amhandler": called, "amtype": kind}
    for oid, name, provider, encoding, locale in _COLLATIONS:
        yield (
            "pg_collation",
            {
                "oid": oid,
                "collname": name,
                "collnamespace": oids.PG_CATALOG,
                "collowner": oids.FIRST_ROLE,
                "collprovider": provider,
                "collisdeterministic": 1,
                "collencoding": encoding,
                "collcollate": locale,
                "collctype": locale,
            },
        )
    for oid, name in ((1663, "pg_default"), (1664, "pg_global")):
        yield "pg_tablespace", {"oid": oid, "spcname": name, "spcowner": oids.FIRST_ROLE}
    for oid, name, is_procedural, trusted in _LANGUAGES:
        yield (
            "pg_language",
            {
                "oid": oid,
                "lanname": name,
                "lanowner": oids.FIRST_ROLE,
                "lanispl": is_procedural,
                "lanpltrusted": trusted,
                "lanplcallfoid": 0,
                "laninline": 0,
                "lanvalidator": 0,
            },
        )
    for oid, (name, read) in OPERATOR_CLASSES.items():
        yield (
            "pg_opclass",
            {
                "oid": oid,
                "opcmethod": table_rows.BTREE,
                "opcname": name,
                "opcnamespace": oids.PG_CATALOG,
                "opcowner": oids.FIRST_ROLE,
                "opcfamily": 0,
                "opcintype": read,
                "opcdefault": 1,
                "opckeytype": 0,
            },
        )
    yield "pg_timezone_names", {"name": "UTC", "abbrev": "UTC", "utc_offset": "00:00:00", "is_dst": 0}
    for name in relations.SCHEMAS:
        yield "pg_namespace", {"oid": oids.of_name("namespace", name), "nspname": name, "nspowner": oids.FIRST_ROLE}


def _types() -> Iterator[Row]:
    procedures: dict[int, str] = {}
    for kind in pg_types.by_name().values():
        read, write, receive, send, modified, shown = (oid for oid, _ in kind.calls)
        procedures.update((oid, name) for oid, name in kind.calls if oid)
        yield (
            "pg_type",
            {
                "oid": kind.oid,
                "typname": kind.name,
                "typnamespace": oids.PG_CATALOG,
                "typowner": oids.FIRST_ROLE,
                "typlen": kind.size,
                "typbyval": int(kind.by_value),
                "typtype": kind.kind,
                "typcategory": kind.category,
                "typispreferred": int(kind.preferred),
                "typisdefined": 1,
                "typdelim": ",",
                "typrelid": 0,
                "typsubscript": 0,
                "typelem": kind.element,
                "typarray": kind.array,
                "typinput": read,
                "typoutput": write,
                "typreceive": receive,
                "typsend": send,
                "typmodin": modified,
                "typmodout": shown,
                "typanalyze": 0,
                "typalign": kind.alignment,
                "typstorage": kind.storage,
                "typnotnull": 0,
                "typbasetype": 0,
                "typtypmod": -1,
                "typndims": 0,
                "typcollation": kind.collation,
            },
        )
    for oid, name in sorted(procedures.items()):
        yield "pg_proc", {**_PROCEDURE, "oid": oid, "proname": name, "prosrc": name}


@cache
def own_relations() -> tuple[Described, ...]:
    """PostgreSQL's own relations, as tables of the catalogue that they make."""
    return tuple(described_relation(relation) for relation in relations.relations().values())
