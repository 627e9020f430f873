"""What a text can ask for: one frozen value for each statement of the language.

The parser makes these and the engine matches on them. Text that goes on to DataFusion (a query, a WHERE, the right side
of a SET) stays the user's own text, cut out by token positions and never written again by us, so that what is executed
is what was asked for. Positions are characters into that text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kalam.schema import Column, DataType, Default, TableKind


@dataclass(frozen=True, slots=True)
class TableRef:
    """A table as a statement names it; ``namespace`` is None where it was left out."""

    namespace: str | None
    table: str


@dataclass(frozen=True, slots=True)
class TableUse:
    """One mention of a table in a query text.

    ``start`` and ``end`` bound the mention (``ns.t`` or ``t``) in the text, ``aliased`` says whether an alias follows.
    ``sees_deleted`` is set where the WHERE of the same SELECT names this table's ``_deleted``.
    """

    ref: TableRef
    start: int
    end: int
    aliased: bool
    sees_deleted: bool


@dataclass(frozen=True, slots=True)
class Literal:
    """A value that needs no evaluation: None, bool, int, float, Decimal or str."""

    value: Any


@dataclass(frozen=True, slots=True)
class Parameter:
    """``$index``, counted from 1."""

    index: int


@dataclass(frozen=True, slots=True)
class Equality:
    """The condition ``[qualifier.]column = value`` and nothing else; the value is a text, an integer or a parameter."""

    column: str
    qualifier: str | None
    value: Literal | Parameter


@dataclass(frozen=True, slots=True)
class PointQuery:
    """A query for columns of the rows of one table that an equality picks.

    ``columns`` are pairs of a column and the name it gets, none for ``*``.
    """

    columns: tuple[tuple[str, str], ...]
    where: Equality


@dataclass(frozen=True, slots=True)
class QueryText:
    """A query, or an expression over one table, in the user's own words.

    ``tables`` are its mentions of tables that are not names of its own CTEs, in the order of the text. ``parameters``
    is the highest ``$n`` in it, 0 for none. ``names_key`` says whether it names the column ``_key`` anywhere. ``plain``
    is set for one SELECT over one table without ORDER BY, GROUP BY, DISTINCT, aggregate, window, join, set operation,
    sub-query or WITH. What needs no planning is told besides: an expression's ``equality`` or ``constant``, a query's
    ``point``. ``casts`` are the places of its result at which a CAST gives the type; ``in_order`` says that the rows of
    its one table come in their order, if they are read in it.
    """

    text: str
    tables: tuple[TableUse, ...] = ()
    parameters: int = 0
    names_key: bool = False
    plain: bool = False
    equality: Equality | None = None
    constant: Literal | Parameter | None = None
    point: PointQuery | None = None
    casts: tuple[int, ...] = ()
    in_order: bool = False


@dataclass(frozen=True, slots=True)
class DefaultValue:
    """The word DEFAULT in a VALUES list."""


@dataclass(frozen=True, slots=True)
class DefaultFunction:
    """``NOW()``, ``SNOWFLAKE_ID()``, ``UUID_V7()`` or ``CURRENT_USER()`` in a VALUES list."""

    default: Default


Value = Literal | Parameter | DefaultValue | DefaultFunction | QueryText


@dataclass(frozen=True, slots=True)
class CreateNamespace:
    name: str
    if_not_exists: bool


@dataclass(frozen=True, slots=True)
class DropNamespace:
    name: str
    if_exists: bool
    cascade: bool


@dataclass(frozen=True, slots=True)
class ShowNamespaces:
    pass


@dataclass(frozen=True, slots=True)
class ShowTables:
    namespace: str | None


@dataclass(frozen=True, slots=True)
class Use:
    namespace: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateTable:
    """``options`` holds the raw value of each option by its upper-case name, the older clauses included."""

    ref: TableRef
    kind: TableKind
    columns: tuple[Column, ...]
    key: str | None
    options: Mapping[str, Any]
    if_not_exists: bool


@dataclass(frozen=True, slots=True)
class DropTable:
    ref: TableRef
    kind: TableKind | None
    if_exists: bool


@dataclass(frozen=True, slots=True)
class AddColumn:
    name: str
    type: DataType
    nullable: bool
    default: Default | None


@dataclass(frozen=True, slots=True)
class DropColumn:
    name: str


@dataclass(frozen=True, slots=True)
class RenameColumn:
    name: str
    new_name: str


@dataclass(frozen=True, slots=True)
class SetOptions:
    options: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class AlterTable:
    ref: TableRef
    action: AddColumn | DropColumn | RenameColumn | SetOptions


@dataclass(frozen=True, slots=True)
class DescribeTable:
    ref: TableRef
    history: bool


@dataclass(frozen=True, slots=True)
class ShowStats:
    ref: TableRef


@dataclass(frozen=True, slots=True)
class ShowCreateTable:
    ref: TableRef


@dataclass(frozen=True, slots=True)
class Assignment:
    """``column = value`` of a SET; the value may name the row's columns, and ``excluded.x`` in an ON CONFLICT."""

    column: str
    value: QueryText


