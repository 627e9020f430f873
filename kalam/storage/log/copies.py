"""A copy: one data set of a SHARED table, or one user's rows of a USER table, as the writer and the readers know it.

The law: every INSERT, UPDATE and DELETE appends versions; ``seq`` is 1, 2, 3, … in commit order; of a key the version
with the largest seq wins. A *chunk* is a run of versions of one kind that one transaction wrote. Hot versions lie in
chunks, flushed ones in segments. A version that may have an older one of its key is *superseding*: only such a
version can hide something, so plain inserts, which are the mass, cost the readers nothing.

Everything here is changed by the writer's thread only. Readers take a ``View``: frozen values and a prefix of the
list of chunks, which only grows; a flush replaces the list and does not touch the one that a reader holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Literal

import msgspec

from kalam.schema import Key as Key
from kalam.storage.log.hot_keys import HotKeys
from kalam.storage.log.times import from_us

Op = Literal["insert", "update", "delete", "truncate"]
"""``truncate`` removed every row at once: it takes one number, has no rows, and is never hot."""
EMPTY: Mapping[Key, int] = MappingProxyType({})


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """Versions ``first_seq … first_seq + row_count - 1`` of one copy.

    ``payload`` holds the rows as ``kalam.rows.stored`` writes them (for a delete the rows that were deleted), ``old``
    the rows before an update. ``old_updated`` holds ``_updated`` of the versions before an update or a delete, as
    ``former_times`` writes it; None where it is not known any more. One that is ``large`` is a part of a change of any
    size, or stands for all of it, and was read or told without its rows: whoever follows by chunks begins anew there.
    """

    first_seq: int
    row_count: int
    op: Op
    updated_us: int
    schema_version: int
    superseding: bool
    payload: bytes
    old: bytes | None = None
    old_updated: bytes | None = None
    large: bool = False

    @property
    def last_seq(self) -> int:
        """The seq of the last version."""
        return self.first_seq + self.row_count - 1

    @property
    def begins_anew(self) -> bool:
        """Whether it tells that rows changed, and not which."""
        return self.large or self.op == "truncate"

    @property
    def byte_count(self) -> int:
        """The bytes of its rows."""
        return len(self.payload) + len(self.old or b"") + len(self.old_updated or b"")

    @property
    def updated(self) -> datetime:
        """``_updated`` of its rows."""
        return from_us(self.updated_us)


class Segment(msgspec.Struct, frozen=True, kw_only=True, weakref=True):
    """A Parquet file of a copy, at ``path`` in the copy's folder; ``deleted`` says that it holds deleted rows.

    ``checksum`` is the CRC-32 of the file; None for one that Kalam 0.1.0 wrote.

    Whoever reads the file holds this object, of which there is one for each segment: a replaced file is removed when
    the object goes.
    """

    segment_id: int
    path: str
    deleted: bool
    row_count: int
    byte_count: int
    min_seq: int
    max_seq: int
    min_key: Key
    max_key: Key
    schema_version: int
    checksum: int | None


class View(msgspec.Struct, frozen=True, kw_only=True):
    """One consistent state of a copy: the first ``chunk_count`` of ``chunks``, the segments, the overrides."""

    copy_id: int
    last_seq: int
    chunks: Sequence[Chunk]
    chunk_count: int
    segments: tuple[Segment, ...]
    overrides: Mapping[Key, int]
    epoch: int


EMPTY_VIEW = View(copy_id=0, last_seq=0, chunks=(), chunk_count=0, segments=(), overrides=EMPTY, epoch=0)
"""The state of a copy that nobody has written yet."""


@dataclass(slots=True)
class Copy:
    """The state of one copy.

    ``versions`` has the newest version of each hot key.
    """

    copy_id: int
    table_id: int
    user: str
    last_seq: int = 0
    published_seq: int = 0
    flushed_seq: int = 0
    chunks: list[Chunk] = field(default_factory=list)
    versions: HotKeys = field(default_factory=HotKeys)
    segments: tuple[Segment, ...] = ()
    overrides: Mapping[Key, int] = field(default_factory=lambda: EMPTY)
    epoch: int = 0
    byte_count: int = 0
    row_count: int = 0
    oldest_us: int | None = None
    view: View = field(init=False)

    def __post_init__(self) -> None:
        self.publish_view()

    def publish_view(self) -> None:
        """Let readers see the present state; called after a commit, under the database's snapshot lock."""
        self.view = View(
            copy_id=self.copy_id,
            last_seq=self.last_seq,
            chunks=self.chunks,
            chunk_count=len(self.chunks),
            segments=self.segments,
            overrides=self.overrides,
            epoch=self.epoch,
        )

    def append(self, chunk: Chunk) -> None:
        """Take in a chunk that is being committed; ``forget_from`` undoes it."""
        self.chunks.append(chunk)
        self.last_seq = chunk.last_seq
        self.byte_count += chunk.byte_count
        self.row_count += chunk.row_count
        if self.oldest_us is None:
            self.oldest_us = chunk.updated_us

    def empty(self, seq: int) -> HotKeys:
        """Forget every row, as change ``seq`` does; returns the former index of keys."""
        self.epoch += 1  # first of all, as in ``drop_flushed``
        self.last_seq = self.flushed_seq = seq
        self.chunks, self.segments, self.overrides = [], (), EMPTY
        self.reset_counters()
        former, self.versions = self.versions, HotKeys()
        return former

    def reset_counters(self) -> None:
        """Count the hot rows anew, after chunks went."""
        self.byte_count = sum(chunk.byte_count for chunk in self.chunks)
        self.row_count = sum(chunk.row_count for chunk in self.chunks)
        self.oldest_us = self.chunks[0].updated_us if self.chunks else None


def drop_flushed(copy: Copy, flushed_seq: int, keys_of: Callable[[Chunk], Sequence[Key]]) -> HotKeys:
    """Forget the hot versions up to ``flushed_seq``, which segments hold now.

    ``keys_of`` gives the keys of a chunk. Returns the former index of keys, which may be large and is the caller's to
    let go of. The new one is made from what is left, which mostly is little.
    """
    copy.epoch += 1  # first of all: whoever looks a key up without a lock sees by it that the keys go
    copy.flushed_seq = max(copy.flushed_seq, flushed_seq)
    copy.chunks = [chunk for chunk in copy.chunks if chunk.first_seq > flushed_seq]
    copy.reset_counters()
    former = copy.versions
    runs = former.runs.behind(flushed_seq)
    alone = [copy.chunks[place] for place in runs.without_own([chunk.first_seq for chunk in copy.chunks])]
    if 2 * sum(chunk.row_count for chunk in alone) < len(former.single):
        single = {key: former.single[key] for chunk in alone for key in keys_of(chunk)}
    else:
        single = {key: seq for key, seq in former.single.items() if abs(seq) > flushed_seq}
    copy.versions = HotKeys(single, runs)
    return former
