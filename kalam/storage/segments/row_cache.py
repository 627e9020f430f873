"""Packed row groups in files of a folder, within a bound: a cache of what segments say, emptied at each start.

**A file is good for as long as this process runs**, and only this process knows what it holds: one that is missing,
cut off or damaged is noticed by its blocks' checksums, dropped, and packed anew. A full disk, or one with less than
``free_bytes_min`` left, is a reason to pack nothing, and to give back what is kept.

One thread packs, behind the answers: whoever misses a row group has decoded it, answers from that, and hands it over.
Until it is packed others are answered from it, too.

The fuller it is the smaller what comes in is made, at the price of the time that a read takes. At the bound what is not
as small as can be goes first, and comes in again as such. Else a row group comes in only if it was asked for more often
lately than the one that was not asked for longest. Otherwise rows that are read all over a large table would push each
other out, at some 12 ms each.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from operator import attrgetter
from pathlib import Path
from typing import Final

import msgspec
import pyarrow as pa
import structlog

from kalam.rows.types import Row
from kalam.storage.log.copies import Key
from kalam.storage.log.open_files import NONE_LEFT
from kalam.storage.segments.packed_rows import DENSE, PLAIN, QUICK, Damaged, FindRows, Packed, Packing, pack
from kalam.storage.segments.row_layout import RowLayout
from kalam.storage.segments.segment_file import Stamp

log = structlog.get_logger(__name__)

Group = tuple[Stamp, int]
"""A row group: what tells its file from others, and its number."""

KEY_ROWS: Final = "key-rows"
"""The folder in a data directory."""
PAGE_BYTES = 4_096
CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
ENTRIES_MAX = 20_000
HANDLES_MAX = 64
FINDERS_MAX = 256
PLAIN_SHARE, QUICK_SHARE = 16, 2
"""One part in so many of the cache is filled with plain blocks, and up to one in so many with quick ones."""
WAITING_MAX = 4
"""So many row groups, some megabytes each, wait to be packed; what is missed meanwhile is packed another time."""
ASKED_FOR = 2
"""What comes in at the bound was asked for so many times more than twice as often as what goes."""
REFUSED_FOR = 1_000
"""A row group for which there was no room is packed after it was asked for so many times."""
ASKED_MAX = 15
"""Counts go so far, and are halved after ten misses for each entry, so that they tell of the last minutes."""
COUNTED_MIN = 1_000


class Wanted(msgspec.Struct, frozen=True):
    """What is wanted of a segment: the columns of ``schema``, of rows that have one of the keys in the columns ``key``.

    The segment is sorted by ``key``, which are among the columns; the schema is as the file holds them.
    """

    schema: pa.Schema
    names: tuple[str, ...]
    key: tuple[str, ...]

    @classmethod
    def of(cls, schema: pa.Schema, key: Sequence[str]) -> Wanted:
        """These columns."""
        return cls(schema, tuple(schema.names), tuple(key))


_USED, _GOES = attrgetter("used"), attrgetter("is_dense", "used")


class WouldWait(Exception):
    """The bytes would have to be waited for."""


class Handle:
    """An open file, closed with its last reader."""

    def __init__(self, path: Path) -> None:
        self._descriptor = -1
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def read(self, start: int, end: int) -> bytes:
        """The bytes from ``start`` to ``end``; raises OSError."""
        return os.pread(self._descriptor, end - start, start)

    def read_nowait(self, start: int, end: int) -> bytes | bytearray:
        """The same; raises WouldWait where they are not in memory. Where the system cannot tell they are read."""
        block = bytearray(end - start)
        try:
            size = os.preadv(self._descriptor, [block], start, os.RWF_NOWAIT)
        except BlockingIOError as exc:
            raise WouldWait from exc
        except (AttributeError, OSError):
            return self.read(start, end)
        if size != len(block):
            raise WouldWait
        return block


class Entry:
    """A packed row group.

    ``asked`` counts how often it was read lately, and ``used`` is the number of its last read among all.
    """

    def __init__(self, group: Group, packed: Packed, path: Path, asked: int, *, is_dense: bool) -> None:
        self.group, self.packed, self.path, self.is_dense = group, packed, path, is_dense
        self.asked, self.used = asked, 0
        self.byte_count = -(-packed.byte_count // PAGE_BYTES) * PAGE_BYTES
        self.schema = packed.schema
        self.names = frozenset(self.schema.names)
        self.handle: Handle | None = None
        self._finders: dict[tuple[str, ...], FindRows] = {}

    def finder(self, names: tuple[str, ...]) -> FindRows | None:
        """What finds rows in the entry's blocks, of which these columns are wanted; None if it lacks one."""
        known = self._finders.get(names)
        if known is None and self.names.issuperset(names):
            if len(self._finders) >= FINDERS_MAX:
                self._finders.clear()
            known = self._finders[names] = self.packed.finder(names)
        return known