@dataclass(frozen=True, slots=True)
class OnConflict:
    """``DO NOTHING`` where ``assignments`` is empty, else ``DO UPDATE SET …``."""

    key: str | None
    assignments: tuple[Assignment, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Insert:
    """``source`` is the rows of a VALUES list, or the query of an INSERT … SELECT. ``returning`` is a select list."""

    ref: TableRef
    columns: tuple[str, ...] | None
    source: tuple[tuple[Value, ...], ...] | QueryText
    on_conflict: OnConflict | None = None
    returning: QueryText | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """``alias`` is the name that the expressions may give the table instead of its own."""

    ref: TableRef
    assignments: tuple[Assignment, ...]
    where: QueryText | None
    returning: QueryText | None = None
    alias: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delete:
    """``alias`` is the name that the expressions may give the table instead of its own."""

    ref: TableRef
    where: QueryText | None
    returning: QueryText | None = None
    alias: str | None = None


@dataclass(frozen=True, slots=True)
class Select:
    """A query or an EXPLAIN of one."""

    query: QueryText


@dataclass(frozen=True, slots=True)
class FlushTable:
    ref: TableRef


@dataclass(frozen=True, slots=True)
class FlushAllTables:
    namespace: str | None


@dataclass(frozen=True, slots=True)
class CompactTable:
    ref: TableRef


@dataclass(frozen=True, slots=True)
class CheckTable:
    ref: TableRef


@dataclass(frozen=True, slots=True)
class ShowJobs:
    pass


@dataclass(frozen=True, slots=True)
class KillJob:
    job_id: str


@dataclass(frozen=True, slots=True)
class ShowQueries:
    pass


@dataclass(frozen=True, slots=True)
class KillQuery:
    query_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscribe:
    """``columns`` is None for ``*``; ``where`` is an expression over the table's columns."""

    ref: TableRef
    columns: tuple[str, ...] | None
    where: QueryText | None
    last_rows: int | None = None
    from_seq: int | None = None


@dataclass(frozen=True, slots=True)
class ShowLiveQueries:
    pass


@dataclass(frozen=True, slots=True)
class KillLiveQuery:
    query_id: str


Statement = (
    CreateNamespace
    | DropNamespace
    | ShowNamespaces
    | ShowTables
    | Use
    | CreateTable
    | DropTable
    | AlterTable
    | DescribeTable
    | ShowStats
    | ShowCreateTable
    | Insert
    | Update
    | Delete
    | Select
    | FlushTable
    | FlushAllTables
    | CompactTable
    | CheckTable
    | ShowJobs
    | KillJob
    | ShowQueries
    | KillQuery
    | Subscribe
    | ShowLiveQueries
    | KillLiveQuery
)
