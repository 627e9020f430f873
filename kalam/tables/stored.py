"""SHARED and USER tables: inserts, updates and deletes.

A statement is prepared outside the writer's thread (decode, look keys up in segments, read the rows that a WHERE
picks) and appended inside it, where it is checked against the newest state. If that state has moved on in a way that
matters, the statement is prepared again; so updates of one key by many writers give a serial result without holding a
lock while DataFusion works.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager

import msgspec
from msgspec.structs import replace

from kalam.errors import DuplicateKey, KalamError, TooBusy
from kalam.names import TableName
from kalam.rows.codec import Codecs
from kalam.rows.column_rows import ColumnRows
from kalam.rows.growing_keys import together
from kalam.rows.stored import pack_pieces
from kalam.rows.types import Row
from kalam.schema import Table
from kalam.storage.log.answers import known_answers, remember_answers
from kalam.storage.log.copies import EMPTY, EMPTY_VIEW, Chunk, Key, View
from kalam.storage.log.copy_store import CopyStore, read_chunks
from kalam.storage.log.inserts import InsertStatement, InsertTask, LoneRows, Outcomes, Statements
from kalam.storage.log.writes import Change, ChangeTask, ColdKeys, Remember, Stale, taken_keys
from kalam.storage.segments.cold_keys import ColdKeyIndex, may_meet
from kalam.storage.segments.folders import Folders
from kalam.storage.segments.key_rows import KeyedRows, KeyLookup, KeyRows
from kalam.tables.holds import Holds
from kalam.tables.matched import Matched, changes_of_old, inserts
from kalam.tables.outbox import Outbox
from kalam.tables.room import Room
from kalam.tables.runs import check_events
from kalam.threads import Purpose, beside, in_thread
from kalam.tracing import current_trace, span

TRIES_MAX = 1_000


class Bounds(msgspec.Struct, frozen=True):
    """The bounds of a write, from the settings of the same names."""

    row_bytes_max: int
    outbox_bytes_max: int


class Changed(msgspec.Struct, frozen=True):
    """What a statement changed: the table as it was then, the rows (None for none), and the time in microseconds.

    ``last_seq`` is the number of the last change. ``repeated`` is the answer to a statement that had been carried out
    before.
    """

    table: Table
    matched: Matched | None = None
    updated_us: int = 0
    last_seq: int = 0
    repeated: bytes | None = None


class Once(msgspec.Struct, frozen=True):
    """What makes a change idempotent: an id of its sender's, and the answer to keep, made of rows and last seq."""

    sender: str
    msg_id: str
    answer: Callable[[Matched, int], bytes]


