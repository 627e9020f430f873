"""The rows of SHARED and USER tables, as whoever takes, reads and changes rows meets them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial

from kalam.errors import DuplicateKey, KalamError, Unsupported
from kalam.names import TableName
from kalam.rows.columns import changed_rows
from kalam.rows.keys import shown_key
from kalam.rows.types import Row
from kalam.schema import SEQ, Table
from kalam.storage.log.catalogue import Catalogue
from kalam.storage.log.copies import Key, View
from kalam.storage.log.inserts import AllInserted, Inserted
from kalam.storage.log.times import from_us
from kalam.tables.insert_batch import Answer, Batch, Tally
from kalam.tables.kinds import WHOLE_SCAN, Removal, Removed, Scan, Source, TakenRows, Verb
from kalam.tables.matched import Matched, queried_columns
from kalam.tables.ports import ReplayPort
from kalam.tables.replay import Past, Replay, replay_of_copy
from kalam.tables.stored import StoredTables
from kalam.tables.storing import Storing
from kalam.threads import beside
from kalam.tracing import batch_span, current_trace, span


class StoredRows:
    """Rows of tables that are stored; a Rows."""

    ordered = False
    seq_column = SEQ

    def __init__(self, tables: StoredTables, catalogue: Catalogue, feed: ReplayPort) -> None:
        self._tables = tables
        self._past = Past(feed, tables.logged, catalogue.history)

    def stored(self, table: Table, verb: Verb) -> StoredTables:
        """Every verb is for them."""
        return self._tables

    def check_writable(self, table: Table) -> None:
        """Rows are taken."""

    async def take_batch(self, table: Table, users: Sequence[str], batch: Batch, tally: Tally) -> list[Answer]:
        """Store the messages of one user."""
        await self._tables.room.wait(table)
        with batch_span("kalam.commit", batch.spans, table=str(table.name), rows=len(batch.rows)):
            return await Storing(self._tables, table, users[0], batch, tally).run()

    async def take_rows(self, table: Table, user: str, rows: Sequence[Row]) -> TakenRows:
        """Store the rows of a statement, all or none."""
        if not rows:
            return TakenRows()
        await self._tables.room.wait(table)
        statement = await beside(len(rows), self._tables.statement, table, rows, trace=current_trace())
        with span("kalam.commit", table=str(table.name), rows=len(rows)):
            outcomes = await self._tables.insert(table, user, [statement])
        assert not isinstance(outcomes, AllInserted)
        [outcome] = outcomes
        if isinstance(outcome, KalamError):
            raise outcome
        assert isinstance(outcome, Inserted)
        return TakenRows(updated_us=outcome.updated_us)

    def is_readable(self, table: Table) -> bool:
        """Always."""
        return True

    async def wait_readable(self, table: Table) -> None:
        """Nothing has to be waited for."""

    async def sources(
        self, tables: Mapping[TableName, Table], user: str, *, with_key: bool, scan: Scan = WHOLE_SCAN
    ) -> Mapping[TableName, Source]:
        """Views of the copies that the user sees."""
        return await self._tables.views(tables, user)

    async def numbered(
        self, table: Table, user: str, *, with_key: bool, virtual: frozenset[str] = frozenset()
    ) -> tuple[Source, int]:
        """A view, which is numbered."""
        view = await self._tables.view(table, user)
        return view, view.last_seq if view else 0

    async def last_seq(self, table: Table, user: str) -> int:
        """The last change of the user's copy."""
        return (await self.numbered(table, user, with_key=False))[1]

    async def changes_since(self, table: Table, user: str, from_seq: int, told_seq: int) -> Replay:
        """The changes of the user's copy up to the last."""
        view = await self._tables.view(table, user)
        return await replay_of_copy(table, table.owner(user), view, from_seq, self._past)

    async def seq_before(self, table: Table, moment: datetime) -> int:
        """The changes are numbered and not timed; raises Unsupported."""
        raise Unsupported(f"from_time is for STREAM tables; {table.name} is none", hint="from_seq is for all of them")

    async def last_of_keys(self, table: Table, told_seq: int) -> Replay:
        """A row that is there is the last under its key; raises Unsupported."""
        raise Unsupported(f"last_per_key is for STREAM tables; {table.name} is none", hint="a live query has the rows")

    async def remove(self, table: Table, user: str, removal: Removal) -> Removed:
        """Mark rows as deleted."""

        async def match(table: Table, view: View) -> Matched:
            key = removal.key(table)
            found = None if key is None else await self._tables.rows_by_key(table, user, [key])
            if found is not None:
                matched = Matched.of_keyed(await removal.visible(table, found), None)
            else:
                data = await removal.pick(table, view, queried_columns(table))
                matched = await beside(data.num_rows, Matched.of_query, table, data, view.last_seq, None)
            olds = matched.olds
            await removal.check(table, len(olds), partial(changed_rows, table, olds, datetime.now(UTC), deleted=True))
            return matched

        done = await self._tables.change(table, user, match)
        olds = done.matched.olds if done.matched else []
        shown = partial(changed_rows, done.table, olds, from_us(done.updated_us), deleted=True)
        return Removed(done.table, len(olds), "row", shown)

    def check(self, table: Table, rows: Sequence[Row]) -> None:
        """Raise TooLarge and InvalidValue for what an event of a change cannot carry."""
        self._tables.statement(table, rows)

    async def taken(self, table: Table, user: str, rows: Sequence[Row], before: set[Key]) -> Mapping[int, DuplicateKey]:
        """Of rows whose key is there, in the table or among those ``before``, which the others are added to."""
        keys = list(map(table.key_of, rows))
        errors = await self._tables.taken(table, user, keys)
        for place in range(len(keys)):
            if keys[place] in before and place not in errors:
                key = shown_key(table, keys[place])
                errors[place] = DuplicateKey(f"key {key} comes twice in these rows", row=place + 1)
        before.update(key for place, key in enumerate(keys) if place not in errors)
        return errors