class RowCache:
    """The entries. For any thread; ``folder`` is emptied, made when it is needed, and nobody else's."""

    def __init__(self, folder: Path, bytes_max: int, free_bytes_min: int = 0) -> None:
        self._folder, self._bytes_max, self._free_bytes_min = folder, bytes_max, free_bytes_min
        self._entries: dict[Group, Entry] = {}
        self._opened: deque[Entry] = deque()
        self._gone: deque[Path] = deque()
        self._asked: dict[Group, int] = {}
        self._waiting: dict[Group, pa.Table] = {}
        self._counted = self._made = self._reads = 0
        self._lock = threading.Lock()
        self._packer = ThreadPoolExecutor(1, thread_name_prefix="kalam-packer")
        self.byte_count = 0
        _empty(folder)

    def find(self, group: Group, wanted: Wanted, key: Key, *, nowait: bool = False) -> list[Row] | None:
        """The rows of a row group that have a key; None if that is not kept.

        With ``nowait`` raises WouldWait where it would have to be waited for.
        """
        entry = self._entries.get(group)
        rows_in = None if entry is None else entry.finder(wanted.names)
        if entry is None or rows_in is None:
            return None
        packed, rows = entry.packed, []
        try:
            handle = entry.handle or self._open(entry)
            bring = handle.read_nowait if nowait else handle.read
            for number in packed.blocks_with(key):
                block = bring(packed.places[number], packed.places[number + 1])
                rows += rows_in(number, block, key)
        except (OSError, Damaged) as exc:
            if getattr(exc, "errno", None) not in NONE_LEFT:
                self._drop_damaged(entry, exc)
            return None
        self._reads += 1
        entry.used = self._reads
        entry.asked = min(entry.asked + 1, ASKED_MAX)
        return rows

    def waiting(self, group: Group, wanted: Wanted) -> pa.Table | None:
        """The rows of a row group that waits to be packed, if it has these columns."""
        rows = self._waiting.get(group)
        return rows if rows is not None and set(rows.column_names).issuperset(wanted.names) else None

    def missed(self, group: Group, wanted: Wanted) -> pa.Schema | None:
        """Count a row group that is asked for and not kept; gives the columns to pack if it is to be packed now."""
        if not self._bytes_max or not RowLayout.fits(wanted.schema):
            return None
        with self._lock:
            known = self._entries.get(group)
            if known is not None and known.finder(wanted.names):
                return None
            self._counted += 1
            if self._counted >= max(COUNTED_MIN, 10 * len(self._entries)):
                self._age()
            asked = self._asked[group] = min(self._asked.get(group, 0) + 1, ASKED_MAX)
            if asked < 1 or group in self._waiting or len(self._waiting) >= WAITING_MAX:
                return None
            if known is not None:
                return pa.schema([*known.schema, *(own for own in wanted.schema if own.name not in known.names)])
            return wanted.schema if self._has_room(asked) else None

    def pack(self, group: Group, rows: pa.Table, key: Sequence[str]) -> None:
        """Keep the rows of a row group, which are in the order of the columns ``key``, as soon as there is time."""
        with self._lock:
            if not rows.num_rows or group in self._waiting or not self._bytes_max:
                return
            self._waiting[group] = rows
            self._packer.submit(self._pack, group, rows, key)

    def wait_packed(self) -> None:
        """Wait until all is kept that was to be packed."""
        self._packer.submit(int).result()

    def _pack(self, group: Group, rows: pa.Table, key: Sequence[str]) -> None:
        entry = None
        try:
            entry = self._packed(group, rows, key)
        except OSError as exc:
            log.warning("rows could not be kept for reads by key", reason=os.strerror(exc.errno or 0))
        except Exception:  # nobody waits for this thread's outcome
            log.exception("rows could not be kept for reads by key")
        with self._lock:
            if self._waiting.pop(group, None) is not rows:  # its segment has gone meanwhile
                self._gone.extend([] if entry is None else [entry.path])
            elif entry is None:
                self._asked[group] = -REFUSED_FOR
            else:
                self._entries[group] = entry
                self.byte_count += entry.byte_count
        self._unlink()

    def forget(self, stamp: Stamp) -> None:
        """Keep nothing of a file that is not read any more."""
        with self._lock:
            for group in [group for group in self._entries if group[0] == stamp]:
                self._drop(group)
            for groups in (self._asked, self._waiting):
                for group in [group for group in groups if group[0] == stamp]:
                    del groups[group]
        self._unlink()

    def give_back(self) -> None:
        """Keep less where the disk is nearly full; what was not read for longest goes first."""
        with suppress(OSError):
            while self._entries and shutil.disk_usage(self._folder).free < self._free_bytes_min:
                with self._lock:
                    oldest = sorted(self._entries.values(), key=_USED)
                    for entry in oldest[: len(oldest) // 8 + 1]:
                        self._drop(entry.group)
                self._unlink()

    def close(self) -> None:
        """Keep nothing; from now on nothing is packed."""
        with self._lock:
            self._bytes_max = 0
        self._packer.shutdown(cancel_futures=True)
        with self._lock:
            self._waiting.clear()
            self._entries.clear()
            self._opened.clear()
            self.byte_count = 0
        _empty(self._folder)

    def _packed(self, group: Group, rows: pa.Table, key: Sequence[str]) -> Entry | None:
        packing = self._packing(rows)
        packed, blocks = pack(rows, key, packing)
        size = packed.byte_count + PAGE_BYTES
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if size > self._bytes_max or shutil.disk_usage(self._folder).free < self._free_bytes_min + size:
            return None
        self._make_room(group, size)
        self._made += 1
        path = self._folder / str(self._made)
        try:
            with os.fdopen(os.open(path, CREATE, 0o600), "wb") as file:
                file.writelines(blocks)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        with self._lock:  # others may be counting
            asked = self._asked.pop(group, 1)
        return Entry(group, packed, path, asked, is_dense=packing is DENSE)

    def _make_room(self, group: Group, size: int) -> None:
        with self._lock:
            self._drop(group)
            while self._entries and (self.byte_count + size > self._bytes_max or len(self._entries) >= ENTRIES_MAX):
                self._drop(self._oldest().group)
        self._unlink()

    def _has_room(self, asked: int) -> bool:
        """Whether what was asked for so often may come in: there is room, or the oldest was asked for far less."""
        if not self._entries or self.byte_count + 2 * self.byte_count // len(self._entries) <= self._bytes_max:
            return True
        oldest = self._oldest()
        return not oldest.is_dense or asked > 2 * oldest.asked + ASKED_FOR

    def _oldest(self) -> Entry:
        """The entry that was not read for longest, of those that could be smaller if there are any."""
        return min(self._entries.values(), key=_GOES)

    def _packing(self, rows: pa.Table) -> Packing:
        filled = self.byte_count + rows.nbytes + PAGE_BYTES
        if filled <= self._bytes_max // PLAIN_SHARE:
            return PLAIN
        return QUICK if filled <= self._bytes_max // QUICK_SHARE else DENSE

    def _age(self) -> None:
        self._counted = 0
        self._asked = {group: int(asked / 2) for group, asked in self._asked.items() if not 0 <= asked < 2}
        for entry in self._entries.values():
            entry.asked //= 2

    def _drop(self, group: Group) -> None:
        entry = self._entries.pop(group, None)
        if entry is not None:
            self.byte_count -= entry.byte_count
            entry.handle = None
            self._gone.append(entry.path)

    def _unlink(self) -> None:
        """Remove the files of what was dropped; without the lock, which a read on the event loop may want."""
        with suppress(IndexError):
            while True:
                with suppress(OSError):
                    self._gone.popleft().unlink()

    def _drop_damaged(self, entry: Entry, exc: Exception) -> None:
        with self._lock:
            if self._entries.get(entry.group) is not entry:  # it was dropped while it was read
                return
            self._drop(entry.group)
        self._unlink()
        log.warning("packed rows are damaged and packed anew", file=entry.path.name, reason=repr(exc))

    def _open(self, entry: Entry) -> Handle:
        """Open an entry's file; of so many the one that was opened first is closed, when its readers are done."""
        handle = entry.handle = Handle(entry.path)
        with self._lock:
            self._opened.append(entry)
            if len(self._opened) > HANDLES_MAX:
                self._opened.popleft().handle = None
        return handle


def _empty(folder: Path) -> None:
    """Remove what was kept, and nothing else: before there was a cache a table's LOCATION might be there."""
    with suppress(OSError):
        for path in folder.iterdir():
            if path.name.isdecimal() and path.is_file():
                path.unlink()
        folder.rmdir()
