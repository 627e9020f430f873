"""Executes of one INSERT, one after another, that are stored as one insert.

A driver's ``executemany`` sends Bind and Execute for each row and a Sync behind all, which in PostgreSQL is one
transaction. Here the rows are gathered until something else comes, and stored together: all of them or none. What was
to be answered meanwhile waits for it, so that the client hears everything in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kalam.errors import TooLarge
from kalam.settings import Settings
from kalam_pg.session.own_tables import own_write
from kalam_pg.session.session import Session
from kalam_pg.session.statements import Portal, Prepared
from kalam_pg.wire import messages


class InsertRun:
    """What waits to be inserted. ``answers`` has what is to be told, None for a row's tag."""

    def __init__(self, session: Session, settings: Settings) -> None:
        self._session = session
        self._rows_max, self._bytes_max = settings.statement_rows_max, settings.statement_change_bytes_max
        self._prepared: Prepared | None = None
        self._rows: list[Sequence[Any]] = []
        self._answers: list[bytes | None] = []
        self._bytes = 0

    @property
    def waiting(self) -> bool:
        """Whether rows wait."""
        return bool(self._rows)

    def goes_on_with(self, prepared: Prepared) -> bool:
        """Whether another row of this statement belongs to what waits."""
        return not self._rows or prepared is self._prepared

    def tell(self, data: bytes) -> None:
        """Answer in order."""
        if self._rows:
            self._answers.append(data)
        else:
            self._session.write(data)

    def add(self, portal: Portal, byte_count: int) -> None:
        """Have a row wait; raises TooLarge."""
        self._bytes += byte_count
        if len(self._rows) >= self._rows_max or self._bytes > self._bytes_max:
            self.forget()
            raise TooLarge(
                f"the rows of one insert are more than {self._rows_max:,} (statement_rows_max) or {self._bytes_max:,} "
                "bytes (statement_change_bytes_max)",
                hint="send them in several transactions",
            )
        self._prepared = portal.prepared
        self._rows.append(portal.parameters)
        self._answers.append(None)

    async def store(self) -> None:
        """Store what waits and answer; raises what keeps the rows from being stored, then none is."""
        if not self._rows or self._prepared is None:
            return
        prepared, rows, answers = self._prepared, self._rows, self._answers
        self.forget()
        assert prepared.statement is not None
        own = own_write(prepared.statement, self._session.is_own)
        with self._session.writing(prepared.word, own), self._session.running():
            result = await self._session.caller.execute_many(prepared.statement.text, rows)
        tag = messages.complete(f"INSERT 0 {result.row_count // len(rows)}")
        for answer in answers:
            self._session.write(tag if answer is None else answer)

    def forget(self) -> None:
        """Nothing waits any more."""
        self._prepared, self._rows, self._answers, self._bytes = None, [], [], 0
