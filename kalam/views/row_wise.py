"""Row-wise views: each row of the source makes one row of the view, or none.

Law: a row of the view is known by the row of the source that it was made of (its key, or generation and sequence), or
by the columns that the option ``key`` names. Of the changes of a batch the last of each source row counts. Where the
source retracts, the row that was made of the former version goes with it; of a stream every event adds its row, and of
events with the same ``key`` the last one stays.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any

import pyarrow as pa

from kalam.names import TableName
from kalam.query.composed import quoted
from kalam.query.computed import ComputedQuery, ComputeProcess, Failed
from kalam.query.executor import BoundQuery, Wanted
from kalam.query.queries import Queries
from kalam.rows.columns import arrow_schema, from_arrow
from kalam.rows.keys import keys_in, shown_key
from kalam.rows.types import Row
from kalam.schema import STREAM_KEY, VIEW_KEY, Key, Table
from kalam.sql.queries.views import PLACE, view_shape, with_place
from kalam.sql.text.statements import QueryText
from kalam.table_options import How
from kalam.tables.kinds import Source
from kalam.threads import Purpose, in_thread
from kalam.views.keys import hidden_key, key_of_event, key_of_source
from kalam.views.method import TWICE, Changes, LeftOut, Outcome, Stopped
from kalam.views.relation import Relation, bound_text, key_of_rows
from kalam.views.result_types import fitted

FILL_ROWS = 8_192
_PLACE_FIELD = pa.field(PLACE, pa.int32())
Computed = tuple[dict[int, Row], list[Failed]]
"""The rows that were made, without a hidden key, by the places of the versions that they were made of; and failures."""


class RowWise:
    """Keeps one view up; a Method."""

    how = How.ROW_WISE
    gather = None

    def __init__(self, view: Table, source: Table, query: QueryText, queries: Queries, process: ComputeProcess) -> None:
        self._view, self._query, self._queries, self._process = view, query, queries, process
        shape = view_shape(query.text)
        self._names = shape.names
        columns = {result.name: result.column or "" for result in shape.results}
        self._source_key = tuple(columns.get(name, "") for name in view.key)
        self._result = arrow_schema(view.shown_columns)
        names, own = view.view_options.key, [column.name for column in view.shown_columns]
        self._key_places = tuple(map(own.index, names))
        self._hidden = VIEW_KEY in view.key
        self._read(source)

    def _read(self, source: Table) -> None:
        """Read versions of the source as it is now: an ALTER may have put its columns elsewhere."""
        self._source, self._relation = source, Relation.of(source, self._names)
        names = [*(column.name for column in source.columns), *source.system_columns]
        self._key_of = itemgetter(*key) if (key := [names.index(name) for name in key_of_rows(source)]) else None
        schema = self._relation.schema.append(_PLACE_FIELD)
        text = bound_text(with_place(self._query), [source])
        self._computed = ComputedQuery.of(self._process, source.name.namespace, source.name.table, text, schema)

    async def open(self) -> None:
        """Nothing is remembered but the rows themselves."""

    async def close(self) -> None:
        """The process lets go of the plan."""
        self._computed.close()

    async def fill(self, sources: Mapping[TableName, Source]) -> AsyncIterator[Outcome]:
        """The rows of the view over one state of the source."""
        if self._source.name not in sources:
            return
        wanted = dict.fromkeys((*self._relation.schema.names, *key_of_rows(self._source)))
        name = self._source.name
        text = f'SELECT {quoted(wanted)} FROM "{name.namespace}"."{name.table}"'  # noqa: S608 - names of a table
        relation = self._queries.relation(self._source, "", sources[name])
        bound = BoundQuery(QueryText(text), [], {(name, False): relation})
        async for part in self._queries.stream_bound(bound, Wanted(user=self._view.owned_by)):
            for start in range(0, part.num_rows, FILL_ROWS):
                yield await in_thread(Purpose.LIVE, self._filled, part.slice(start, FILL_ROWS))

    def _filled(self, part: pa.Table) -> Outcome:
        keys = keys_in([part.column(name) for name in key_of_rows(self._source)])
        made, failed = self._compute(part.select(self._relation.schema.names).cast(self._relation.schema))
        rows = [self._with_key(row, keys[place]) for place, row in made.items()]
        fresh = frozenset(map(self._view.key_of, rows)) if self._key_places else frozenset()
        if self._key_places and len(fresh) < len(rows):
            raise self._twice(rows)
        left_out = [LeftOut(self._shown(keys[each.place]), each.reason) for each in failed]
        return Outcome(upserts=rows, fresh=fresh, left_out=left_out)

    async def change(self, changes: Sequence[Changes]) -> Outcome:
        """What follows from changes of the source."""
        [change] = changes
        if change.source.schema_version != self._source.schema_version:
            await self.close()
            self._read(change.source)
        work = self._retracted if change.retracts else self._appended
        return await in_thread(Purpose.LIVE, work, change)

    def _appended(self, change: Changes) -> Outcome:
        batch = change.batch
        made, failed = self._compute(self._relation.rows([row for row in batch.news if row is not None]))
        keys = {place: key_of_event(change.generation, batch.seqs[place]) for place in made}
        rows = [self._with_key(row, keys[place]) for place, row in made.items()]
        if self._key_places:
            rows = list({self._view.key_of(row): row for row in rows}.values())
            return Outcome(upserts=rows, left_out=_of_events(failed, change))
        return Outcome(upserts=rows, appends=True, left_out=_of_events(failed, change))

    def _retracted(self, change: Changes) -> Outcome:
        key_of = self._key_of
        assert key_of is not None
        olds: dict[Key, Row | None] = {}
        news: dict[Key, Row | None] = {}
        for old, new in zip(change.batch.olds, change.batch.news, strict=True):
            version = new if new is not None else old
            assert version is not None
            key = key_of(version)
            olds.setdefault(key, old)
            news[key] = None if new is None or new[-1] is True else new  # the last column says that it is deleted
        made, failed = self._made(news)
        left_out = [LeftOut(self._shown(key), reason) for key, reason in failed]
        rows = list(made.values())
        if not self._key_places:
            gone = [self._key(key) for key in news if key not in made]
            return Outcome(upserts=rows, deletes=gone, left_out=left_out)
        before = {self._view.key_of(row) for row in self._made(olds)[0].values()}
        after = set(map(self._view.key_of, rows))
        if len(after) < len(rows):
            raise self._twice(rows)
        gone = [key for key in before if key not in after]
        return Outcome(upserts=rows, deletes=gone, fresh=frozenset(after - before), left_out=left_out)

    def _made(self, versions: Mapping[Key, Row | None]) -> tuple[dict[Key, Row], list[tuple[Key, str]]]:
        """The rows that are made of the versions of some keys, and the keys of those that fail."""
        there = [(key, version) for key, version in versions.items() if version is not None]
        made, failed = self._compute(self._relation.rows([version for _, version in there]))
        rows = {there[place][0]: self._with_key(row, there[place][0]) for place, row in made.items()}
        return rows, [(there[each.place][0], each.reason) for each in failed]

    def _key(self, key: Key) -> Key:
        """The key of the view's row that is made of the source's row with this key."""
        if self._hidden:
            return key_of_source(key)
        values = dict(zip(key_of_rows(self._source), key if isinstance(key, tuple) else (key,), strict=True))
        parts = tuple(values[column] for column in self._source_key)
        return parts[0] if len(parts) == 1 else parts

    def _shown(self, key: Key) -> str:
        """A row of the source as it is told of."""
        return f"{STREAM_KEY} = {key!r}" if self._source.is_bucket else shown_key(self._source, key)

    def _with_key(self, row: Row, key: Key) -> Row:
        """A row with its hidden key, if it has one."""
        if not self._hidden:
            return row
        if self._key_places:
            return (*row, hidden_key([row[place] for place in self._key_places]))
        return (*row, key_of_source(key))

    def _compute(self, rows: pa.Table) -> Computed:
        if not rows.num_rows:
            return {}, []
        places = pa.array(range(rows.num_rows), pa.int32())
        found, failed = self._computed.run_each(rows.append_column(_PLACE_FIELD, places), self._checked)
        made: dict[int, Row] = {}
        for part in found:
            made.update(zip(part.column(0).to_pylist(), from_arrow(part.drop_columns([PLACE])), strict=True))
        return made, failed

    def _checked(self, result: pa.Table) -> pa.Table:
        """The result in the types of the view's columns; raises InvalidValue for a value that does not fit."""
        schema = pa.schema([_PLACE_FIELD, *self._result])
        return fitted(result, schema)

    def _twice(self, rows: Iterable[Row]) -> Stopped:
        """Why the view stops: two rows have one key."""
        seen: set[Any] = set()
        for row in rows:
            key = self._view.key_of(row)
            if key in seen:
                return duplicate(self._view, row)
            seen.add(key)
        raise AssertionError("no key comes twice")


def _of_events(failed: Sequence[Failed], change: Changes) -> list[LeftOut]:
    return [LeftOut(f"seq {change.batch.seqs[each.place]}", each.reason) for each in failed]


def duplicate(view: Table, row: Row) -> Stopped:
    """Why a view stops in which two rows have the key of this one."""
    names = view.view_options.key
    places = {column.name: place for place, column in enumerate(view.columns)}
    shown = ", ".join(f"{name} = {row[places[name]]!r}" for name in names if name in places)
    return Stopped(f"key: two rows have {shown}", TWICE)
