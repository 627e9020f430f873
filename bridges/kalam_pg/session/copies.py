"""COPY as a session carries it out: rows out as a query's, rows in as one INSERT, all of them or none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import pyarrow as pa

from kalam.errors import TooLarge
from kalam.names import TableName
from kalam.query.queries import resolve
from kalam.schema import Column as TableColumn
from kalam.schema import Table
from kalam.settings import Settings
from kalam.threads import Purpose, in_thread
from kalam_pg.copy.options import CopyStatement, read_copy
from kalam_pg.copy.rows_in import RowsIn, rows_in
from kalam_pg.copy.rows_out import TRAILER, copy_rows, header_row, with_signature
from kalam_pg.errors import SqlError
from kalam_pg.session.commands import Copy
from kalam_pg.session.rows_out import INLINE_ROWS_MAX
from kalam_pg.session.session import Session
from kalam_pg.values.rows import columns_of, split
from kalam_pg.wire import messages
from kalam_pg.wire.channel import COPY_DATA

COPY_DONE, COPY_FAIL, FLUSH, SYNC = (ord(kind) for kind in "cfHS")
READ_BYTES: Final = 4 << 20
"""So much is read at a time."""


class Copies:
    """Carries out the COPY statements of one session."""

    def __init__(self, session: Session, settings: Settings) -> None:
        self._session = session
        self._rows_max, self._bytes_max = settings.statement_rows_max, settings.statement_change_bytes_max

    async def run(self, command: Copy) -> None:
        """Carry one out, up to its tag."""
        copied = read_copy(command.text)
        if copied.into:
            assert copied.table is not None
            with self._session.writing("COPY FROM", "rows" if self._session.is_own(copied.table) else None):
                rows = await self._take(copied)
        else:
            rows = await self._give(copied)
        self._session.write(messages.complete(f"COPY {rows}"))

    async def _give(self, copied: CopyStatement) -> int:
        session = self._session
        binary = int(copied.form == "binary")
        tables = session.caller.stream(self._query(copied), ())
        try:
            first = await anext(tables)
            columns = columns_of(first.schema, (binary,))
            session.write(messages.copy_out([binary] * len(columns)))
            if copied.header and not binary:
                session.write(header_row(columns, copied))
            rows, table = 0, first
            while table is not None:
                for piece in split(table):
                    data = (
                        copy_rows(piece, columns, copied)
                        if piece.num_rows <= INLINE_ROWS_MAX
                        else await in_thread(Purpose.ANSWERS, copy_rows, piece, columns, copied)
                    )
                    session.write(with_signature(data) if binary and not rows else data)
                    rows += piece.num_rows
                    await session.drain()
                table = await anext(tables, None)
        finally:
            await tables.aclose()
        if binary:
            end = messages.copy_data(TRAILER)
            session.write(end if rows else with_signature(end))
        session.write(messages.COPY_DONE)
        return rows

    def _query(self, copied: CopyStatement) -> str:
        if copied.query is not None:
            return copied.query
        table = self._table(copied)
        named = copied.columns or tuple(column.name for column in shown_columns(table))
        columns = ", ".join(_quoted(name) for name in named)
        return f"SELECT {columns} FROM {_quoted(table.name.namespace)}.{_quoted(table.name.table)}"  # noqa: S608 - quoted

    def _table(self, copied: CopyStatement) -> Table:
        assert copied.table is not None
        session = self._session
        if session.is_own(copied.table):
            return session.temporary.table(copied.table.table).table
        name: TableName = resolve(copied.table, session.namespace)
        return session.caller.table(name)

    async def _take(self, copied: CopyStatement) -> int:
        session, caller = self._session, self._session.caller
        table = self._table(copied)
        if not table.is_temporary:
            caller.taking(table.name)
        columns = _named(table, copied.columns)
        binary = int(copied.form == "binary")
        session.write(messages.copy_in([binary] * len(columns)))
        session.flush()
        read = rows_in(copied, columns)
        tables = await self._read(read)
        data = pa.concat_tables(tables) if tables else None
        if data is None or not data.num_rows:
            return 0
        result = await caller.execute_many(_insert(table, columns), data)
        return result.row_count

    async def _read(self, read: RowsIn) -> list[pa.Table]:
        """The rows that the client sends, within the bounds of a statement."""
        tables: list[pa.Table] = []
        rows = size = 0
        self._ended = False
        waiting: list[bytes] = []
        waiting_bytes = 0
        while not self._ended:
            data = await self._piece()
            if data is not None:
                waiting.append(data)
                waiting_bytes += len(data)
            if waiting_bytes < READ_BYTES and not self._ended:
                continue
            table = await in_thread(Purpose.BODIES, read.take, b"".join(waiting), self._ended)
            waiting, waiting_bytes = [], 0
            rows, size = rows + table.num_rows, size + table.nbytes
            if rows > self._rows_max or size > self._bytes_max:
                raise TooLarge(
                    f"one COPY takes at most {self._rows_max:,} rows (statement_rows_max) and {self._bytes_max:,} "
                    "bytes (statement_change_bytes_max)",
                    hint="copy in several statements, or load files by `kalam insert`",
                )
            if table.num_rows:
                tables.append(table)
        return tables

    async def _piece(self) -> bytes | None:
        """The next data; notes the end."""
        message = await self._session.channel.read()
        if message.kind == COPY_DATA:
            return message.data
        if message.kind == COPY_DONE:
            self._ended = True
            return None
        if message.kind == COPY_FAIL:
            said = message.data.partition(b"\0")[0].decode("utf-8", "replace")
            raise SqlError("57014", f"COPY from stdin failed: {said}")
        if message.kind in (FLUSH, SYNC):
            return None
        raise SqlError("08P01", f"unexpected message type {chr(message.kind)!r} during COPY from stdin")


def shown_columns(table: Table) -> Sequence[TableColumn]:
    """The columns that a COPY without a list has: those that were declared."""
    return [column for column in table.columns if not column.name.startswith("_")]


def _named(table: Table, names: Sequence[str]) -> list[TableColumn]:
    if not names:
        return list(shown_columns(table))
    by_name = {column.name: column for column in table.columns}
    for name in names:
        if name not in by_name:
            raise SqlError("42703", f'column "{name}" of relation "{table.name}" does not exist')
    if len(set(names)) < len(names):
        raise SqlError("42701", "a column is named twice")
    return [by_name[name] for name in names]


def _insert(table: Table, columns: Sequence[TableColumn]) -> str:
    """The INSERT of a row of parameters into these columns."""
    names = ", ".join(_quoted(column.name) for column in columns)
    values = ", ".join(f"${number}" for number in range(1, len(columns) + 1))
    into = f"{_quoted(table.name.namespace)}.{_quoted(table.name.table)}"
    return f"INSERT INTO {into} ({names}) VALUES ({values})"  # noqa: S608 - quoted


def _quoted(name: str) -> str:
    escaped = name.replace('"', '""')
    return f'"{escaped}"'
