"""The types that ``pg_type`` lists, by name and by OID, and how PostgreSQL writes them.

They are PostgreSQL 15's own, in ``types.txt``: more than a table of Kalam's may have, because the catalogue's own
columns have them and drivers look up what they know.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import Final

import msgspec

ARRAY: Final = "_"
"""What the name of an array's type begins with, before its elements'."""

_SPELLED: Final = {
    "bool": "boolean",
    "int2": "smallint",
    "int4": "integer",
    "int8": "bigint",
    "float4": "real",
    "float8": "double precision",
    "bpchar": "character",
    "varchar": "character varying",
    "varbit": "bit varying",
    "char": '"char"',
    "any": '"any"',
    "time": "time without time zone",
    "timetz": "time with time zone",
    "timestamp": "timestamp without time zone",
    "timestamptz": "timestamp with time zone",
}
_ALSO: Final = {
    **{spelled: name for name, spelled in _SPELLED.items() if not spelled.startswith('"')},
    "int": "int4",
    "decimal": "numeric",
    "float": "float8",
    "double": "float8",
    "string": "text",
    "datetime": "timestamp",
    # The domains of information_schema are what they are over.
    "sql_identifier": "name",
    "character_data": "varchar",
    "cardinal_number": "int4",
    "yes_or_no": "varchar",
    "time_stamp": "timestamptz",
}
_WRITTEN: Final = re.compile(
    r"""^(?P<name>.+?)\s*(?:\((?P<mods>[\d\s,]+)\))?(?P<rest>[^()\[\]]*?)\s*(?P<array>(?:\[\d*\])*)$"""
)
HEADER_BYTES: Final = 4

INTEGERS: Final = frozenset({"int2", "int4", "int8", "oid", "xid", "xid8", "cid"})
NAMED: Final = frozenset({"regclass", "regtype", "regproc", "regprocedure", "regnamespace", "regrole"})
"""The types whose values are OIDs that are shown as names."""
FLOATS: Final = frozenset({"float4", "float8", "numeric"})
TEXTS: Final = frozenset({"text", "name", "varchar", "bpchar", "char", "cstring", "unknown", "pg_node_tree"})
VECTORS: Final = {"int2vector": "int2", "oidvector": "oid"}
"""Arrays that count from 0 and are written without braces."""


class PgType(msgspec.Struct, frozen=True):
    """A row of ``pg_type``; ``calls`` are the functions that read and write its values, as (oid, name)."""

    oid: int
    name: str
    size: int
    by_value: bool
    kind: str
    category: str
    preferred: bool
    element: int
    array: int
    collation: int
    alignment: str
    storage: str
    calls: tuple[tuple[int, str], ...]

    @property
    def is_array(self) -> bool:
        """Whether its values are arrays with braces."""
        return self.name.startswith(ARRAY)


def _read(line: str) -> PgType:
    oid, name, size, by_value, kind, category, preferred, *rest = line.split()
    element, array, collation, alignment, storage, *calls = rest
    return PgType(
        int(oid),
        name,
        int(size),
        by_value == "t",
        kind,
        category,
        preferred == "t",
        int(element),
        int(array),
        int(collation),
        alignment,
        storage,
        tuple(_call(call) for call in calls),
    )


def _call(text: str) -> tuple[int, str]:
    oid, _, name = text.partition(":")
    return (int(oid), name) if name else (0, "-")


@cache
def by_name() -> dict[str, PgType]:
    """The types by their names in ``pg_type``."""
    lines = files(__package__).joinpath("types.txt").read_text().splitlines()
    return {known.name: known for known in (_read(line) for line in lines if not line.startswith("#"))}


@cache
def by_oid() -> dict[int, PgType]:
    """The types by their OIDs."""
    return {known.oid: known for known in by_name().values()}


def oid(name: str) -> int:
    """The OID of a type; text's for what has none of its own."""
    known = by_name().get(name)
    return known.oid if known is not None and name != "unknown" else by_name()["text"].oid


def element(name: str) -> str:
    """The type of an array's elements; text's of what is no array."""
    if name in VECTORS:
        return VECTORS[name]
    return name.removeprefix(ARRAY) if name.startswith(ARRAY) else "text"


def array_of(name: str) -> str:
    """The type of arrays of a type."""
    return ARRAY + name if ARRAY + name in by_name() and name != "unknown" else "_text"


def is_array(name: str) -> bool:
    """Whether values of a type are kept as JSON arrays."""
    return name.startswith(ARRAY) or name in VECTORS


def parsed(written: str) -> tuple[str, int] | None:
    """The name and modifier of a type as it is written in SQL; None for one that is not known."""
    found = _WRITTEN.match(written.strip())
    if found is None:
        return None
    name = " ".join(f"{found['name']}{found['rest']}".split())
    quoted = name.startswith('"') or '."' in name
    name = re.sub(r"^(?:\"?(?:pg_catalog|information_schema)\"?\.)", "", name.lower() if not quoted else name)
    name = name.strip('"') if name.startswith('"') else _ALSO.get(name, "bpchar" if name == "char" else name)
    modifier = _modifier(name, [int(number) for number in (found["mods"] or "").split(",") if number.strip()])
    if found["array"]:
        name, modifier = ARRAY + name.removeprefix(ARRAY), -1
    return (name, modifier) if name in by_name() else None


def _modifier(name: str, numbers: list[int]) -> int:
    if not numbers:
        return -1
    if name == "numeric":
        return ((numbers[0] << 16) | (numbers[1] if len(numbers) > 1 else 0)) + HEADER_BYTES
    return numbers[0] + HEADER_BYTES if name in ("varchar", "bpchar") else numbers[0]


def formatted(number: int | None, modifier: int | None) -> str | None:
    """What ``format_type`` gives."""
    if number is None:
        return None
    if number == 0:
        return "-"
    known = by_oid().get(number)
    if known is None:
        return "???"
    if known.is_array:
        return f"{formatted(known.element, modifier)}[]"
    if known.name == "bpchar" and modifier == -1:
        return "bpchar"
    spelled = _SPELLED.get(known.name, known.name)
    if modifier is None or modifier < 0:
        return spelled
    if known.name == "numeric":
        modifier -= HEADER_BYTES
        return f"{spelled}({modifier >> 16},{modifier & 0xFFFF})"
    if known.name in ("varchar", "bpchar"):
        return f"{spelled}({modifier - HEADER_BYTES})"
    if known.name.startswith("time"):
        word, _, rest = spelled.partition(" ")
        return f"{word}({modifier}) {rest}"
    return spelled
