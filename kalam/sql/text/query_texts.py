"""Queries and expressions in the user's own words, what they name, and the values beside them."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec.structs import replace

from kalam.schema import DataType, Default


class TableRef(msgspec.Struct, frozen=True):
    """A table as a statement names it; ``namespace`` is None where it was left out."""

    namespace: str | None
    table: str


class TableUse(msgspec.Struct, frozen=True):
    """One mention of a table in a query text.

    ``start`` and ``end`` bound the mention (``ns.t`` or ``t``) in the text, ``aliased`` says whether an alias follows.
    ``sees_deleted`` is set where the WHERE of the same SELECT names this table's ``_deleted``.
    """

    ref: TableRef
    start: int
    end: int
    aliased: bool
    sees_deleted: bool

    def moved(self, by: int) -> TableUse:
        """The same mention in a text that has so many more characters before it."""
        return replace(self, start=self.start + by, end=self.end + by)


class Literal(msgspec.Struct, frozen=True):
    """A value that needs no evaluation: None, bool, int, float, Decimal or str."""

    value: Any


class Parameter(msgspec.Struct, frozen=True):
    """``$index``, counted from 1; ``cast`` is the type that a VALUES list casts it to, by these words."""

    index: int
    cast: DataType | None = None
    written: str = ""


class Equality(msgspec.Struct, frozen=True):
    """The condition ``[qualifier.]column = value`` and nothing else; the value is a text, an integer or a parameter."""

    column: str
    qualifier: str | None
    value: Literal | Parameter


class PointQuery(msgspec.Struct, frozen=True):
    """A query for columns of the rows of one table that equalities pick, all of them together.

    ``columns`` are pairs of a column and the name it gets, none for ``*``. The equalities have no qualifiers.
    """

    columns: tuple[tuple[str, str], ...]
    where: tuple[Equality, ...]


class QueryText(msgspec.Struct, frozen=True):
    """A query, or an expression over one table, in the user's own words.

    ``tables`` are its mentions of tables that are not names of its own CTEs, in the order of the text. ``parameters``
    is the highest ``$n`` in it, 0 for none. ``names_key`` says whether it names the column ``_key`` anywhere. ``plain``
    is set for one SELECT over one table without ORDER BY, GROUP BY, DISTINCT, aggregate, window, join, set operation,
    sub-query or WITH. What needs no planning is told besides: an expression's ``equalities`` or ``constant``, a query's
    ``point``, and whether it is one row of ``literals``. ``virtual`` are the columns of foreign messages that it names.
    ``casts`` are the places of its result at which a CAST gives the type; ``in_order`` says that the rows of its one
    table come in their order, if they are read in it.
    """

    text: str
    tables: tuple[TableUse, ...] = ()
    parameters: int = 0
    names_key: bool = False
    plain: bool = False
    equalities: tuple[Equality, ...] = ()
    constant: Literal | Parameter | None = None
    point: PointQuery | None = None
    literals: bool = False
    casts: tuple[int, ...] = ()
    in_order: bool = False
    virtual: frozenset[str] = frozenset()


class DefaultValue(msgspec.Struct, frozen=True):
    """The word DEFAULT in a VALUES list."""


class DefaultFunction(msgspec.Struct, frozen=True):
    """``NOW()``, ``SNOWFLAKE_ID()``, ``UUID_V7()`` or ``CURRENT_USER()`` in a VALUES list."""

    default: Default


Value = Literal | Parameter | DefaultValue | DefaultFunction | QueryText
