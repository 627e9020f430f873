"""The task that appends the rows of INSERTs, each of which is judged for itself.

The law: while all keys of a task are new and differ, and nothing of it may be a repeat, it is taken as it is, in one
look. Only where that is not so is each statement looked at, and the others are stored beside those that are refused.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from operator import attrgetter

import msgspec

from kalam.errors import DuplicateKey, KalamError
from kalam.rows.column_rows import ColumnRows
from kalam.rows.growing_keys import together
from kalam.rows.stored import join_packed, pack_rows, row_count
from kalam.rows.types import Row
from kalam.schema import Table
from kalam.storage.log.answers import known_answers, remember_answers
from kalam.storage.log.copies import EMPTY, Chunk, Copy, Key
from kalam.storage.log.copy_store import CopyStore, write_chunk
from kalam.storage.log.database import now_us
from kalam.storage.log.writes import Announcement, ColdKeys, Stale, Traces, check_free, taken_keys

_TRACE = attrgetter("trace")


class InsertStatement(msgspec.Struct, gc=False):
    """One INSERT: all its rows or none. ``packed`` are blobs of ``pack_rows``, side by side all of them.

    ``msg_id`` makes it idempotent for ``sender``; ``trace`` is the ``traceparent`` that it came with. With ``skip``
    the rows whose keys are taken are told (``Taken``), so that the others can be tried without them; ``told`` is what
    its answer has besides.
    """

    keys: Sequence[Key]
    rows: Sequence[Row]
    packed: Sequence[bytes]
    msg_id: str | None = None
    sender: str = ""
    trace: str | None = None
    skip: bool = False
    told: bytes = b""


class LoneRows(msgspec.Struct, gc=False):
    """Rows of which each is an INSERT of its own, without an id and a trace: what single events are that came together.

    ``packed`` are blobs of ``pack_rows``, side by side all of the rows.
    """

    keys: Sequence[Key]
    rows: Sequence[Row]
    packed: Sequence[bytes]

    def statements(self) -> list[InsertStatement]:
        """Each for itself."""
        pairs = zip(self.keys, self.rows, strict=True)
        return [InsertStatement([key], [row], [pack_rows([row])]) for key, row in pairs]


Statements = Sequence[InsertStatement] | LoneRows


class Inserted(msgspec.Struct, frozen=True, gc=False):
    """What became of an InsertStatement: the seq of its last row."""

    last_seq: int
    updated_us: int


class Repeated(msgspec.Struct, frozen=True):
    """The statement was a repeat: the answer that its first run got."""

    answer: bytes


class Taken(msgspec.Struct, frozen=True):
    """Nothing of a statement is stored, because rows have keys that are taken: the error of each, by its place."""

    errors: Mapping[int, DuplicateKey]


Outcome = Inserted | Repeated | Taken | KalamError


class AllInserted(msgspec.Struct, frozen=True, gc=False):
    """What became of LoneRows of which none was refused: the seq of the first one."""

    first_seq: int


Outcomes = list[Outcome] | AllInserted
"""The outcome of each statement, in order; ``AllInserted`` for LoneRows alone."""


class InsertTask:
    """Appends the rows of several INSERTs to one copy as one chunk; each statement is judged for itself."""

    def __init__(
        self,
        store: CopyStore,
        table: Table,
        user: str,
        statements: Statements,
        *,
        cold: ColdKeys = EMPTY,
        epoch: int | None = None,
        answer: Callable[[InsertStatement, int], bytes] | None = None,
    ) -> None:
        each = [statements] if isinstance(statements, LoneRows) else statements
        self.cost = sum(len(statement.keys) for statement in each)
        self._store, self._table, self._user = store, table, user
        self._statements, self._cold, self._epoch, self._answer = statements, cold, epoch, answer
        self._copy: Copy | None = None
        self._chunks: list[tuple[Chunk, Sequence[Row], Traces | None]] = []

    def apply(self, conn: sqlite3.Connection) -> Outcomes:
        """Judge and append; the outcome of each statement, in order."""
        copy = self._copy = self._store.for_writing(conn, self._table, self._user)
        if (copy.segments or self._cold) and copy.epoch != self._epoch:
            raise Stale("segments have changed")
        self._chunks = []  # the writer applies a task again when the group that it was in could not be committed
        updated_us = now_us()
        if isinstance(self._statements, LoneRows):
            lone = self._statements
            if self._all_new(copy, lone.keys):
                first_seq = copy.last_seq + 1
                copy.versions.add(lone.keys, first_seq)
                self._append(conn, copy, updated_us, _pieces(lone), superseding=False)
                return AllInserted(first_seq)
            self._statements = lone.statements()
        return self._judge(conn, copy, updated_us, self._statements)

    def _judge(
        self, conn: sqlite3.Connection, copy: Copy, updated_us: int, statements: Sequence[InsertStatement]
    ) -> list[Outcome]:
        outcomes: list[Outcome] = []
        accepted: list[InsertStatement] = []
        next_seq, superseding = copy.last_seq + 1, False
        if self._all_free(copy, statements):
            _take_all(copy, updated_us, statements, outcomes)
            accepted += statements
        for statement in statements if not accepted else ():
            repeat = self._repeat(conn, statement)
            if repeat is not None:
                outcomes.append(repeat)
                continue
            try:
                if not self._all_new(copy, statement.keys):
                    superseding |= check_free(self._table, statement.keys, copy.versions, self._cold)
            except DuplicateKey as exc:
                keys = statement.keys
                found = Taken(taken_keys(self._table, keys, copy.versions, self._cold)) if statement.skip else exc
                outcomes.append(found if isinstance(found, Taken) else found.as_value())
                continue
            after = next_seq + len(statement.keys)
            copy.versions.add(statement.keys, next_seq)
            next_seq = after
            accepted.append(statement)
            outcomes.append(Inserted(after - 1, updated_us))
            self._remember(conn, statement, after - 1, updated_us)
        self._append(conn, copy, updated_us, _chunks_of(accepted), superseding=superseding)
        return outcomes

    def _append(
        self,
        conn: sqlite3.Connection,
        copy: Copy,
        updated_us: int,
        pieces: Iterator[tuple[Sequence[Row], bytes, Traces | None]],
        *,
        superseding: bool,
    ) -> None:
        for rows, payload, traces in pieces:
            chunk = Chunk(
                first_seq=copy.last_seq + 1,
                row_count=len(rows),
                op="insert",
                updated_us=updated_us,
                schema_version=self._table.schema_version,
                superseding=superseding,
                payload=payload,
            )
            write_chunk(conn, copy.copy_id, chunk)
            copy.append(chunk)
            self._chunks.append((chunk, rows, traces))

    def _all_free(self, copy: Copy, statements: Sequence[InsertStatement]) -> bool:
        """Whether no statement needs a look of its own: all keys are new and differ, and nothing may be a repeat."""
        if any(statement.msg_id is not None for statement in statements):
            return False
        return self._all_new(copy, together([statement.keys for statement in statements]))

    def _all_new(self, copy: Copy, keys: Sequence[Key]) -> bool:
        return not self._cold and copy.versions.are_new(keys)

    def _repeat(self, conn: sqlite3.Connection, statement: InsertStatement) -> Repeated | None:
        if statement.msg_id is None:
            return None
        name = statement.sender, statement.msg_id
        known = known_answers(conn, self._table, [name])
        return Repeated(known[name]) if name in known else None

    def _remember(self, conn: sqlite3.Connection, statement: InsertStatement, last_seq: int, updated_us: int) -> None:
        if statement.msg_id is not None and self._answer is not None:
            answers = {(statement.sender, statement.msg_id): self._answer(statement, last_seq)}
            remember_answers(conn, self._table, answers, updated_us)

    def committed(self) -> None:
        """Let readers see the rows."""
        if self._copy is not None:
            self._copy.publish_view()

    def rolled_back(self) -> None:
        """Forget the copy: the database knows what it held before."""
        self._store.forget(self._table.table_id, self._user)

    def announcements(self) -> list[Announcement]:
        """What was committed."""
        if self._copy is None:
            return []
        return [Announcement(self._table, self._copy, *each) for each in self._chunks]


def _take_all(copy: Copy, updated_us: int, statements: Sequence[InsertStatement], outcomes: list[Outcome]) -> None:
    seq = copy.last_seq
    for statement in statements:
        first, seq = seq + 1, seq + len(statement.keys)
        copy.versions.add(statement.keys, first)
        outcomes.append(Inserted(seq, updated_us))


def _pieces(statement: LoneRows | InsertStatement) -> Iterator[tuple[Sequence[Row], bytes, Traces | None]]:
    """The rows, payload and traces of each blob."""
    start, trace = 0, None if isinstance(statement, LoneRows) else statement.trace
    for blob in statement.packed:
        count = len(statement.rows) if len(statement.packed) == 1 else row_count(blob)
        yield statement.rows[start : start + count], blob, [(count, trace)] if trace else None
        start += count


def _chunks_of(statements: Sequence[InsertStatement]) -> Iterator[tuple[Sequence[Row], bytes, Traces | None]]:
    """The rows, payload and traces of each chunk: small statements together, the blobs of a large one by itself."""
    small = [each for each in statements if len(each.packed) <= 1 and not isinstance(each.rows, ColumnRows)]
    if len(small) == len(statements) and small:
        rows = small[0].rows if len(small) == 1 else list(chain.from_iterable(each.rows for each in small))
        payload = join_packed([blob for statement in small for blob in statement.packed], len(rows))
        yield rows, payload, [(len(each.rows), each.trace) for each in small] if any(map(_TRACE, small)) else None
        return
    for statement in statements:
        yield from _pieces(statement)
