"""Names: what a namespace, table, column and user may be called.

A name that is created is one token of a NATS subject, one folder of a file system and one SQL identifier at once, so
the rule is the narrowest of the three. A name that is only looked up is not checked against the rule: it is simply
not found.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from kalam.errors import InvalidName

NAME_PATTERN = re.compile(r"[a-z][a-z0-9_]{0,62}")
USER_LENGTH_MAX = 64
USER_PATTERN = re.compile(rf"[A-Za-z0-9_-]{{1,{USER_LENGTH_MAX}}}")
RESERVED_NAMESPACES = frozenset({"system", "information_schema", "pg_catalog", "kalam"})
SYSTEM_NAMESPACE = "system"
TEMPORARY_NAMESPACE = "pg_temp"
"""What a session calls the namespace of its own temporary tables, and how the names of all of these begin."""


UNFINISHED = ".unfinished"
"""Behind the name of a table that is being filled: no name that anybody can give has a point."""


class TableName(msgspec.Struct, frozen=True, order=True):
    """A table's full name, ``namespace.table``."""

    namespace: str
    table: str

    def __str__(self) -> str:
        return f"{self.namespace}.{self.table.removesuffix(UNFINISHED)}"

    @property
    def is_unfinished(self) -> bool:
        """Whether its table is being filled, and nobody sees it."""
        return self.table.endswith(UNFINISHED)


def check_name(name: str, what: str) -> str:
    """Return ``name`` if a ``what`` (namespace, table, column) may be called so; raise InvalidName otherwise."""
    if not NAME_PATTERN.fullmatch(name):
        raise InvalidName(
            f"{what} name {name[:80]!r} is not allowed: a name is a lower-case letter, followed by at most "
            "62 lower-case letters, digits and underscores"
        )
    return name


def check_new_namespace(name: str) -> str:
    """Return ``name`` if a namespace of that name may be created; raise InvalidName otherwise."""
    check_name(name, "namespace")
    if name in RESERVED_NAMESPACES or name.startswith(TEMPORARY_NAMESPACE):
        raise InvalidName(
            f"namespace name {name!r} is reserved (reserved are: {', '.join(sorted(RESERVED_NAMESPACES))}, and what "
            f"begins with {TEMPORARY_NAMESPACE})"
        )
    return name


def numbered(count: int, noun: str) -> str:
    """So many of something, whose plural ends in s: ``1 row``, ``2 rows``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def listed(names: Sequence[str], most: int = 20) -> str:
    """The first of some names, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def check_user(user: str) -> str:
    """Return ``user`` if it is a valid user id; raise InvalidName otherwise."""
    if not USER_PATTERN.fullmatch(user):
        raise InvalidName(f"user id {user[:80]!r} is not allowed: a user id is 1 to 64 letters, digits, '_' and '-'")
    return user
