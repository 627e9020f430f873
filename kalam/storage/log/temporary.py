"""Temporary tables: what sessions hold for themselves, and nobody else can name.

Law: each session has a namespace of its own for them, ``pg_temp_<n>``, which is no namespace of the catalogue. Whoever
carries out a statement puts it in front of the names that mean the session's own tables, and lets through no text that
names another's. Nothing of them is in ``kalam.db``, on a feed, or in the data directory.
"""

from __future__ import annotations

import resource
from collections.abc import Collection, Iterator, Sequence
from itertools import count
from typing import Final

import msgspec
import pyarrow as pa

from kalam.errors import AlreadyExists, TableNotFound, TooLarge
from kalam.names import TEMPORARY_NAMESPACE, TableName
from kalam.rows.columns import shown_schema
from kalam.schema import Column, Table
from kalam.storage.log.spilled import Piece, Spill
from kalam.table_options import OnCommit, TemporaryOptions

FIRST_ID: Final = 1 << 27
"""Their ids are far behind those of the catalogue, which never gets there."""
TABLES_MAX: Final = 1_000
"""Temporary tables of one session."""
FILES_SHARE: Final = 20
"""The files of a user's sessions are at most this part of those that may be open; each is open two or three times."""


class TemporaryTable(msgspec.Struct, frozen=True):
    """A temporary table at one moment: ``pieces`` have its rows, each by the table's ``shown_schema``."""

    table: Table
    pieces: tuple[Piece, ...] = ()

    @property
    def schema(self) -> pa.Schema:
        """The columns of its rows."""
        return shown_schema(self.table.columns)

    @property
    def rows(self) -> pa.Table:
        """All of its rows."""
        return pa.concat_tables([self.schema.empty_table(), *(piece.table for piece in self.pieces)])


Tables = dict[str, TemporaryTable]
Former = dict[str, TemporaryTable | None]
"""What tables were when a block or a savepoint began, of those alone that have changed since; None for no table."""


