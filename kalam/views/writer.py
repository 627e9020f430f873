"""What becomes of a view, written: its rows, how far it has read, and what its method remembers, in one transaction.

A row that is there already as it is to be is not written again, so the feed tells what has changed and nothing else. A
row that no event could carry is left out, as one that could not be computed.
"""

from __future__ import annotations

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from typing import Final, Protocol

import msgspec
import pyarrow as pa
from msgspec.structs import replace

from kalam.errors import InvalidValue, KalamError, TooLarge
from kalam.query.composed import quoted
from kalam.query.executor import BoundQuery, Wanted
from kalam.query.queries import Queries
from kalam.rows.keys import keys_in, shown_key
from kalam.rows.types import Row
from kalam.schema import Table
from kalam.sql.text.statements import QueryText
from kalam.storage.log.copies import Key, View
from kalam.storage.log.copy_store import CopyStore
from kalam.storage.log.crash import crash_point
from kalam.storage.log.view_positions import Position, ViewState, write_positions, write_state
from kalam.storage.segments.key_rows import KeyedRows
from kalam.table_options import How
from kalam.tables.kinds import Source
from kalam.tables.stored import StoredTables
from kalam.threads import beside
from kalam.views.known_rows import Former, KnownRows, Whole
from kalam.views.matching import Matching
from kalam.views.method import LeftOut, Outcome

KNOWN_BYTES_MAX: Final = 8 << 20
"""What a view that is kept by its groups knows of its rows, which other ones change again less often."""


class Progress(msgspec.Struct, frozen=True):
    """What is written beside the rows: positions, and the state of the view."""

    positions: Sequence[Position]
    state: ViewState


class Written(Protocol):
    """The rows of one view, which are changed by outcomes."""

    async def write(self, outcome: Outcome, progress: Progress) -> tuple[ViewState, list[LeftOut]]:
        """Write an outcome; the state that was written, and what had to be left out besides."""

    async def rows(self) -> Source:
        """What a query reads of the view now."""

    async def is_empty(self) -> bool:
        """Whether nothing was ever written."""

    async def others(self, keys: Collection[Key]) -> list[Key]:
        """The keys of all rows but these."""


class Fitting(ABC):
    """Writes outcomes without the rows that no event can carry."""

    def __init__(self, view: Table, stored: StoredTables) -> None:
        self._view, self._stored = view, stored

    async def write(self, outcome: Outcome, progress: Progress) -> tuple[ViewState, list[LeftOut]]:
        """Write an outcome; the state that was written, and what had to be left out besides.

        Raises Stopped where a key that has to be new is there, and what the disk says.
        """
        try:
            return await self._write(outcome, progress), list(outcome.left_out)
        except (TooLarge, InvalidValue):  # a row that no event can carry; nothing is written
            fitting, unfit = await beside(len(outcome.upserts), self._fitting, outcome)
            if not unfit:
                raise
        left_out = [*outcome.left_out, *unfit]
        return await self._write(replace(fitting, left_out=left_out), progress), left_out

    @abstractmethod
    async def _write(self, outcome: Outcome, progress: Progress) -> ViewState:
        """Write an outcome, all of it; raises TooLarge and InvalidValue before anything is written."""

    def _fitting(self, outcome: Outcome) -> tuple[Outcome, list[LeftOut]]:
        """The outcome without rows that no event can carry, which leave the view."""
        kept: list[Row] = []
        gone: list[Key] = []
        unfit: list[LeftOut] = []
        for row in outcome.upserts:
            try:
                self._stored.statement(self._view, [row])
            except KalamError as exc:
                gone.append(self._view.key_of(row))
                unfit.append(LeftOut(shown_key(self._view, gone[-1]), f"{exc.code}: {exc.kind}"))
            else:
                kept.append(row)
        return replace(outcome, upserts=kept, deletes=[*outcome.deletes, *gone]), unfit


class Writer(Fitting):
    """Writes the rows of one view into its copy; a Written."""

    def __init__(self, view: Table, stored: StoredTables, store: CopyStore, queries: Queries) -> None:
        super().__init__(view, stored)
        self._store, self._queries = store, queries
        self.known_rows = KnownRows(KNOWN_BYTES_MAX if view.view_options.how is How.AGGREGATING else 0)

    async def rows(self) -> Source:
        """A view of the copy."""
        return await self._stored.view(self._view, "")

    async def is_empty(self) -> bool:
        """Whether the copy was never written."""
        view = await self._stored.view(self._view, "")
        return view is None or not view.last_seq

    async def others(self, keys: Collection[Key]) -> list[Key]:
        """The keys of all rows but these; they are asked for where they are not known."""
        view = await self._stored.view(self._view, "")
        if view is None:
            return []
        known = await beside(len(keys), self.known_rows.others, view.last_seq, keys)
        if known is not None:
            return known
        found, count = await keys_where(self._queries, self._view, view, "true", without=keys)
        self.known_rows.counted(view.last_seq, count)
        return found

    async def _write(self, outcome: Outcome, progress: Progress) -> ViewState:
        state = replace(progress.state, failed=progress.state.failed + len(outcome.left_out))

        def also(conn: sqlite3.Connection, last_seq: int = 0, updated_us: int = 0) -> None:
            write_positions(conn, self._view.table_id, progress.positions)
            write_state(conn, self._view.table_id, state)
            if outcome.remember is not None:
                outcome.remember(conn)

        crash_point("view.before_write")
        matching = Matching(self._view, outcome, self, self._stored.changes)
        changed = await self._stored.change(self._view, "", matching.match, also=also)
        if changed.matched is None:
            await self._store.database.write(also)
        else:
            self.known_rows.wrote(changed.matched.changes or (), changed.last_seq, changed.updated_us)
        crash_point("view.after_write")
        if outcome.committed is not None:
            outcome.committed()
        return state

    def whole(self, view: View, keys: Sequence[Key]) -> Whole | None:
        """The rows that have these keys where they, and no others, were written together last; None for otherwise."""
        return self.known_rows.whole(view.last_seq, keys)

    def known(self, view: View, keys: Sequence[Key]) -> list[Former]:
        """The rows that have these keys in this state of the copy, as far as they were written or read last."""
        return self.known_rows.find(view.last_seq, keys)

    async def there(self, view: View, keys: Sequence[Key]) -> KeyedRows:
        """The rows that have these keys now."""
        found = await self._queries.rows_by_key(self._stored, self._view, "", view, keys)
        await beside(len(keys), self._learn, keys, found)
        return found

    def _learn(self, keys: Sequence[Key], found: KeyedRows) -> None:
        there = {self._view.key_of(each.row): each for each in found.rows}
        self.known_rows.learn(found.seen_seq, dict.fromkeys(keys) | there)


async def keys_where(
    queries: Queries, view: Table, rows: Source, condition: str, without: Collection[Key] = ()
) -> tuple[list[Key], int]:
    """The keys of the rows of a view for which a condition holds, without some; and how many rows these are in all."""
    name = view.name
    text = f'SELECT {quoted(view.key)} FROM "{name.namespace}"."{name.table}" WHERE {condition}'  # noqa: S608 - ours
    relations = {(name, False): queries.relation(view, "", rows)}
    keys: list[Key] = []
    count = 0
    async for part in queries.stream_bound(BoundQuery(QueryText(text), [], relations), Wanted(user=view.owned_by)):
        count += part.num_rows
        keys += await beside(part.num_rows, _keys_without, part, without)
    return keys, count


def _keys_without(part: pa.Table, without: Collection[Key]) -> list[Key]:
    return [key for key in keys_in(part.columns) if key not in without]
