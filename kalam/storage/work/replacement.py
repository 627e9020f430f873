"""The transactions of a compaction: new files in the place of old segments, and overrides that are forgotten."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from kalam.errors import Cancelled
from kalam.schema import Table
from kalam.storage.log.copies import Copy, Key, Segment
from kalam.storage.log.copy_store import CopyStore, pack_key
from kalam.storage.log.database import now_us
from kalam.storage.log.written_file import WrittenFile
from kalam.storage.segments.folders import Folders
from kalam.storage.segments.garbage import list_garbage
from kalam.storage.segments.replaced import ReplacedFiles, mark_replaced


class Compacting(Protocol):
    """What is needed of whoever replaces segments: a Compactor."""

    store: CopyStore
    folders: Folders
    replaced: ReplacedFiles

    @property
    def keeps(self) -> Callable[[Table], bool]:
        """Whether the replaced files of a table's rows stay until its lake lets go of them."""


class Replacement:
    """The transaction that puts new files in the place of old segments."""

    cost = 1

    def __init__(
        self,
        compactor: Compacting,
        table: Table,
        owner: str,
        copy_id: int,
        old: Sequence[Segment],
        new: Sequence[WrittenFile],
    ) -> None:
        self._compactor, self._table, self._owner, self._copy_id = compactor, table, owner, copy_id
        self._old, self._new = old, new
        kept = compactor.keeps(table)
        self._kept = [segment for segment in old if kept and not segment.deleted]
        self._garbage = [segment for segment in old if not kept or segment.deleted]
        self._segments: list[Segment] = []
        self._copy: Copy | None = None

    def apply(self, conn: sqlite3.Connection) -> Any:
        """Change the database; raises Cancelled if an old segment is there no more."""
        ids = [(segment.segment_id,) for segment in self._old]
        known = [conn.execute("SELECT 1 FROM segments WHERE segment_id = ?", row).fetchone() for row in ids]
        if not all(known):
            raise Cancelled(f"segments of table {self._table.name} went meanwhile; was it dropped?")
        conn.executemany("DELETE FROM segments WHERE segment_id = ?", ids)
        conn.executemany("DELETE FROM key_filters WHERE segment_id = ?", ids)
        now, store = now_us(), self._compactor.store
        folder = self._compactor.folders.folder(self._table, self._owner)
        list_garbage(conn, [str(folder / segment.path) for segment in self._garbage], now)
        mark_replaced(conn, self._table.table_id, self._owner, self._kept, now)
        self._copy = store.loaded.get((self._table.table_id, self._owner))  # a later one knows the new segments
        self._segments = [store.insert_segment(conn, self._copy_id, self._table, file, now) for file in self._new]

    def committed(self) -> None:
        """Let readers see the new segments; the old files go with their last reader."""
        copy, store = self._copy, self._compactor.store
        if copy is not None:
            gone = {segment.segment_id for segment in self._old}
            kept = [segment for segment in copy.segments if segment.segment_id not in gone]
            copy.segments = (*kept, *self._segments)
            copy.epoch += 1
            copy.publish_view()
        folder = self._compactor.folders.folder(self._table, self._owner)
        self._compactor.replaced.replace(folder, self._garbage)
        self._compactor.replaced.hold(folder, self._kept)
        store.catalogue.note_changed(self._table.table_id)

    def rolled_back(self) -> None:
        """Forget the copy, which may have been loaded after this was applied."""
        self._compactor.store.forget(self._table.table_id, self._owner)

    def announcements(self) -> list[Any]:
        """Nothing: a compaction is no change."""
        return []


class Forgetting:
    """The transaction that forgets overrides, each unless a later version has renewed it."""

    def __init__(self, store: CopyStore, table: Table, owner: str, overrides: Sequence[tuple[Key, int]]) -> None:
        self.cost = len(overrides)
        self._store, self._table, self._owner, self._overrides = store, table, owner, overrides

    def apply(self, conn: sqlite3.Connection) -> Any:
        """Change the database."""
        copy_id = conn.execute(
            "SELECT copy_id FROM copies WHERE table_id = ? AND user_id = ?", (self._table.table_id, self._owner)
        ).fetchone()
        if copy_id is not None:
            rows = [(copy_id[0], pack_key(key), seq) for key, seq in self._overrides]
            conn.executemany("DELETE FROM overrides WHERE copy_id = ? AND key = ? AND seq = ?", rows)

    def committed(self) -> None:
        """Let readers go without them."""
        copy = self._store.loaded.get((self._table.table_id, self._owner))
        if copy is not None:
            left = dict(copy.overrides)
            for key, seq in self._overrides:
                if left.get(key) == seq:
                    del left[key]
            copy.overrides = left
            copy.publish_view()

    def rolled_back(self) -> None:
        """Forget the copy, which may have been loaded after this was applied."""
        self._store.forget(self._table.table_id, self._owner)

    def announcements(self) -> list[Any]:
        """Nothing: what is read stays the same."""
        return []
