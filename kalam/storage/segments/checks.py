"""What is known of the files of segments: which are what the catalogue says, and which are not.

The law: **no file is trusted for its name.** Before a segment is read for the first time its file is compared with what
the catalogue says of it (``segment_file``), whoever reads it; after that it is good for as long as it is the same file
(device, inode, size, time of the last change), which costs one ``stat``. What does not fit is ``corrupt_segment``: it
concerns one table, and nobody sees rows that are not the table's. ``CHECK TABLE`` and each compaction compare anew.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
import structlog

from kalam.errors import CorruptSegment, KalamError
from kalam.schema import Table
from kalam.storage.log.copies import Segment
from kalam.storage.segments.remote import opened, refetch
from kalam.storage.segments.segment_file import (
    READ_ERRORS,
    Identity,
    Misfit,
    Stamp,
    compare,
    corrupt,
    reason_of,
    stamp_of,
)

SHOWN_MAX = 20
log = structlog.get_logger(__name__)


class Damage(msgspec.Struct, frozen=True):
    """A segment whose file is not what it was, and why; ``stamp`` is None where that is not for good."""

    table_id: int
    path: str
    reason: str
    stamp: Stamp | None


class SegmentChecks:
    """Compares files with what the catalogue says, and remembers how that went. Blocking, for any thread."""

    def __init__(self) -> None:
        self._passed: dict[int, Stamp] = {}
        self._damaged: dict[int, Damage] = {}
        self._followed: set[int] = set()
        self._lock = threading.Lock()

    def check(self, table: Table, folder: Path, segments: Sequence[Segment]) -> None:
        """Raise CorruptSegment unless each of these segments, which lie in ``folder``, is what it was."""
        for segment in segments:
            self.stamp(table, folder, segment)

    def stamp(self, table: Table, folder: Path, segment: Segment) -> Stamp:
        """Check one segment; gives what tells its file from others, by which what is decoded of it can be kept."""
        found = None
        with suppress(OSError, Misfit):  # told below; in the cache of a remote LOCATION a file may just not be there
            found = stamp_of(folder / segment.path)
        if found is not None and self._passed.get(segment.segment_id) == found:
            return found
        known = self._damaged.get(segment.segment_id)
        if known is not None and found is not None and known.stamp == found:
            raise corrupt(table.name, segment.path, Misfit(known.reason))
        return self.check_anew(table, folder, segment)

    def stamp_nowait(self, folder: str, segment: Segment) -> Stamp | None:
        """The same for a file that has passed; None for any other."""
        try:
            found = stamp_of(f"{folder}/{segment.path}")
        except (OSError, Misfit):
            return None
        return found if self._passed.get(segment.segment_id) == found else None

    def check_anew(self, table: Table, folder: Path, segment: Segment, *, thoroughly: bool = False) -> Stamp:
        """Check one segment, whatever is known of it; ``thoroughly`` as for ``compare``."""
        path, identity = folder / segment.path, Identity.of(table, segment)
        stamp = None
        try:
            try:
                stamp = _compare(path, identity, thoroughly=thoroughly)
            except Misfit:
                if not refetch(path):  # a cache may be damaged where the store is not
                    stamp = stamp_of(path)
                    raise
                stamp = _compare(path, identity, thoroughly=thoroughly)
        except (Misfit, *READ_ERRORS) as exc:
            raise self.failed(table, segment, exc, stamp) from exc
        with self._lock:
            self._follow(segment)
            self._passed[segment.segment_id] = stamp
            mended = self._damaged.pop(segment.segment_id, None)
        if mended is not None:
            log.info("a damaged segment is whole again", table=str(table.name), segment=segment.path)
        return stamp

    @contextmanager
    def reading(self, table: Table, segment: Segment) -> Iterator[None]:
        """While a segment is read: what the library raises becomes CorruptSegment."""
        try:
            yield
        except READ_ERRORS as exc:
            raise self.failed(table, segment, exc) from exc

    def failed(self, table: Table, segment: Segment, exc: Exception, stamp: Stamp | None = None) -> KalamError:
        """The error for a segment that could not be read; one that is the file's fault is logged and remembered."""
        error = corrupt(table.name, segment.path, exc)
        if not isinstance(error, CorruptSegment):
            return error
        damage = Damage(table.table_id, segment.path, reason_of(exc), stamp)
        with self._lock:
            self._follow(segment)
            self._passed.pop(segment.segment_id, None)
            known = self._damaged.get(segment.segment_id)
            self._damaged[segment.segment_id] = damage
        if known is None or known.reason != damage.reason:
            log.error("segment is damaged", table=str(table.name), segment=segment.path, reason=damage.reason)
        return error

    def damaged(self, table_id: int | None = None) -> list[Damage]:
        """The segments of a table, or of all, that were found to be damaged and still are named."""
        with self._lock:
            return [damage for damage in list(self._damaged.values()) if table_id in (None, damage.table_id)]

    def shown(self, table_id: int) -> str:
        """The same for people: how many there are, and what is wrong with the first."""
        damaged = self.damaged(table_id)
        listed = "; ".join(f"{damage.path} {damage.reason}" for damage in damaged[:SHOWN_MAX])
        return f"{len(damaged)} ({listed})" if damaged else "0"

    def _follow(self, segment: Segment) -> None:
        """Forget what is known when the segment goes."""
        if segment.segment_id not in self._followed:
            self._followed.add(segment.segment_id)
            weakref.finalize(segment, self._forget, segment.segment_id).atexit = False

    def _forget(self, segment_id: int) -> None:
        # Without the lock, which the thread in which the last reader ends may hold.
        self._followed.discard(segment_id)
        self._passed.pop(segment_id, None)
        self._damaged.pop(segment_id, None)


def _compare(path: Path, identity: Identity, *, thoroughly: bool) -> Stamp:
    if path.exists():
        stamp_of(path)  # to open what is no file might wait for ever
    with opened(path) as file:
        stamp = stamp_of(path)
        compare(file, identity, thoroughly=thoroughly)
    return stamp
