"""The rows of a view as they were written last, by their keys: who changes them need not read them.

Law: what is known is how these keys stood at one change of the view's copy. It counts where the copy stands at that
change, and whoever finds it elsewhere has all of it forgotten. So neither a failure nor a restart nor another writer
has to tell, and flushes and compactions, which change no row, take nothing away. How many rows there are is known
likewise: where as many are known, they are all.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import repeat
from typing import Final

import msgspec
from msgspec.structs import replace

from kalam.rows.stored import pack_rows
from kalam.rows.types import Row
from kalam.storage.log.copies import Key, Op
from kalam.storage.log.times import from_us
from kalam.storage.log.writes import Change
from kalam.storage.segments.cold_keys import KeyedRow

ENTRY_BYTES: Final = 200
"""What a row takes beside its values, as they are packed."""


class Unknown(enum.Enum):
    """Stands for a row of which nobody knows whether it is there."""

    ROW = enum.auto()


Former = KeyedRow | Unknown | None
"""What was there under a key; None for nothing."""


class Whole(msgspec.Struct, frozen=True):
    """Rows that were written together, numbered from ``first_seq`` on, and as they are packed."""

    rows: Sequence[Row]
    first_seq: int
    updated_us: int
    packed: bytes


class _Change(msgspec.Struct, frozen=True):
    op: Op
    keys: Sequence[Key]
    rows: Sequence[Row] | None
    packed: bytes

    @property
    def byte_count(self) -> int:
        return len(self.packed) + ENTRY_BYTES * len(self.keys)


class _Written(msgspec.Struct, frozen=True):
    changes: Sequence[_Change]
    after_seq: int
    last_seq: int
    updated_us: int

    @property
    def updates(self) -> _Change | None:
        """All of it, where it is one update."""
        return self.changes[0] if len(self.changes) == 1 and self.changes[0].op == "update" else None

    @property
    def byte_count(self) -> int:
        return sum(change.byte_count for change in self.changes)

    def instead_of(self, before: _Written) -> _Written | None:
        """Both of them, where this one has changed all rows again that the one before it had."""
        change, former = self.updates, before.updates
        if change is None or former is None or before.last_seq != self.after_seq or change.keys != former.keys:
            return None
        return replace(self, after_seq=before.after_seq)


class KnownRows:
    """The rows of one view that were written or read last, as far as they take ``bytes_max``.

    They are kept in two halves: where the newer one is full, the older one goes. What was written last waits until
    somebody looks for other rows than those; as long as the same ones are written again it takes the place of itself.
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._seq = -1
        self._newer: dict[Key, KeyedRow | None] = {}
        self._older: dict[Key, KeyedRow | None] = {}
        self._newer_bytes = self._older_bytes = 0
        self._count: int | None = None
        self._waiting: list[_Written] = []

    def whole(self, seq: int, keys: Sequence[Key]) -> Whole | None:
        """What was under these keys at change ``seq``, where the last that was written is an update of just these."""
        if len(self._waiting) != 1 or self._waiting[0].last_seq != seq:
            return None
        change = self._waiting[0].updates
        if change is None or change.rows is None or change.keys != keys:
            return None
        return Whole(change.rows, seq + 1 - len(keys), self._waiting[0].updated_us, change.packed)

    def find(self, seq: int, keys: Sequence[Key]) -> list[Former]:
        """What was there under these keys at change ``seq``, at which the copy stands."""
        self._take_in()
        if seq != self._seq:
            self._forget(seq)
        found: list[Former] = list(map(self._newer.get, keys, repeat(Unknown.ROW)))
        if self._older and Unknown.ROW in found:
            older = self._older.get
            found = [
                older(key, Unknown.ROW) if row is Unknown.ROW else row for key, row in zip(keys, found, strict=True)
            ]
        return found

    def learn(self, seq: int, found: Mapping[Key, KeyedRow | None]) -> None:
        """Take note of what was read of the copy as it stood at change ``seq``."""
        if seq == self._seq and self._bytes_max:
            packed = pack_rows([each.row for each in found.values() if each is not None])
            self._add(found.keys(), found.values(), len(packed) + ENTRY_BYTES * len(found))

    def counted(self, seq: int, count: int) -> None:
        """Take note of how many rows the copy had at change ``seq``."""
        if seq == self._seq:
            self._count = count

    def others(self, seq: int, keys: Collection[Key]) -> list[Key] | None:
        """The keys of all rows but these at change ``seq``, at which the copy stands; None if not all are known."""
        self._take_in()
        if seq != self._seq:
            self._forget(seq)
        there = [key for key, row in (self._older | self._newer).items() if row is not None]
        return [key for key in there if key not in keys] if len(there) == self._count else None

    def wrote(self, changes: Sequence[Change], last_seq: int, updated_us: int) -> None:
        """Take note of changes that were committed, the last of them as ``last_seq``, where there is room for them."""
        rows = [None if change.op == "delete" else change.rows for change in changes]
        made = [
            _Change(change.op, change.keys, each, change.packed) for change, each in zip(changes, rows, strict=True)
        ]
        written = _Written(made, last_seq - sum(len(change.keys) for change in changes), last_seq, updated_us)
        if written.byte_count > self._bytes_max:
            self._waiting = []
            return
        both = written.instead_of(self._waiting[0]) if len(self._waiting) == 1 else None
        has_stayed = len(self._waiting) > 0  # for its rows were known without being taken in
        self._waiting = [*self._waiting[:1], written] if both is None else [both]
        if has_stayed:
            self._make_room()

    def _make_room(self) -> None:
        """Let go of rows where they take too much beside what waits; the older ones first, which newer ones hide."""
        byte_count = sum(written.byte_count for written in self._waiting)
        if self._newer_bytes + self._older_bytes + byte_count > self._bytes_max:
            self._older, self._older_bytes = {}, 0
        if self._newer_bytes + byte_count > self._bytes_max:
            self._newer, self._newer_bytes = {}, 0

    def _take_in(self) -> None:
        """Make rows of what was written; that is for whoever looks for some, in whose thread it is done."""
        waiting, self._waiting = self._waiting, []
        for written in waiting:
            self._take(written)

    def _take(self, written: _Written) -> None:
        if written.after_seq != self._seq:
            self._forget(written.after_seq)
        first_seq = written.last_seq + 1 - sum(len(change.keys) for change in written.changes)
        updated = from_us(written.updated_us)
        for change in written.changes:
            rows: Iterable[KeyedRow | None] = repeat(None)
            if change.rows is not None:
                rows = map(KeyedRow, change.rows, range(first_seq, first_seq + len(change.keys)), repeat(updated))
            self._add(change.keys, rows, change.byte_count)
            first_seq += len(change.keys)
            if self._count is not None:
                self._count += len(change.keys) * {"insert": 1, "update": 0, "delete": -1}[change.op]
        self._seq = written.last_seq

    def _add(self, keys: Collection[Key], rows: Iterable[KeyedRow | None], byte_count: int) -> None:
        if self._newer_bytes + byte_count > self._bytes_max // 2:
            self._newer, self._older = {}, self._newer
            self._newer_bytes, self._older_bytes = 0, self._newer_bytes
        if byte_count > self._bytes_max // 2:  # even a half has no room, and what was known of them is not so any more
            self._older, self._older_bytes = {}, 0
            return
        self._newer.update(zip(keys, rows))  # noqa: B905 - the rows may be one for all
        self._newer_bytes += byte_count

    def _forget(self, seq: int) -> None:
        self._newer, self._older, self._seq = {}, {}, seq
        self._newer_bytes = self._older_bytes = 0
        self._count = None if seq else 0  # for change 0 is before the first one
