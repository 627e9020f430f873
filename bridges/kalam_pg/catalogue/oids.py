"""The OIDs of what Kalam has: the same after every start, and apart from PostgreSQL's own, which end below 16384.

A table's are ``16384 + table_id * 8 + part``. Namespaces, roles and system tables have names and no numbers, so theirs
are hashes of the names, far behind the tables'.
"""

from __future__ import annotations

import enum
import zlib
from typing import Final

FIRST: Final = 16_384
PER_TABLE: Final = 8

PG_CATALOG: Final = 11
INFORMATION_SCHEMA: Final = 13_207
PUBLIC: Final = 2_200
FIRST_ROLE: Final = 10
"""Who owns what is the server's own."""
DATABASE: Final = 16_383
_NAMED_FIRST: Final = 0x6000_0000
_DEFAULTS_FIRST: Final = 0x8000_0000
_DEFAULTS_PER_TABLE: Final = 2_048


class Part(enum.IntEnum):
    """What of a table an OID means."""

    RELATION = 0
    INDEX = 1
    CONSTRAINT = 2
    RULE = 3


def of_table(table_id: int, part: Part = Part.RELATION) -> int:
    """The OID of a table, or of a part of it."""
    return FIRST + table_id * PER_TABLE + part


def of_default(table_id: int, ordinal: int) -> int:
    """The OID of a column's default."""
    return _DEFAULTS_FIRST + (table_id * _DEFAULTS_PER_TABLE + ordinal) % 0x7000_0000


def of_name(kind: str, name: str) -> int:
    """The OID of a namespace, role or system table."""
    if kind == "namespace":
        known = {"pg_catalog": PG_CATALOG, "information_schema": INFORMATION_SCHEMA, "public": PUBLIC}.get(name)
        if known is not None:
            return known
    return _NAMED_FIRST + zlib.crc32(f"{kind} {name}".encode()) % 0x1000_0000 * 2
