"""The ways in which views are kept up, seen from who brings the changes: what they are given, and what they give."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import cached_property
from typing import Final, Protocol

import msgspec

from kalam.errors import KalamError
from kalam.names import TableName
from kalam.rows.types import Row
from kalam.schema import Table
from kalam.storage.log.copies import Key
from kalam.table_options import How
from kalam.tables.kinds import Source
from kalam.tables.versions import ChangeBatch, Logged, batch_of
from kalam.views.signed import Signed

TWICE: Final = "key: two rows have one key"
Remembering = Callable[[sqlite3.Connection], None]
"""Writes what a method remembers, in the transaction of the rows."""


class Changes:
    """What came of one source, in order: versions are rows with the source's system columns behind them.

    Where the source ``retracts``, an old version is not there any more; of a stream nothing is taken back, and
    ``generation`` counts how often it was made anew. Views share it, so nobody changes it. Of chunks of a log, whose
    source retracts, both ways to see it are made when they are wanted, which is blocking.
    """

    def __init__(
        self, source: Table, found: ChangeBatch | Sequence[Logged], generation: int, *, retracts: bool
    ) -> None:
        self.source, self.generation, self.retracts = source, generation, retracts
        self._found = found

    @cached_property
    def batch(self) -> ChangeBatch:
        """The changes one by one."""
        return self._found if isinstance(self._found, ChangeBatch) else batch_of(self._found)

    @cached_property
    def signed(self) -> Signed:
        """The same without an order, as columns."""
        if isinstance(self._found, ChangeBatch):
            return Signed.of(self._found, retracts=self.retracts)
        return Signed.of_logged(self._found)

    @property
    def last_seq(self) -> int:
        """The number of the last of them; 0 where there are none."""
        if isinstance(self._found, ChangeBatch):
            return self._found.last_seq
        return self._found[-1].chunk.last_seq if self._found else 0


class LeftOut(msgspec.Struct, frozen=True):
    """A row that could not be computed: what tells it from others, and why, without what is in it."""

    key: str
    reason: str


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of the rows of a view.

    ``upserts`` are whole rows that are there from now on, each key once; one of the keys ``fresh`` must not have been
    there, and where it ``appends`` none ever was. ``deletes`` are keys that are gone. ``remember`` is written together
    with them, and ``committed`` is called when all of it is. ``reached`` gives for copies, by the id of the table, up
    to which change that is, where it is more than what was handed over. ``came`` counts the rows of the source that
    came to the rows with these keys; None where it is one to each.
    """

    upserts: Sequence[Row] = ()
    deletes: Sequence[Key] = ()
    fresh: frozenset[Key] = frozenset()
    appends: bool = False
    left_out: Sequence[LeftOut] = ()
    remember: Remembering | None = None
    reached: Mapping[int, int] = {}
    came: Callable[[Sequence[Key]], int] | None = None
    committed: Callable[[], None] | None = None


class SelectFailed(Exception):
    """The SELECT of a view fails on what its sources hold now, which leaves the rows as they are."""

    def __init__(self, error: KalamError) -> None:
        super().__init__(error.detail)
        self.error = error


class Method(Protocol):
    """A way of keeping one view up. Whoever raises is closed, and another one is opened from what was committed."""

    @property
    def how(self) -> How:
        """Which."""

    @property
    def gather(self) -> Callable[[Changes], Awaitable[None]] | None:
        """Takes changes in whose outcome is to be a part of that of the next ``change``; None: it does not."""

    async def open(self) -> None:
        """Be ready for changes: read what was remembered."""

    def fill(self, sources: Mapping[TableName, Source]) -> AsyncIterator[Outcome]:
        """Every row of the view, as its query says over these; before the first of them all is forgotten.

        Of a source that is not among them nothing is there yet.
        """

    async def change(self, changes: Sequence[Changes]) -> Outcome:
        """What follows from changes, and from those gathered since the last one."""

    async def close(self) -> None:
        """Let go of what is held."""


class Stopped(Exception):
    """A view cannot go on by itself, and why: somebody has to decide. ``kind`` says why without values of rows."""

    def __init__(self, reason: str, kind: str | None = None) -> None:
        super().__init__(reason)
        self.kind = reason if kind is None else kind
