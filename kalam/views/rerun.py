"""Views that are run again: any SELECT with a key, of which the difference to the rows that are there is written.

Law: the rows are those of the SELECT over one moment of all sources, and the positions are that moment's. Changes only
tell that there is something to do: what they are is seen by running the SELECT. While that fails the rows stay as they
are, and so they do until others take their place in one transaction.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, nullcontext

import pyarrow as pa

from kalam.errors import DuplicateKey, RequestError, Timeout, TooLarge
from kalam.names import TableName
from kalam.query.executor import BoundQuery, Relations, Wanted
from kalam.query.queries import Queries
from kalam.rows.columns import arrow_schema, from_arrow
from kalam.rows.types import Row
from kalam.schema import VIEW_KEY, Key, Table
from kalam.sql.queries.compared import columns_of, with_own_forms
from kalam.sql.text.statements import QueryText
from kalam.storage.log.copies import View
from kalam.table_options import How
from kalam.tables.ephemeral_rows import is_nameless
from kalam.tables.kinds import Rows, Source, Tables
from kalam.threads import Purpose, beside, in_thread
from kalam.views.groups import Difference, difference
from kalam.views.keys import hidden_key
from kalam.views.method import TWICE, Changes, Outcome, SelectFailed, Stopped
from kalam.views.rerun_budget import RerunBudget
from kalam.views.result_types import fitted
from kalam.views.sight import EVERYTHING, Sight

FILL_ROWS = 8_192


class Rerun:
    """Keeps one view up; a Method."""

    how = How.RERUN
    gather = None

    def __init__(
        self,
        view: Table,
        sources: Sequence[Table],
        query: QueryText,
        *,
        queries: Queries,
        tables: Tables[Rows],
        budget: RerunBudget,
        rows_max: int,
        rows: Callable[[], Awaitable[Source]],
        sight: Sight = EVERYTHING,
    ) -> None:
        self._view, self._sources, self._queries, self._tables = view, sources, queries, tables
        self._budget, self._rows_max, self._rows, self._sight = budget, rows_max, rows, sight
        by_name = {source.name: source for source in sources}
        self._names = [TableName(use.ref.namespace or "", use.ref.table) for use in query.tables]
        self._query, _ = with_own_forms(query, [columns_of(by_name[name]) for name in self._names])
        self._result = arrow_schema(view.shown_columns)
        names = [column.name for column in view.shown_columns]
        self._key_places = tuple(map(names.index, view.view_options.key))
        self._hidden = VIEW_KEY in view.key
        self._shown: dict[Key, Row] = {}
        self._came: Difference | None = None
        """What was committed last and is not among them yet: that is done in a thread where it is much."""

    async def open(self) -> None:
        """The rows that are there."""
        view = await self._rows()
        listed = ", ".join(f'"{column.name}"' for column in self._view.columns)
        name = self._view.name
        text = f'SELECT {listed} FROM "{name.namespace}"."{name.table}"'  # noqa: S608 - names of a table
        relation = self._queries.relation(self._view, "", view)
        rows = await self._read(QueryText(text), [], {(name, False): relation}, arrow_schema(self._view.columns))
        self._shown, self._came = await beside(len(rows), self._by_key, rows), None

    async def close(self) -> None:
        """Nothing is held."""

    async def fill(self, sources: Mapping[TableName, Source]) -> AsyncIterator[Outcome]:
        """The rows of the SELECT over one moment of the sources; whoever opens a live query waits for no turn."""
        async with nullcontext() if is_nameless(self._view) else self._budget.turn():
            rows = (await self._run(sources, {})).upserts
        for start in range(0, max(len(rows), 1), FILL_ROWS):
            yield Outcome(upserts=rows[start : start + FILL_ROWS])

    async def change(self, changes: Sequence[Changes]) -> Outcome:
        """What is different now."""
        came, self._came = self._came, None
        if came is not None:
            await beside(len(came.upserts) + len(came.deletes), self._take_in, self._shown, came)
        async with self._budget.turn():
            tables = {source.name: source for source in self._sources}
            sources = await self._tables.stored.sources(tables, self._sight.user, with_key=False)
            found = await self._run(sources, self._shown)
        reached = {
            source.table_id: view.last_seq for source in self._sources if isinstance(view := sources[source.name], View)
        }
        return Outcome(upserts=found.upserts, deletes=found.deletes, reached=reached, committed=self._follow(found))

    def _follow(self, found: Difference) -> Callable[[], None]:
        def committed() -> None:
            self._came = found

        return committed

    def _take_in(self, shown: dict[Key, Row], came: Difference) -> None:
        for key in came.deletes:
            del shown[key]
        for row in came.upserts:
            shown[self._view.key_of(row)] = row

    def _by_key(self, rows: Sequence[Row]) -> dict[Key, Row]:
        return {self._view.key_of(row): row for row in rows}

    async def _run(self, sources: Mapping[TableName, Source], old: Mapping[Key, Row]) -> Difference:
        by_name, sight = {source.name: source for source in self._sources}, self._sight
        relations = {
            (name, False): self._queries.relation(by_name[name], sight.user, rows, guard=sight.guard(by_name[name]))
            for name, rows in sources.items()
        }
        rows = await self._read(self._query, self._names, relations, self._result)
        try:
            return await in_thread(Purpose.LIVE, difference, old, map(self._with_key, rows), self._view.key_of)
        except DuplicateKey as exc:
            raise Stopped(f"key: {exc.detail}", TWICE) from exc

    def _with_key(self, row: Row) -> Row:
        return (*row, hidden_key([row[place] for place in self._key_places])) if self._hidden else row

    async def _read(
        self, query: QueryText, names: Sequence[TableName], relations: Relations, schema: pa.Schema
    ) -> list[Row]:
        """The rows of a query in the types of the view's columns."""
        rows: list[Row] = []
        bound = BoundQuery(query, names, relations)
        try:
            async with aclosing(self._queries.stream_bound(bound, Wanted(user=self._view.owned_by))) as parts:
                async for part in parts:
                    rows += await in_thread(Purpose.LIVE, _rows, part, schema)
                    if len(rows) > self._rows_max:
                        raise TooLarge(
                            f"the view would have more than {self._rows_max:,} rows: let its SELECT leave rows out, "
                            "or raise view_groups_max"
                        )
        except (RequestError, TooLarge, Timeout) as exc:
            raise SelectFailed(exc) from exc
        return rows


def _rows(part: pa.Table, schema: pa.Schema) -> list[Row]:
    return from_arrow(fitted(part, schema))
