"""Where it stands how far a view has read and what became of it: in the database, or for as long as it is awake."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Protocol

from msgspec.structs import replace

from kalam.schema import Table
from kalam.storage.log.database import Database
from kalam.storage.log.view_positions import (
    Position,
    ViewState,
    forget_positions,
    hold_log,
    read_positions,
    read_state,
    write_positions,
    write_state,
)
from kalam.threads import Purpose, in_thread


class Ledger(Protocol):
    """The positions and the state of one view. Positions move with its rows, which is the writer's."""

    async def load(self) -> tuple[ViewState, dict[int, Position]]:
        """What stands there."""

    async def begin(self, positions: Sequence[Position], state: ViewState) -> None:
        """Have it begin anew, in this state: what comes behind these is kept for it."""

    async def stop(self, state: ViewState) -> None:
        """The same, and let go of what is kept for it."""


class DatabaseLedger:
    """That of a view whose rows are stored."""

    def __init__(self, database: Database, view: Table) -> None:
        self._database, self._table_id = database, view.table_id

    async def load(self) -> tuple[ViewState, dict[int, Position]]:
        """What was committed."""
        return await in_thread(Purpose.CATALOGUE, self._load)

    def _load(self) -> tuple[ViewState, dict[int, Position]]:
        with self._database.reading() as conn:
            return read_state(conn, self._table_id), read_positions(conn, self._table_id)

    async def begin(self, positions: Sequence[Position], state: ViewState) -> None:
        """Forget how far it was."""

        def hold(conn: sqlite3.Connection) -> None:
            forget_positions(conn, self._table_id)
            write_positions(conn, self._table_id, positions)
            write_state(conn, self._table_id, state)

        await self._database.write(hold)

    async def stop(self, state: ViewState) -> None:
        """Store the state; the logs of the sources keep nothing for it."""

        def write(conn: sqlite3.Connection) -> None:
            write_state(conn, self._table_id, state)
            hold_log(conn, self._table_id, holds=False)

        await self._database.write(write)


class MemoryLedger:
    """That of a view whose rows are in memory: whoever begins again has it filled."""

    def __init__(self) -> None:
        self.state = ViewState()

    async def load(self) -> tuple[ViewState, dict[int, Position]]:
        """The counts of this waking."""
        return replace(self.state, filled=False, stopped=""), {}

    async def begin(self, positions: Sequence[Position], state: ViewState) -> None:
        """Take note of the state; its sources keep what comes for it by themselves."""
        self.state = state

    async def stop(self, state: ViewState) -> None:
        """Take note of the state."""
        self.state = state