class StoredTables:
    """Writes to SHARED and USER tables. ``user`` is always the session's; a SHARED table ignores it."""

    def __init__(
        self,
        store: CopyStore,
        codecs: Codecs,
        folders: Folders,
        cold_keys: ColdKeyIndex,
        outbox: Outbox,
        bounds: Bounds,
    ) -> None:
        self._store, self._codecs, self._folders = store, codecs, folders
        self._cold_keys, self._outbox, self._bounds = cold_keys, outbox, bounds
        self._changing: dict[tuple[int, str], asyncio.Lock] = {}
        self.room, self._holds = Room(), Holds()
        self._key_rows = KeyRows(store, cold_keys, folders)

    async def rows_by_key(
        self, table: Table, user: str, keys: Sequence[Key], columns: Collection[str] | None = None
    ) -> KeyedRows | None:
        """The rows with these keys as ``user`` sees them; None where only a query can tell.

        ``columns`` are those that are wanted, None for all; what is read from a segment has no others.
        """
        return await self._key_rows.find(table, table.owner(user), keys, columns)

    def lookup(self, table: Table, user: str, columns: Collection[str] | None = None) -> KeyLookup | None:
        """The same for single keys that are looked up in memory, while nothing else runs; None where it has none."""
        return self._key_rows.lookup(table, table.owner(user), columns)

    async def view(self, table: Table, user: str) -> View | None:
        """The newest state of the copy that ``user`` sees; None if it has never been written."""
        copy = await self._store.open(table, table.owner(user))
        if copy is None:
            self._store.catalogue.newest(table)  # one that was dropped meanwhile is not empty
        return copy.view if copy else None

    async def logged(self, table: Table, owner: str, seq: int, before_seq: int) -> list[Chunk]:
        """The chunks of the log, flushed ones too, that have changes from ``seq`` on and before ``before_seq``.

        Those of a change of any size come without their rows, as ``large``.
        """
        copy = await self._store.open(table, owner)
        return await in_thread(Purpose.LOOKUPS, self._read_log, copy.copy_id, seq, before_seq) if copy else []

    def _read_log(self, copy_id: int, seq: int, before_seq: int) -> list[Chunk]:
        with self._store.database.reading() as conn:
            condition = f"first_seq + row_count > {int(seq)} AND first_seq < {int(before_seq)}"
            return read_chunks(conn, copy_id, condition, staged_rows=False)

    async def views(self, tables: Mapping[TableName, Table], user: str) -> dict[TableName, View | None]:
        """The newest states of several copies, all of one moment; None for a copy that was never written."""
        while True:
            opened = {name: await self.view(table, user) for name, table in tables.items()}
            if len(opened) == 1:  # one copy is of one moment by itself
                return opened
            with self._store.database.snapshot_lock:  # held while a commit becomes visible
                views = {name: self.loaded_view(table, user) for name, table in tables.items()}
            # A copy that a failed transaction has just dropped from memory is loaded once more.
            if all(views[name] is not None or view is None for name, view in opened.items()):
                return views

    def loaded_view(self, table: Table, user: str) -> View | None:
        """The newest state of a copy, if it is in memory."""
        copy = self._store.loaded.get((table.table_id, table.owner(user)))
        return copy.view if copy else None

    def turn(self, table: Table, owner: str) -> asyncio.Lock:
        """The lock of whoever changes rows of a copy that are there."""
        return self._changing.setdefault((table.table_id, owner), asyncio.Lock())

    def holding_inserts(self, table: Table, owner: str) -> AbstractAsyncContextManager[None]:
        """Have inserts into a copy wait while the block runs; those that were handed in before it go on."""
        return self._holds.holding((table.table_id, owner))

    def statement(
        self,
        table: Table,
        rows: Sequence[Row],
        msg_id: str | None = None,
        sender: str = "",
        trace: str | None = None,
    ) -> InsertStatement:
        """One INSERT of these rows; raises TooLarge and InvalidValue for what an event cannot carry."""
        packed = pack_pieces(rows)
        self._check_rows(table, rows, packed)
        keys = rows.keys(table.key_places) if isinstance(rows, ColumnRows) else list(map(table.key_of, rows))
        return InsertStatement(keys, rows, packed, msg_id, sender, trace)

    def lone_rows(self, table: Table, rows: Sequence[Row]) -> LoneRows | None:
        """The same of rows of which each is an INSERT of its own; None where one of them may be wrong."""
        packed = pack_pieces(rows)
        try:
            self._check_rows(table, rows, packed)
        except KalamError:
            return None
        return LoneRows(list(map(table.key_of, rows)), rows, packed)

    def _check_rows(self, table: Table, rows: Sequence[Row], pieces: Sequence[bytes]) -> None:
        check_events(self._codecs.of(table), rows, pieces, self._bounds.row_bytes_max)

    def insert(
        self,
        table: Table,
        user: str,
        statements: Statements,
        answer: Callable[[InsertStatement, int], bytes] | None = None,
    ) -> Awaitable[Outcomes]:
        """Append the rows of each statement, all or none of it; the outcomes in order, after the commit.

        The task is queued before this returns whenever no segment may hold one of the keys, so inserts that are handed
        in one after another are committed in that order. LoneRows of which none is refused have one outcome.
        """
        self._outbox.check_room(self._bounds.outbox_bytes_max)
        owner = table.owner(user)
        held = self._holds.behind((table.table_id, owner), lambda: self.insert(table, user, statements, answer))
        if held is not None:
            return held
        copy = self._store.loaded.get((table.table_id, owner))
        keys = _all_keys(statements)
        if copy is None or not may_meet(copy.segments, keys):  # one that is not in memory is read by the writer
            epoch = None if copy is None else copy.epoch
            task = InsertTask(self._store, table, owner, statements, epoch=epoch, answer=answer)
            return self._insert_again(self._store.database.submit(task), table, owner, statements, answer)
        return self._insert_prepared(table, owner, statements, keys, answer)

    async def taken(self, table: Table, user: str, keys: Sequence[Key]) -> dict[int, DuplicateKey]:
        """Why keys are not free now, by their places."""
        return taken_keys(table, keys, *await self._versions(table, user, keys))

    async def _versions(self, table: Table, user: str, keys: Sequence[Key]) -> tuple[dict[Key, int], ColdKeys]:
        owner = table.owner(user)
        cold, _ = await self._look_up(table, owner, keys)
        copy = self._store.loaded.get((table.table_id, owner))
        if copy is None:
            return {}, cold
        found = ((key, copy.versions.get(key)) for key in keys)  # the writer changes it meanwhile: no loop over it
        return {key: version for key, version in found if version is not None}, cold

    async def _insert_again(
        self,
        first_try: Awaitable[Outcomes],
        table: Table,
        owner: str,
        statements: Statements,
        answer: Callable[[InsertStatement, int], bytes] | None,
    ) -> Outcomes:
        try:
            return await first_try
        except Stale:
            return await self._insert_prepared(table, owner, statements, _all_keys(statements), answer)

    async def _insert_prepared(
        self,
        table: Table,
        owner: str,
        statements: Statements,
        keys: Sequence[Key],
        answer: Callable[[InsertStatement, int], bytes] | None,
    ) -> Outcomes:
        for _ in range(TRIES_MAX):
            cold, epoch = await self._look_up(table, owner, keys)
            task = InsertTask(self._store, table, owner, statements, cold=cold, epoch=epoch, answer=answer)
            await self._holds.ended((table.table_id, owner))
            try:
                outcomes: Outcomes = await self._store.database.submit(task)
            except Stale:
                continue
            return outcomes
        raise TooBusy(f"table {table.name} changes faster than the statement can be prepared; try again")

    async def _look_up(self, table: Table, owner: str, keys: Sequence[Key]) -> tuple[ColdKeys, int]:
        copy = await self._store.open(table, owner)
        if copy is None:
            return EMPTY, 0
        view = copy.view
        if not may_meet(view.segments, keys):
            return EMPTY, view.epoch
        folder = self._folders.folder(table, owner)
        return await in_thread(Purpose.LOOKUPS, self._cold_keys.find, table, folder, view, keys), view.epoch

    async def change(
        self,
        table: Table,
        user: str,
        match: Callable[[Table, View], Awaitable[Matched]],
        once: Once | None = None,
        also: Remember | None = None,
    ) -> Changed:
        """Run an UPDATE, DELETE or upsert as one transaction.

        ``match`` reads the rows from a view of the table as it is when the statement has its turn; it is called again
        on newer ones when the rows or the table changed before the commit. With ``once`` it is carried out once; what
        ``also`` writes is in the transaction, where there is one.
        """
        self._outbox.check_room(self._bounds.outbox_bytes_max)
        owner = table.owner(user)
        await self.room.wait(table)
        async with self.turn(table, owner):
            for _ in range(TRIES_MAX):
                if once is not None:
                    answer = await in_thread(Purpose.LOOKUPS, self._answered, table, once)
                    if answer is not None:
                        return Changed(table, repeated=answer)
                view = await self.view(table, user) or EMPTY_VIEW
                table = self._store.catalogue.newest(table)
                matched = await match(table, view)
                rows = matched.count
                if not rows:
                    return Changed(table)
                changes = matched.changes
                if changes is None:
                    changes = await beside(rows, self.changes, table, matched)
                    matched = replace(matched, changes=changes)
                new_keys = [key for change in changes if change.op == "insert" for key in change.keys]
                cold, epoch = await self._look_up(table, owner, new_keys) if new_keys else (EMPTY, None)
                remember = also if once is None else _remembering(table, matched, once)
                seen_seq, trace = matched.seen_seq, current_trace()
                task = ChangeTask(self._store, table, owner, changes, seen_seq, cold, epoch, trace, remember)
                try:
                    with span("kalam.commit", table=str(table.name), rows=rows):
                        updated_us = await self._store.database.submit(task)
                    return Changed(table, matched, updated_us, task.last_seq)
                except Stale:
                    continue
                except DuplicateKey:
                    if not matched.inserts:
                        raise
        raise TooBusy(f"the rows of table {table.name} change faster than the statement can follow; try again")

    def _answered(self, table: Table, once: Once) -> bytes | None:
        name = once.sender, once.msg_id
        with self._store.database.reading() as conn:
            return known_answers(conn, table, [name]).get(name)

    def changes(self, table: Table, matched: Matched) -> list[Change]:
        """What becomes of matched rows, as changes of the log; raises TooLarge for what no event can carry."""
        changes: list[Change] = []
        if matched.olds:
            packed = [] if matched.news is None else pack_pieces(matched.news)
            self._check_rows(table, matched.news or (), packed)
            changes = changes_of_old(table, matched, packed)
        if matched.removed is not None and matched.removed.olds:
            changes += changes_of_old(table, matched.removed, [])
        if matched.inserts:
            packed = pack_pieces(matched.inserts)
            self._check_rows(table, matched.inserts, packed)
            changes += inserts(table, matched.inserts, packed)
        return changes


def _remembering(table: Table, matched: Matched, once: Once) -> Remember:
    def remember(conn: sqlite3.Connection, last_seq: int, updated_us: int) -> None:
        answers = {(once.sender, once.msg_id): once.answer(matched, last_seq)}
        remember_answers(conn, table, answers, updated_us)

    return remember


def _all_keys(statements: Statements) -> Sequence[Key]:
    if isinstance(statements, LoneRows):
        return statements.keys
    return together([statement.keys for statement in statements])
