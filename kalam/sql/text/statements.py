"""What a text can ask for: one frozen value for each statement of the language.

The parser makes these and the engine matches on them. Text that goes on to DataFusion (a query, a WHERE, the right side
of a SET) stays the user's own text, cut out by token positions and never written again by us, so that what is executed
is what was asked for. Positions are characters into that text.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec
from msgspec.structs import replace

from kalam.foreign import Over
from kalam.schema import Column, DataType, Default, TableKind
from kalam.sql.text.alterations import Action


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


class CreateNamespace(msgspec.Struct, frozen=True):
    name: str
    if_not_exists: bool


class DropNamespace(msgspec.Struct, frozen=True):
    name: str
    if_exists: bool
    cascade: bool


class ShowNamespaces(msgspec.Struct, frozen=True):
    pass


class ShowTables(msgspec.Struct, frozen=True):
    namespace: str | None


class Use(msgspec.Struct, frozen=True):
    namespace: str


class CreateTable(msgspec.Struct, frozen=True, kw_only=True):
    """``options`` holds the raw value of each option by its upper-case name, the older clauses included.

    ``over`` is the foreign stream that a FOREIGN table reads. Where a ``query`` fills the table ``columns`` is empty,
    and ``names`` are what its columns are to be called, none for the query's own names.
    """

    ref: TableRef
    kind: TableKind
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    options: Mapping[str, Any]
    if_not_exists: bool
    over: Over | None = None
    query: QueryText | None = None
    names: tuple[str, ...] = ()


class DropTable(msgspec.Struct, frozen=True):
    """``cascade`` closes the live queries that are open on it."""

    ref: TableRef
    kind: TableKind | None
    if_exists: bool
    cascade: bool = False


class CreateSelect(msgspec.Struct, frozen=True, kw_only=True):
    """CREATE VIEW: ``names`` are what its columns are to be called, none for the query's own names."""

    ref: TableRef
    query: QueryText
    names: tuple[str, ...]
    or_replace: bool
    if_not_exists: bool


class DropSelect(msgspec.Struct, frozen=True):
    """DROP VIEW; ``cascade`` drops the views that read it, too."""

    ref: TableRef
    if_exists: bool
    cascade: bool = False


class TruncateTable(msgspec.Struct, frozen=True):
    ref: TableRef


class AlterTable(msgspec.Struct, frozen=True):
    ref: TableRef
    action: Action


class DescribeTable(msgspec.Struct, frozen=True):
    ref: TableRef
    history: bool


class ShowColumns(msgspec.Struct, frozen=True):
    ref: TableRef


class CommentOn(msgspec.Struct, frozen=True):
    """``column`` is None for the table itself; ``comment`` is None where there is to be none."""

    ref: TableRef
    column: str | None
    comment: str | None


class ShowStreams(msgspec.Struct, frozen=True):
    pass


class DescribeStream(msgspec.Struct, frozen=True):
    """``sample`` is how many of its messages are looked at."""

    stream: str
    domain: str | None
    sample: int


class ShowStats(msgspec.Struct, frozen=True):
    ref: TableRef


class ShowCreateTable(msgspec.Struct, frozen=True):
    ref: TableRef


class Assignment(msgspec.Struct, frozen=True):
    """``column = value`` of a SET; the value may name the row's columns, and ``excluded.x`` in an ON CONFLICT."""

    column: str
    value: QueryText


class OnConflict(msgspec.Struct, frozen=True):
    """``DO NOTHING`` where ``assignments`` is empty, else ``DO UPDATE SET …``; ``key`` are the columns it names."""

    key: tuple[str, ...] | None
    assignments: tuple[Assignment, ...]


class Insert(msgspec.Struct, frozen=True, kw_only=True):
    """``source`` is the rows of a VALUES list, or the query of an INSERT … SELECT. ``returning`` is a select list."""

    ref: TableRef
    columns: tuple[str, ...] | None
    source: tuple[tuple[Value, ...], ...] | QueryText
    on_conflict: OnConflict | None = None
    returning: QueryText | None = None


class Update(msgspec.Struct, frozen=True, kw_only=True):
    """``alias`` is the name that the expressions may give the table instead of its own."""

    ref: TableRef
    assignments: tuple[Assignment, ...]
    where: QueryText | None
    returning: QueryText | None = None
    alias: str | None = None


class Delete(msgspec.Struct, frozen=True, kw_only=True):
    """``alias`` is the name that the expressions may give the table instead of its own."""

    ref: TableRef
    where: QueryText | None
    returning: QueryText | None = None
    alias: str | None = None


class Select(msgspec.Struct, frozen=True):
    """A query or an EXPLAIN of one."""

    query: QueryText


class FlushTable(msgspec.Struct, frozen=True):
    ref: TableRef


class FlushAllTables(msgspec.Struct, frozen=True):
    namespace: str | None


class CompactTable(msgspec.Struct, frozen=True):
    ref: TableRef


class CheckTable(msgspec.Struct, frozen=True):
    ref: TableRef


class RefreshLake(msgspec.Struct, frozen=True):
    ref: TableRef | None = None


class ShowLake(msgspec.Struct, frozen=True):
    pass


class ShowJobs(msgspec.Struct, frozen=True):
    pass


class KillJob(msgspec.Struct, frozen=True):
    job_id: str


class ShowQueries(msgspec.Struct, frozen=True):
    pass


class KillQuery(msgspec.Struct, frozen=True):
    query_id: str


class Subscribe(msgspec.Struct, frozen=True, kw_only=True):
    """``columns`` is None for ``*``; ``where`` is an expression over the table's columns.

    Of a SELECT that is more than that ``query`` is the whole of it, and ``ref`` the first table that it names.
    """

    ref: TableRef
    columns: tuple[str, ...] | None
    where: QueryText | None
    query: QueryText | None = None
    last_rows: int | None = None
    from_seq: int | None = None
    from_time: datetime | None = None


class ShowLiveQueries(msgspec.Struct, frozen=True):
    pass


class KillLiveQuery(msgspec.Struct, frozen=True):
    query_id: str


class OnAccess(msgspec.Struct, frozen=True):
    """A statement on users and their rights; ``kalam.sql.access.statements`` has them all."""


class OnView(msgspec.Struct, frozen=True):
    """A statement on materialized views; ``kalam.sql.text.view_statements`` has them all."""


class ExecuteAs(msgspec.Struct, frozen=True):
    """A statement that an administrator has carried out for another user, on that user's rows."""

    user: str
    statement: Statement


Defining = CreateNamespace | DropNamespace | CreateTable | DropTable | TruncateTable | AlterTable | CommentOn
OnSelect = CreateSelect | DropSelect
ShowingTables = ShowNamespaces | ShowTables | DescribeTable | ShowColumns | ShowStats | ShowCreateTable
Statement = (
    Defining
    | OnSelect
    | ShowingTables
    | Use
    | ShowStreams
    | DescribeStream
    | Insert
    | Update
    | Delete
    | Select
    | FlushTable
    | FlushAllTables
    | CompactTable
    | CheckTable
    | RefreshLake
    | ShowLake
    | ShowJobs
    | KillJob
    | ShowQueries
    | KillQuery
    | Subscribe
    | ShowLiveQueries
    | KillLiveQuery
    | OnAccess
    | OnView
    | ExecuteAs
)
