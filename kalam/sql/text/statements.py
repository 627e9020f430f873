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

from kalam.foreign import Over
from kalam.schema import Column, TableKind
from kalam.sql.text.alterations import Action
from kalam.sql.text.query_texts import DefaultFunction as DefaultFunction
from kalam.sql.text.query_texts import DefaultValue as DefaultValue
from kalam.sql.text.query_texts import Equality as Equality
from kalam.sql.text.query_texts import Literal as Literal
from kalam.sql.text.query_texts import Parameter as Parameter
from kalam.sql.text.query_texts import PointQuery as PointQuery
from kalam.sql.text.query_texts import QueryText as QueryText
from kalam.sql.text.query_texts import TableRef as TableRef
from kalam.sql.text.query_texts import TableUse as TableUse
from kalam.sql.text.query_texts import Value as Value
from kalam.table_options import OnCommit


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


class CreateTemporary(msgspec.Struct, frozen=True, kw_only=True):
    """CREATE TEMPORARY TABLE; ``query`` and ``names`` as in a CreateTable."""

    ref: TableRef
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    if_not_exists: bool
    on_commit: OnCommit
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
    """``alias`` is the name that the expressions may give the table instead of its own.

    ``sources`` is what its FROM lists besides.
    """

    ref: TableRef
    assignments: tuple[Assignment, ...]
    where: QueryText | None
    returning: QueryText | None = None
    alias: str | None = None
    sources: QueryText | None = None


class Delete(msgspec.Struct, frozen=True, kw_only=True):
    """``alias`` and ``sources`` are as in an Update; here USING lists these."""

    ref: TableRef
    where: QueryText | None
    returning: QueryText | None = None
    alias: str | None = None
    sources: QueryText | None = None


class Merge(msgspec.Struct, frozen=True, kw_only=True):
    """MERGE: what becomes of the rows that go with one of ``sources``, and what is inserted for those of them without.

    ``assignments`` are of WHEN MATCHED THEN UPDATE, and ``deletes`` says that it is THEN DELETE; ``values``, for
    ``columns``, are of WHEN NOT MATCHED THEN INSERT, None where there is none.
    """

    ref: TableRef
    alias: str | None
    sources: QueryText
    on: QueryText
    assignments: tuple[Assignment, ...] = ()
    deletes: bool = False
    columns: tuple[str, ...] | None = None
    values: tuple[QueryText, ...] | None = None


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
    | CreateTemporary
    | ShowingTables
    | Use
    | ShowStreams
    | DescribeStream
    | Insert
    | Update
    | Delete
    | Merge
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
