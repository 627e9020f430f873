"""Aggregating views: GROUP BY over one source, kept by its groups.

Law: a row of the view is made of one group, and the groups are those of the source's rows at the position. A change
takes the old row's share away and adds the new one's; of a stream nothing is taken away. Where a greatest or least
value is taken away, the source is asked again for the touched groups together: at the position, which is what it has
now without what has come since. A group whose value is out of range, or on which an expression fails, has no row until
that is over.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from functools import partial
from operator import add
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kalam.errors import InvalidValue, TooLarge
from kalam.names import TableName
from kalam.query.composed import quoted
from kalam.query.computed import ComputeProcess
from kalam.query.executor import BoundQuery, Wanted
from kalam.query.queries import Queries
from kalam.query.wire import Around
from kalam.rows.columns import arrow_schema
from kalam.rows.keys import keys_in, shown_key
from kalam.rows.types import Row
from kalam.schema import VIEW_KEY, Key, Table
from kalam.sql.text.statements import QueryText
from kalam.table_options import How
from kalam.tables.kinds import Source
from kalam.tables.versions import ChangeBatch
from kalam.threads import Purpose, in_thread
from kalam.views.arrived import Arrived, Gathered
from kalam.views.group_memory import GroupMemory
from kalam.views.group_queries import SLOT_FIELD, GroupQueries
from kalam.views.groups import GroupTable
from kalam.views.groups.batch import Ints
from kalam.views.keys import hidden_key, hidden_keys
from kalam.views.method import Changes, LeftOut, Outcome, Stopped
from kalam.views.parts import together
from kalam.views.relation import Relation, names_read
from kalam.views.result_types import fitted
from kalam.views.retention import Retention
from kalam.views.shape import Grouped
from kalam.views.shape.classified import PLACE, RELATION_NAMESPACE
from kalam.views.sight import EVERYTHING, Sight
from kalam.views.signed import Signed
from kalam.views.stale_rows import Gathers, StaleRows

FILL_ROWS = 8_192
Gatherer = TypeVar("Gatherer", bound="Gathers")
Reread = Callable[[int], Awaitable[tuple[Table, Source, ChangeBatch]]]
"""The source now, as a table and its rows, and its changes since a position, which lead to that."""


class Aggregating:
    """Keeps one view up; a Method."""

    how = How.AGGREGATING

    def __init__(
        self,
        view: Table,
        source: Table,
        grouped: Grouped,
        *,
        queries: Queries,
        process: ComputeProcess,
        memory: GroupMemory | None,
        reread: Reread,
        groups_max: int,
        sight: Sight = EVERYTHING,
    ) -> None:
        self._view, self._source, self._grouped = view, source, grouped
        self._queries, self._memory, self._reread, self._groups_max = queries, memory, reread, groups_max
        self._sight = sight
        self._relation = Relation.of(source, names_read(view, source))
        self._rows_text = grouped.rows_text(with_place=False)
        self._computed = GroupQueries(grouped, source, self._relation, process)
        self._hidden = VIEW_KEY in view.key
        self._result = arrow_schema(view.shown_columns)
        names = [column.name for column in view.shown_columns]
        self._key_numbers = [] if self._hidden else [grouped.key_places.index(names.index(name)) for name in view.key]
        self._key_types = [] if self._hidden else [self._result.field(name).type for name in view.key]
        self._retention = Retention(view)
        self._groups: GroupTable | None = None
        self._gathered: list[Gathered] = []
        self._just_filled = False
        self._careful = False
        self._failing: set[Key] = set()

    async def open(self) -> None:
        """Read the groups as they were written last; who has just been filled has them, and a view in memory always."""
        self._gathered.clear()
        just_filled, self._just_filled = self._just_filled, False
        if self._memory is not None and not just_filled:
            self._groups = await in_thread(Purpose.LIVE, self._remembered, self._memory)

    def _remembered(self, memory: GroupMemory) -> GroupTable:
        groups = self._computed.table(self._groups_max)
        for chunk in memory.read():
            groups.load(chunk)
        return groups

    async def close(self) -> None:
        """The process lets go of the plans."""
        self._computed.close()

    async def fill(self, sources: Mapping[TableName, Source]) -> AsyncIterator[Outcome]:
        """The rows of the view over one state of the source; what was known of the groups is forgotten."""
        self._just_filled = False
        groups, left_out = await in_thread(Purpose.LIVE, self._computed.table, self._groups_max), list[LeftOut]()
        if self._source.name in sources:
            with _stopping():
                groups, left_out = await self._filled(sources[self._source.name], groups)
        self._groups = groups
        self._gathered.clear()
        self._failing.clear()
        slots = groups.all_slots()
        for start in range(0, max(len(slots), 1), FILL_ROWS):
            yield await in_thread(Purpose.LIVE, self._of_filled, slots, start, [] if start else left_out)
        self._just_filled = True

    def _of_filled(self, slots: Ints, start: int, left_out: list[LeftOut]) -> Outcome:
        """The rows of some of the groups; with the first ones goes what is remembered of all."""
        chunk = None if start or self._memory is None else self._known.dump(slots)
        return self._outcome(slots[start : start + FILL_ROWS], left_out, chunk, whole=True)

    async def _filled(self, source: Source, groups: GroupTable) -> tuple[GroupTable, list[LeftOut]]:
        """The groups of a source, of which nothing is known yet, and the rows that fail.

        The engine gathers them where it reads. Where a row fails that, or it is too much for it, each row is taken by
        itself.
        """
        try:
            if not self._careful:
                if await self._gather(source, groups, careful=False):
                    return groups, []
                self._careful = True  # from now on, for it will be so again
                groups = await in_thread(Purpose.LIVE, self._computed.table, self._groups_max)
            await self._gather(source, groups, careful=True)
        except (InvalidValue, TooLarge):
            groups = await in_thread(Purpose.LIVE, self._computed.table, self._groups_max)
            return groups, await self._each_of(source, groups)
        return groups, []

    async def _gather(self, source: Source, groups: GroupTable, *, careful: bool) -> bool:
        """Have the engine gather the rows of a source; False where the plain way is not exact."""
        gathering, rest = groups.gathering(careful=careful), dict[int, int]()
        async with aclosing(
            together(self._stream(self._rows_text, source, gathering.groups_text()), FILL_ROWS)
        ) as parts:
            async for part in parts:
                if not gathering.is_exact(part):
                    return False
                rest |= await in_thread(Purpose.LIVE, groups.merge, part)
        texts = [gathering.distinct_text(number) for number in gathering.distinct]
        texts += [gathering.rest_text(rest)] if rest else []
        for text in texts:
            async for part in self._stream(self._rows_text, source, text):
                await in_thread(Purpose.LIVE, groups.complete, part)
        return True

    async def _rows_of(self, source: Source, begin: Callable[[], Gatherer]) -> Gatherer:
        """All rows of a source in a gatherer, but for those that fail."""
        gatherer = await in_thread(Purpose.LIVE, begin)
        try:
            async for part in self._stream(self._rows_text, source):
                await in_thread(Purpose.LIVE, gatherer.take, part)
        except InvalidValue:
            gatherer = await in_thread(Purpose.LIVE, begin)
            await self._each_of(source, gatherer)
        return gatherer

    async def _each_of(self, source: Source, gatherer: Gathers) -> list[LeftOut]:
        """Each row of a source by itself in a gatherer; those that fail."""
        left_out: list[LeftOut] = []
        name = self._source.name
        wanted = dict.fromkeys((*self._relation.schema.names, *self._source.key))
        text = f'SELECT {quoted(wanted)} FROM "{name.namespace}"."{name.table}"'  # noqa: S608 - names of a table
        async for part in self._stream(text, source):
            for start in range(0, part.num_rows, FILL_ROWS):
                left_out += await in_thread(Purpose.LIVE, self._each, part.slice(start, FILL_ROWS), gatherer)
        return left_out

    def _each(self, part: pa.Table, gatherer: Gathers) -> list[LeftOut]:
        rows, failed = self._computed.rows(part.select(self._relation.schema.names).cast(self._relation.schema))
        gatherer.take(rows)
        keys = keys_in([part.column(name) for name in self._source.key])
        return [LeftOut(shown_key(self._source, keys[each.place]), each.reason) for each in failed]

    async def _stream(self, text: str, source: Source, around: str | None = None) -> AsyncGenerator[pa.Table, None]:
        guard = self._sight.guard(self._source)
        relation = self._queries.relation(self._source, self._sight.user, source, guard=guard)
        asked = None if around is None else Around(RELATION_NAMESPACE, "rows", around)
        bound = BoundQuery(QueryText(text), [], {(self._source.name, False): relation}, around=asked)
        async with aclosing(self._queries.stream_bound(bound, Wanted(user=self._view.owned_by))) as parts:
            async for part in parts:
                yield part

    async def gather(self, changes: Changes) -> None:
        """Count changes of the source in; their groups are made rows of with those of the next ``change``."""
        self._read_as(changes.source)
        await in_thread(Purpose.LIVE, self._count, changes)

    def _count(self, changes: Changes) -> None:
        with _stopping():
            self._gathered.append(self._taken(changes))

    async def change(self, changes: Sequence[Changes]) -> Outcome:
        """What follows from changes of the source."""
        [change] = changes
        self._read_as(change.source)
        followed = await in_thread(Purpose.LIVE, self._followed, change)
        if isinstance(followed, Outcome):
            return followed
        arrived, touched, left_out = followed.arrived, followed.touched, followed.left_out
        stale = self._known.stale
        if len(stale):
            await self._remake(change.last_seq)
            touched = np.union1d(touched, stale)
        if self._retention.is_due():
            touched = np.union1d(touched, await in_thread(Purpose.LIVE, self._expired, touched))
        return await in_thread(Purpose.LIVE, self._of_touched, touched, left_out, arrived)

    def _followed(self, change: Changes) -> Outcome | Gathered:
        """What follows from changes, or what they bring to the groups where that is not all."""
        self._count(change)
        found = Gathered.of(self._gathered)
        self._gathered.clear()
        if len(self._known.stale) or self._retention.is_due():
            return found
        return self._of_touched(found.touched, found.left_out, found.arrived)

    def _of_touched(self, touched: Ints, left_out: list[LeftOut], arrived: Arrived) -> Outcome:
        """What follows where all is known of the groups that changed."""
        groups, chunk, whole = self._known, None, False
        if not len(touched):
            return Outcome(left_out=left_out)
        if self._memory is not None:
            whole = self._memory.is_long(len(groups))
            chunk = groups.dump(groups.all_slots() if whole else touched)
        return self._outcome(touched, left_out, chunk, arrived, whole=whole)

    def _read_as(self, source: Table) -> None:
        """Read versions of the source as it is now: an ALTER may have put its columns elsewhere."""
        if source.schema_version != self._source.schema_version:
            self._source, self._relation = source, Relation.of(source, names_read(self._view, source))
            self._computed.read_anew(source, self._relation)

    @property
    def _known(self) -> GroupTable:
        assert self._groups is not None
        return self._groups

    def _taken(self, change: Changes) -> Gathered:
        weights = change.signed.weights
        rows, failed = self._computed.rows(change.signed.rows(self._relation))
        places = rows[PLACE].to_numpy()
        slots, came = self._known.take(rows, weights[places]), weights[places] > 0
        new = [each for each in failed if weights[each.place] > 0]
        versions = change.signed.versions if new else []
        return Gathered(
            Arrived(slots[came], places[came]),
            np.unique(slots),
            [LeftOut(self._called(change, versions[each.place], each.place), each.reason) for each in new],
            len(weights),
        )

    def _called(self, change: Changes, version: Row, place: int) -> str:
        """What tells a row of the source from others."""
        return (
            shown_key(self._source, self._source.key_of(version))
            if change.retracts
            else f"seq {change.batch.seqs[place]}"
        )

    async def _remake(self, seq: int) -> None:
        """Make stale groups anew of what the source was at this position."""
        groups = self._known
        table, source, since = await self._reread(seq)
        self._read_as(table)
        stale = await self._rows_of(source, lambda: StaleRows(groups))
        await in_thread(Purpose.LIVE, self._remade, stale, since)

    def _remade(self, stale: StaleRows, since: ChangeBatch) -> None:
        """Take away again what has come since."""
        signed = Signed.of(since, retracts=True)
        rows, _ = self._computed.rows(signed.rows(self._relation))
        stale.take(rows, -signed.weights[rows[PLACE].to_numpy()])
        stale.remake()

    def _outcome(
        self,
        slots: Ints,
        left_out: list[LeftOut],
        chunk: pa.RecordBatch | None,
        arrived: Arrived | None = None,
        *,
        whole: bool = False,
    ) -> Outcome:
        """What becomes of the rows of these groups, and of what is remembered."""
        groups = self._known
        gone = groups.gone(slots)
        there, rows, reasons = self._rows(_without(slots, gone))
        if self._hidden:
            rows = list(map(add, rows, zip(self._keys(there), strict=True)))
        deletes = [] if len(there) == len(slots) else self._keys(_without(slots, there))
        failing = dict(zip(self._keys(np.array(list(reasons), np.int64)), reasons.values(), strict=True))
        new = [LeftOut(_told(key), why) for key, why in failing.items() if key not in self._failing]
        right = [*deletes, *map(self._view.key_of, rows)] if self._failing else []
        groups.forget(gone)
        memory = self._memory
        return Outcome(
            upserts=rows,
            deletes=deletes,
            left_out=[*left_out, *new],
            remember=None if chunk is None or memory is None else memory.written(chunk, whole=whole),
            came=None if arrived is None else partial(self._came, arrived, there, rows),
            committed=partial(self._committed, failing, right, chunk, whole=whole),
        )

    def _committed(
        self, failing: Collection[Key], right: Sequence[Key], chunk: pa.RecordBatch | None, *, whole: bool
    ) -> None:
        """Take note of what is written: which groups fail, for what was not written is told again."""
        self._failing.difference_update(right)
        self._failing.update(failing)
        if chunk is not None and self._memory is not None:
            self._memory.committed(chunk, whole=whole)

    def _came(self, arrived: Arrived, slots: Ints, rows: Sequence[Row], keys: Sequence[Key]) -> int:
        """How many rows of the source came to those of these rows that have these keys."""
        slot_of = dict(zip(map(self._view.key_of, rows), slots.tolist(), strict=True))
        return arrived.count([slot_of[key] for key in keys])

    def _rows(self, slots: Ints) -> tuple[Ints, list[Row], dict[int, str]]:
        """The slots of the groups that are shown, their rows without a hidden key, and why a group fails, by slot."""
        values = self._known.values(slots)
        parts, failed = self._computed.results(values.rows, self._checked)
        there = [slots[:0]]
        rows: list[Row] = []
        for part in parts:
            every = pc.all(part["_shown"], skip_nulls=False).as_py()
            shown = part if every else part.filter(part["_shown"])
            there.append(shown[PLACE].to_numpy())
            rows += self._computed.as_rows(shown.drop_columns(["_shown", PLACE]), self._known, there[-1])
        places = values.rows[PLACE]
        return np.concatenate(there), rows, values.failed | {places[each.place].as_py(): each.reason for each in failed}

    def _expired(self, touched: Ints) -> Ints:
        """Groups whose time is over: they are empty now. One that was touched is told as late first."""
        groups = self._known
        there, rows, _ = self._rows(_without(groups.all_slots(), touched))
        past = there[np.fromiter(map(self._retention.is_past, rows), np.bool_, len(rows))]
        groups.empty(past)
        return past

    def _keys(self, slots: Ints) -> list[Key]:
        """The keys of the view's rows that are made of these groups."""
        if not len(slots):
            return []
        if self._hidden:
            return self._known.named(slots, hidden_keys)
        columns = self._known.key_columns(slots)
        values = [
            columns[f"_k{number}"].cast(kind).to_pylist()
            for number, kind in zip(self._key_numbers, self._key_types, strict=True)
        ]
        return values[0] if len(values) == 1 else list(zip(*values, strict=True))

    def _checked(self, result: pa.Table) -> pa.Table:
        """The result in the types of the view's columns; raises InvalidValue for a value that does not fit."""
        schema = pa.schema([*self._result, pa.field("_shown", pa.bool_()), SLOT_FIELD])
        return fitted(result, schema)


@contextmanager
def _stopping() -> Iterator[None]:
    """A view that would grow past its bounds stops: that does not pass by itself."""
    try:
        yield
    except TooLarge as exc:
        raise Stopped(f"{exc.detail}; {exc.fields.get('hint', '')}") from exc


def _without(slots: Ints, some: Ints) -> Ints:
    """The slots without some of them."""
    return slots[~np.isin(slots, some)] if len(some) else slots


def _told(key: Key) -> str:
    return key if isinstance(key, str) else hidden_key(key if isinstance(key, tuple) else (key,))
