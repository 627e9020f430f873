"""What becomes of a view, written: its rows, how far it has read, and what its method remembers, in one transaction.

A row that is there already as it is to be is not written again, so the feed tells what has changed and nothing else. A
row that no event could carry is left out, as one that could not be computed.
"""

from __future__ import annotations

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol

import msgspec
from msgspec.structs import replace

from kalam.errors import InvalidValue, KalamError, TooLarge
from kalam.query.queries import Queries
from kalam.rows.keys import shown_key
from kalam.rows.shown import differs
from kalam.rows.types import Row
from kalam.schema import Table
from kalam.storage.log.copies import Key, View
from kalam.storage.log.copy_store import CopyStore
from kalam.storage.log.crash import crash_point
from kalam.storage.log.view_positions import Position, ViewState, write_positions, write_state
from kalam.storage.segments.cold_keys import KeyedRow
from kalam.storage.segments.key_rows import KeyedRows
from kalam.tables.kinds import Source
from kalam.tables.matched import Matched
from kalam.tables.stored import StoredTables
from kalam.threads import beside
from kalam.views.method import LeftOut, Outcome
from kalam.views.row_wise import duplicate


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

    async def rows(self) -> Source:
        """A view of the copy."""
        return await self._stored.view(self._view, "")

    async def is_empty(self) -> bool:
        """Whether the copy was never written."""
        view = await self._stored.view(self._view, "")
        return view is None or not view.last_seq

    async def _write(self, outcome: Outcome, progress: Progress) -> ViewState:
        state = replace(progress.state, failed=progress.state.failed + len(outcome.left_out))

        def also(conn: sqlite3.Connection, last_seq: int = 0, updated_us: int = 0) -> None:
            write_positions(conn, self._view.table_id, progress.positions)
            write_state(conn, self._view.table_id, state)
            if outcome.remember is not None:
                outcome.remember(conn)

        crash_point("view.before_write")
        changed = await self._stored.change(self._view, "", Matching(self._view, outcome, self).match, also=also)
        if changed.matched is None:
            await self._store.database.write(also)
        crash_point("view.after_write")
        if outcome.committed is not None:
            outcome.committed()
        return state

    async def there(self, view: View, keys: Sequence[Key]) -> KeyedRows:
        """The rows that have these keys now."""
        return await self._queries.rows_by_key(self._stored, self._view, "", view, keys)


class There(Protocol):
    """Finds rows."""

    async def there(self, view: View, keys: Sequence[Key]) -> KeyedRows:
        """The rows that have these keys now."""


class Matching:
    """Finds what an outcome changes; the second look, after others have changed rows, takes nothing for granted."""

    def __init__(self, table: Table, outcome: Outcome, writer: There) -> None:
        self._table, self._outcome, self._writer = table, outcome, writer
        self._looked = False

    async def match(self, table: Table, view: View) -> Matched:
        """The rows that are there, and what they become."""
        outcome = self._outcome
        appends, self._looked = outcome.appends and not self._looked, True
        if appends:
            return _matched([], None, view.last_seq, outcome.upserts)
        news, keys = await beside(len(outcome.upserts) + len(outcome.deletes), self._wanted)
        found = await self._writer.there(view, keys)
        return await beside(len(news) + len(found.rows), self._changed, news, found)

    def _wanted(self) -> tuple[dict[Key, Row], list[Key]]:
        """The rows that are to be there, by their keys, and every key that is concerned."""
        news = {self._table.key_of(row): row for row in self._outcome.upserts}
        return news, [*news, *(key for key in self._outcome.deletes if key not in news)]

    def _changed(self, news: dict[Key, Row], found: KeyedRows) -> Matched:
        updated: list[KeyedRow] = []
        removed: list[KeyedRow] = []
        rows: list[Row] = []
        for there in found.rows:
            key = self._table.key_of(there.row)
            new = news.pop(key, None)
            if new is None:
                removed.append(there)
                continue
            if key in self._outcome.fresh:
                raise duplicate(self._table, there.row)
            if any(map(differs, there.row, new)):
                updated.append(there)
                rows.append(new)
        of_removed = _matched(removed, None, found.seen_seq, ()) if removed else None
        return replace(_matched(updated, rows, found.seen_seq, list(news.values())), removed=of_removed)


def _matched(olds: Sequence[KeyedRow], news: Sequence[Row] | None, seen_seq: int, inserts: Sequence[Row]) -> Matched:
    return replace(Matched.of_keyed(KeyedRows(list(olds), seen_seq), news), inserts=inserts)
