"""The task that appends the changes that an UPDATE, DELETE or upsert makes, and what it shares with that of INSERTs.

Both (``inserts``) run in the writer's thread against the newest state, so what they check (is the key free? is the row
still the one that the statement saw?) stays true until the commit. What a check needs from segments is looked up
beforehand, outside this thread; ``Stale`` says that the segments or the rows have changed since, and the caller looks
again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from operator import neg
from typing import Any

import msgspec

from kalam.errors import Conflict, DuplicateKey
from kalam.rows.keys import shown_key
from kalam.rows.types import Row
from kalam.schema import Table
from kalam.storage.log.copies import EMPTY, Chunk, Copy, Key, Op
from kalam.storage.log.copy_store import CopyStore, write_chunk
from kalam.storage.log.database import now_us
from kalam.storage.log.hot_keys import HotKeys

ColdKeys = Mapping[Key, int]
"""The newest version of each key that lies in segments: its seq, negative for a deleted row."""

Traces = Sequence[tuple[int, str | None]]
"""How many rows of a chunk, one after another, belong to which ``traceparent``."""


class Stale(Conflict):
    """The state that a task was prepared against is not the newest any more; prepare it again."""

    code = "cancelled"


class Announcement(msgspec.Struct, frozen=True):
    """A chunk that has been committed, for the event feed, live queries and the flusher.

    ``rows`` and ``old_rows`` are those of the chunk where they were at hand, which saves decoding them again;
    ``traces`` the traces that they belong to, if any does.
    """

    table: Table
    copy: Copy
    chunk: Chunk
    rows: Sequence[Row] | None = None
    traces: Traces | None = None
    old_rows: Sequence[Row] | None = None


def taken_keys(
    table: Table, keys: Sequence[Key], versions: Mapping[Key, int] | HotKeys, cold: ColdKeys
) -> dict[int, DuplicateKey]:
    """Why a row cannot have its key, by its place: a row has it already, or one before it in these rows."""
    taken: dict[int, DuplicateKey] = {}
    seen: set[Key] = set()
    for place, key in enumerate(keys):
        if (versions.get(key) or cold.get(key) or 0) > 0:
            taken[place] = _has_already(table, key)
        elif key in seen:
            taken[place] = DuplicateKey(f"key {shown_key(table, key)} comes twice in these rows")
        seen.add(key)
    return taken


def _has_already(table: Table, key: Key) -> DuplicateKey:
    return DuplicateKey(f"table {table.name} has a row with {shown_key(table, key)} already")


def check_free(table: Table, keys: Sequence[Key], versions: HotKeys, cold: ColdKeys) -> bool:
    """Whether a row among ``keys`` supersedes a deleted one; raises DuplicateKey if a key is taken or comes twice."""
    distinct = set(keys)
    if len(distinct) < len(keys):
        seen: set[Key] = set()
        twice = next(key for key in keys if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise DuplicateKey(f"key {shown_key(table, twice)} comes twice in this statement")
    if versions.has_none(distinct) and not cold:
        return False
    superseding = False
    for key in keys:
        version = versions.get(key) or cold.get(key)
        if version is None:
            continue
        if version > 0:
            raise _has_already(table, key)
        superseding = True
    return superseding


class Change(msgspec.Struct):
    """Rows of one kind that a statement changes, with their keys.

    ``seqs`` are the versions that the statement saw, for an update or delete; ``packed`` holds the new rows (the
    deleted ones for a delete), ``old`` the former rows of an update, ``old_updated`` the times of the former versions.
    ``rows`` and ``old_rows`` are what is packed.
    """

    op: Op
    keys: Sequence[Key]
    packed: bytes
    rows: Sequence[Row]
    seqs: Sequence[int] = ()
    old: bytes | None = None
    old_updated: bytes | None = None
    old_rows: Sequence[Row] | None = None


Remember = Callable[[sqlite3.Connection, int, int], None]
"""Keeps an answer in the transaction of a change, of which it is given the last seq and the time."""


class ChangeTask(msgspec.Struct):
    """Appends the changes of one statement, all or none, if the rows it saw are still the newest."""

    store: CopyStore
    table: Table
    user: str
    changes: Sequence[Change]
    seen_seq: int
    cold: ColdKeys = msgspec.field(default_factory=lambda: EMPTY)
    epoch: int | None = None
    trace: str | None = None
    remember: Remember | None = None
    last_seq: int = 0
    cost: int = 0
    _copy: Copy | None = None
    _chunks: list[Chunk] = msgspec.field(default_factory=list)

    def __post_init__(self) -> None:
        self.cost = sum(len(change.keys) for change in self.changes)

    def apply(self, conn: sqlite3.Connection) -> Any:
        """Check and append; returns the time of the change, microseconds since 1970."""
        copy = self._copy = self.store.for_writing(conn, self.table, self.user)
        if not self.store.catalogue.is_newest(self.table):
            raise Stale("the table has been altered")
        superseding = self._check(copy)
        updated_us = now_us()
        self._chunks = []
        for change in self.changes:
            chunk = Chunk(
                first_seq=copy.last_seq + 1,
                row_count=len(change.keys),
                op=change.op,
                updated_us=updated_us,
                schema_version=self.table.schema_version,
                superseding=superseding or change.op != "insert",
                payload=change.packed,
                old=change.old,
                old_updated=change.old_updated,
            )
            write_chunk(conn, copy.copy_id, chunk)
            seqs = range(chunk.first_seq, chunk.last_seq + 1)
            copy.versions.update(zip(change.keys, map(neg, seqs) if change.op == "delete" else seqs, strict=True))
            copy.append(chunk)
            self._chunks.append(chunk)
        self.last_seq = copy.last_seq
        if self.remember is not None:
            self.remember(conn, self.last_seq, updated_us)
        return updated_us

    def _check(self, copy: Copy) -> bool:
        if copy.flushed_seq > self.seen_seq:
            raise Stale("rows have been flushed")
        released: set[Key] = set()
        for change in self.changes:
            if change.op == "insert":
                continue
            versions = copy.versions.of(change.keys)
            if versions != change.seqs:
                for key, version, seq in zip(change.keys, versions, change.seqs, strict=True):
                    if version != seq and (version is not None or seq > copy.flushed_seq):
                        raise Stale(f"the row with {shown_key(self.table, key)} has changed")
            if change.op == "delete":
                released.update(change.keys)
        keys = [key for change in self.changes if change.op == "insert" for key in change.keys]
        if keys and copy.segments and copy.epoch != self.epoch:
            raise Stale("segments have changed")
        found = {key: -1 if key in released else copy.versions.get(key) for key in keys}
        taken = {key: version for key, version in found.items() if version is not None}
        return check_free(self.table, keys, HotKeys(taken), self.cold)

    def committed(self) -> None:
        """Let readers see the change."""
        if self._copy is not None:
            self._copy.publish_view()

    def rolled_back(self) -> None:
        """Forget the copy: the database knows what it held before."""
        self.store.forget(self.table.table_id, self.user)

    def announcements(self) -> list[Announcement]:
        """What was committed, in order."""
        if self._copy is None:
            return []
        return [
            Announcement(
                table=self.table,
                copy=self._copy,
                chunk=chunk,
                rows=change.rows,
                traces=None if self.trace is None else [(chunk.row_count, self.trace)],
                old_rows=change.old_rows,
            )
            for chunk, change in zip(self._chunks, self.changes, strict=True)
        ]