class TemporarySpace:
    """The temporary tables of one session, and what they were where its block may go back to.

    ``changes`` counts the tables that came and went; ``bytes_max`` bounds the rows of all of them. ``user`` is whose
    session it is.
    """

    def __init__(self, spaces: TemporarySpaces, namespace: str, user: str, bytes_max: int) -> None:
        self._spaces, self.namespace, self.user, self.bytes_max = spaces, namespace, user, bytes_max
        self.tables: Tables = {}
        self.changes = 0
        self._levels: list[tuple[str | None, Former]] = []

    def table(self, name: str) -> TemporaryTable:
        """The table of a name; raises TableNotFound."""
        found = self.tables.get(name)
        if found is None:
            raise TableNotFound(f"there is no temporary table {name!r}")
        return found

    def create(
        self, name: str, columns: Sequence[Column], key: Sequence[str], on_commit: OnCommit, owner: str
    ) -> TemporaryTable:
        """A table without rows, which is not there before it is ``put``; raises AlreadyExists and TooLarge."""
        self.check_free(name)
        table = Table.of_session(
            on_commit,
            name=TableName(self.namespace, name),
            columns=tuple(columns),
            key=tuple(key),
            owned_by=owner,
            table_id=self._spaces.free_id(),
        )
        return TemporaryTable(table)

    def check_free(self, name: str) -> None:
        """Raise AlreadyExists for a name that is taken, and TooLarge where no other table may come."""
        if name in self.tables:
            raise AlreadyExists(f"the temporary table {name} exists already")
        if len(self.tables) >= TABLES_MAX:
            raise TooLarge(f"a session has at most {TABLES_MAX:,} temporary tables")

    def put(self, state: TemporaryTable) -> None:
        """Make this the state of its table."""
        name = state.table.name.table
        former = self.tables.get(name)
        if former is None or former.table is not state.table:
            self.changes += 1
        self._note(name)
        self.tables[name] = state

    def drop(self, name: str) -> None:
        """Drop a table; raises TableNotFound."""
        self.table(name)
        self.changes += 1
        self._note(name)
        del self.tables[name]

    def clear(self) -> None:
        """Drop all of them."""
        for name in list(self.tables):
            self.drop(name)

    def spill(self, state: TemporaryTable) -> Spill:
        """What takes more rows of a table, within the bound on the session's rows."""
        return Spill(state.schema, self.check_room, self.check_file)

    def filled(self, state: TemporaryTable, spill: Spill) -> TemporaryTable:
        """A table with the rows that were taken behind its own; blocking. Raises StorageFull and TooLarge."""
        pieces = (*state.pieces, spill.piece()) if spill.rows else state.pieces
        return msgspec.structs.replace(state, pieces=self._merged(state.schema, pieces))

    def _merged(self, schema: pa.Schema, pieces: tuple[Piece, ...]) -> tuple[Piece, ...]:
        """Pieces of which each is more than twice the next one, so that they are few however the rows came.

        Two that lie in memory may need a file together; of two in files there is one less afterwards.
        """
        while len(pieces) > 1 and pieces[-2].table.num_rows <= 2 * pieces[-1].table.num_rows:
            last = pieces[-2:]
            in_memory = all(piece.file is None for piece in last)
            with Spill(schema, lambda _: None, self.check_file if in_memory else lambda: None) as spill:
                for piece in last:
                    spill.add(piece.table)
                pieces = (*pieces[:-2], spill.piece())
        return pieces

    def states(self) -> Iterator[TemporaryTable]:
        """Every state of a table that is there, or may come back; also from a thread beside the session."""
        yield from list(self.tables.values())
        for _, former in list(self._levels):
            yield from (state for state in list(former.values()) if state is not None)

    def check_room(self, size: int) -> None:
        """Raise TooLarge where so many bytes more are too many."""
        pieces = {id(piece): piece for state in self.states() for piece in state.pieces}
        used = sum(piece.byte_count for piece in pieces.values())
        if used + size > self.bytes_max:
            raise TooLarge(
                f"the session's temporary tables would have more than {self.bytes_max:,} bytes "
                "(setting temporary_bytes_max)",
                hint="DROP what is not needed any more, or CREATE TABLE … AS an ordinary one",
            )

    def check_file(self) -> None:
        """Raise TooLarge where the user's sessions have as many files open as they may."""
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // FILES_SHARE
        if self._spaces.files_of(self.user) >= most:
            raise TooLarge(
                f"the temporary tables of user {self.user} have {most:,} files open, and no more than that",
                hint="DROP what is not needed any more, or CREATE TABLE … AS an ordinary one",
            )

    # Blocks.

    def save(self, savepoint: str | None = None) -> None:
        """Keep what there is from now on: a block begins, or a savepoint is set."""
        if savepoint is None:
            self._levels.clear()
        self._levels.append((savepoint, {}))

    def _note(self, name: str) -> None:
        """Keep what a table is before it changes, if that is its first change since the last savepoint."""
        if self._levels:
            self._levels[-1][1].setdefault(name, self.tables.get(name))

    def release(self, savepoint: str) -> None:
        """Forget a savepoint, and those after it."""
        place = self._place(savepoint)
        for _, former in self._levels[place:]:
            for name, state in former.items():
                self._levels[place - 1][1].setdefault(name, state)
        del self._levels[place:]

    def go_back(self, savepoint: str | None = None) -> None:
        """Have what there was at the beginning of the block, or at a savepoint, which stays."""
        place = 0 if savepoint is None else self._place(savepoint)
        if place >= len(self._levels):
            return
        for _, former in reversed(self._levels[place:]):
            for name, state in former.items():
                if state is None:
                    self.tables.pop(name, None)
                else:
                    self.tables[name] = state
        self.changes += 1
        self._levels[place:] = [(savepoint, {})]

    def _place(self, savepoint: str) -> int:
        places = [place for place, (name, _) in enumerate(self._levels) if name == savepoint]
        return places[-1] if places else len(self._levels)

    def end_block(self) -> None:
        """Do what tables are to do when a block ends, or a statement outside of one."""
        self._levels.clear()
        for name, state in list(self.tables.items()):
            options = state.table.options
            assert isinstance(options, TemporaryOptions)
            if options.on_commit is OnCommit.DROP:
                self.drop(name)
            elif options.on_commit is OnCommit.DELETE_ROWS and state.pieces:
                self.tables[name] = TemporaryTable(state.table)

    def close(self) -> None:
        """Let go of everything: the session ends."""
        self._levels.clear()
        self.clear()
        self._spaces.forget(self)


class TemporarySpaces:
    """The spaces of all sessions."""

    def __init__(self) -> None:
        self._spaces: dict[str, TemporarySpace] = {}

    def open(self, user: str, bytes_max: int, taken: Collection[str] = ()) -> TemporarySpace:
        """A space for a session of a user, under a name that is none of the namespaces that are ``taken``."""
        free = (name for number in count(1) if (name := f"{TEMPORARY_NAMESPACE}_{number}") not in taken)
        namespace = next(name for name in free if name not in self._spaces)
        space = self._spaces[namespace] = TemporarySpace(self, namespace, user, bytes_max)
        return space

    def forget(self, space: TemporarySpace) -> None:
        """Let go of a space."""
        self._spaces.pop(space.namespace, None)

    def get(self, name: TableName) -> TemporaryTable | None:
        """The table of a full name; None where there is none."""
        space = self._spaces.get(name.namespace)
        return None if space is None else space.tables.get(name.table)

    def has(self, namespace: str) -> bool:
        """Whether it is the namespace of some session's temporary tables."""
        return namespace in self._spaces

    def files_of(self, user: str) -> int:
        """How many files hold rows of a user's sessions; also from a thread."""
        states = (state for space in list(self._spaces.values()) if space.user == user for state in space.states())
        return len({id(piece) for state in states for piece in state.pieces if piece.file is not None})

    def free_id(self) -> int:
        """An id that no table has now."""
        taken = {state.table.table_id for space in self._spaces.values() for state in space.states()}
        return next(number for number in count(FIRST_ID) if number not in taken)
