"""UPDATE and DELETE of more rows than are held in memory, and what both ways read."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager

import pyarrow as pa
from msgspec.structs import replace

from kalam.access.model import Command
from kalam.engine.assigned import naming_column
from kalam.engine.session import Request, reads_rows
from kalam.engine.upserts import existing_column, with_sign_of_zero
from kalam.errors import InvalidValue, TooLarge, Unavailable, Unsupported
from kalam.names import TableName
from kalam.query.composed import Pieces, compose, from_table, quoted
from kalam.query.executor import Wanted
from kalam.query.own import Own
from kalam.query.predicate import Predicate
from kalam.query.queries import Queries
from kalam.query.running import interruptible
from kalam.rows.types import Row
from kalam.schema import SEQ, Table
from kalam.sql.text.statements import Assignment, Delete, QueryText, Update
from kalam.storage.log.copies import EMPTY_VIEW, View
from kalam.tables.kinds import Source
from kalam.tables.large_changes import LargeChange, LargeChanges
from kalam.tables.matched import queried_columns

CHANGED_SUFFIX = "$changed"
"""Behind the name of a table of which a statement changes the rows that policies leave to it."""


class PastBounds(TooLarge):
    """A statement means more rows than are changed in memory."""


Guard = Callable[[Table, Update | Delete, Request], Predicate | None]


class LargeStatements:
    """Carries such statements out; ``guard`` gives what rows meet that the user may change by one."""

    def __init__(self, queries: Queries, large: LargeChanges, guard: Guard) -> None:
        self._queries, self._large, self._guard = queries, large, guard

    async def run(self, table: Table, statement: Update | Delete, request: Request, bounds: PastBounds) -> int:
        """How many rows were changed; raises what is wrong with the statement, ``bounds`` if it is only done in memory.

        That are those whose rows come back (RETURNING), and those that set a column by which a row is told.
        """
        if statement.returning is not None:
            raise TooLarge(f"{bounds.detail}: without RETURNING it may be of any size")
        check = self._queries.policies.written(request.session.user, table, Command.UPDATE, reads=reads_rows(statement))
        judges = isinstance(statement, Update) and check is not None

        async def judge(table: Table, rows: Sequence[Row]) -> None:
            predicate = self._queries.policies.written(
                request.session.user, table, Command.UPDATE, reads=reads_rows(statement)
            )
            await self._queries.policies.require(table, predicate, rows)

        change = LargeChange(
            op="update" if isinstance(statement, Update) else "delete",
            pick=lambda table, view: self._picked(table, view, statement, request),
            assigned=lambda table: assigned_names(table, statement, bounds),
            judge=judge if judges else None,
            step=self._step,
        )
        try:
            return await self._large.run(table, request.session.user, change)
        except InvalidValue as exc:
            if exc.detail.startswith("column ") or isinstance(statement, Delete):
                raise
            await self._name_column(table, statement, request)
            raise

    async def _name_column(self, table: Table, statement: Update, request: Request) -> None:
        """Raise the error of a SET with its column, if that is where it is; nothing is kept of the rows."""
        view = await self._large.stored.view(table, request.session.user) or EMPTY_VIEW

        async def run(places: Sequence[int]) -> None:
            changed = replace(statement, assignments=tuple(statement.assignments[place] for place in places))
            async with aclosing(self._picked(table, view, changed, request)) as found:
                async for _ in found:
                    pass

        await run(())  # what is wrong with the WHERE is told as it is
        await naming_column([assignment.column for assignment in statement.assignments], run)

    async def _picked(
        self, table: Table, view: View, statement: Update | Delete, request: Request
    ) -> AsyncGenerator[pa.Table, None]:
        if isinstance(statement, Update):
            chosen = tuple(with_sign_of_zero(table, assignment) for assignment in statement.assignments)
            statement = replace(statement, assignments=chosen)
        guard, session = self._guard(table, statement, request), request.session
        query, own = picking(table, view, queried_columns(table), statement, guard)
        wanted = Wanted(user=session.user, in_order=True)
        found = self._queries.stream_around(query, own, session.namespace, request.parameters, wanted)
        async with aclosing(found):
            async for rows in found:
                yield rows

    @contextmanager
    def _step(self) -> Iterator[None]:
        if self._queries.pool.closing:
            raise Unavailable("the server is shutting down; nothing was changed")
        with interruptible():
            yield


def picking(
    table: Table,
    source: Source,
    columns: Sequence[str],
    statement: Update | Delete,
    guard: Predicate | None,
    *,
    once: bool = True,
) -> tuple[QueryText, Own]:
    """The query for these columns of the rows that a WHERE picks, and assigned values as ``_set_<n>``; what it reads.

    Of the rows it sees what the ``guard`` leaves. One that goes with several rows of the statement's sources is there
    ``once``, or as often.
    """
    name, alias = table.name, statement.alias
    if guard is not None:  # a sub-query of the statement sees what SELECT shows, and not what it may change
        name, alias = TableName(name.namespace, name.table + CHANGED_SUFFIX), alias or name.table
    pieces: Pieces = [(f"SELECT {quoted(columns)}", None)]
    if statement.sources is not None and SEQ not in columns:
        raise Unsupported(f"DELETE … USING is for tables whose rows are stored, not for {table.name}")
    if statement.sources is not None:  # of several rows there that go with one of the table's, any one is taken
        called = f'"{name.namespace}"."{name.table}"' if alias is None else f'"{alias}"'
        distinct = f'DISTINCT ON ({called}."{SEQ}") ' if once else ""
        pieces = [(f"SELECT {distinct}{quoted(columns, called)}", None)]
    assignments: Sequence[Assignment] = statement.assignments if isinstance(statement, Update) else ()
    for number, assignment in enumerate(assignments):
        pieces += [(", (", assignment.value), (f') AS "_set_{number}"', None)]
    pieces.append((from_table(name, alias), None))
    if statement.sources is not None:
        pieces.append((", ", statement.sources))
    if statement.where is not None:
        pieces.append((" WHERE ", statement.where))
    return compose(pieces), Own(name, table, source, alias, guard)


def assigned_names(table: Table, statement: Update | Delete, bounds: PastBounds) -> list[str]:
    """The columns that get values; raises TooLarge for one by which rows are told."""
    if isinstance(statement, Delete):
        return []
    names = [existing_column(table, assignment.column).name for assignment in statement.assignments]
    for name in names:
        if name in table.key or name == table.options.subject_key:
            raise TooLarge(f"{bounds.detail}, and it sets {name}, by which rows and their events are told")
    return names
