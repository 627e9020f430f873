"""What a session carries out itself: blocks, settings, cursors, and what it refuses."""

from __future__ import annotations

from typing import Final, assert_never

import pyarrow as pa

from kalam.errors import NamespaceNotFound, Unsupported
from kalam_pg import types as pg
from kalam_pg.errors import CURSOR_EXISTS, NO_CURSOR, NO_STATEMENT, SqlError
from kalam_pg.session.answers import Answer
from kalam_pg.session.commands import (
    Begin,
    CloseCursor,
    Command,
    Commit,
    Copy,
    Deallocate,
    Declare,
    Discard,
    Fetch,
    Listen,
    Refused,
    Release,
    Reset,
    Rollback,
    Savepoint,
    Set,
    SetTransaction,
    Show,
    Unlisten,
    Use,
)
from kalam_pg.session.listening import Listening
from kalam_pg.session.session import Session
from kalam_pg.session.statements import Portal
from kalam_pg.settings import name_of
from kalam_pg.values.rows import BINARY_FORMAT, Column, spread

SHOWN_ALL: Final = tuple(Column(name, pg.TEXT) for name in ("name", "setting", "description"))


class OwnStatements:
    """Carries out the commands of one session."""

    def __init__(self, session: Session, listening: Listening) -> None:
        self._session, self._listening = session, listening

    def columns(self, command: Command) -> tuple[Column, ...] | None:
        """The columns of what a command answers, None for no rows; raises SqlError and NotFound."""
        match command:
            case Show("all"):
                return SHOWN_ALL
            case Show(name):
                return (Column(self._shown_name(name), pg.TEXT),)
            case Fetch(name, _, False):
                return self._cursor(name).answer.columns  # type: ignore[union-attr] # a cursor has been started
        return None

    async def answer(self, command: Command, formats: tuple[int, ...]) -> Answer:  # noqa: C901 - one case a command
        """Carry one out."""
        session, block = self._session, self._session.block
        match command:
            case Begin():
                session.begin(command)
                return Answer(command.tag)
            case Rollback(savepoint=str(name)):
                session.warn(block.roll_back_to(name))
                session.temporary.go_back(name)
                return Answer("ROLLBACK")
            case Commit() | Rollback():
                return await self._end(command)
            case Savepoint(name):
                block.save(name)
                session.temporary.save(name)
                return Answer("SAVEPOINT")
            case Release(name):
                block.release(name)
                session.temporary.release(name)
                return Answer("RELEASE")
            case Set(name, value, local):
                session.set(name, value, local=local)
                return Answer("SET")
            case SetTransaction():
                block.set(command)
                return Answer("SET")
            case Reset(name):
                session.settings.reset_all() if name is None else session.set(name, None)
                return Answer("RESET")
            case Show():
                return self._show(command, formats)
            case Discard(what):
                return await self._discard(what)
            case Deallocate(name):
                return self._deallocate(name)
            case Fetch():
                return await self._fetch(command, formats)
            case CloseCursor(name):
                return await self._close(name)
            case Listen(channel):
                await self._listening.listen(channel)
                return Answer("LISTEN")
            case Unlisten(channel):
                self._listening.unlisten(channel)
                return Answer("UNLISTEN")
            case Use(namespace):
                return self._use(namespace)
            case Refused(detail, hint):
                raise Unsupported(detail, hint=hint)
            case Declare() | Copy():
                raise AssertionError("carried out elsewhere")
            case other:
                assert_never(other)

    async def _end(self, command: Commit | Rollback) -> Answer:
        tag, said = self._session.block.end(command)
        self._session.warn(said)
        await self._session.end_block(rolled_back=tag == "ROLLBACK")
        if self._session.block.status == "T":  # AND CHAIN
            self._session.temporary.save()
        return Answer(tag)

    def _show(self, command: Show, formats: tuple[int, ...]) -> Answer:
        columns = self.columns(command)
        assert columns is not None
        if command.name == "all":
            return Answer.of_rows("SHOW", formatted(columns, formats), self._session.settings.all())
        return Answer.of_rows("SHOW", formatted(columns, formats), [(self._value(command.name),)])

    def _shown_name(self, name: str) -> str:
        return name if "." in name else name_of(name)

    def _value(self, name: str) -> str:
        block = self._session.block
        if name.lower() == "transaction_read_only":
            return "on" if block.read_only else "off"
        return self._session.settings.show(name)

    async def _discard(self, what: str) -> Answer:
        if what == "ALL":
            if self._session.block.status != "I":
                raise SqlError("25001", "DISCARD ALL cannot run inside a transaction block")
            self._listening.unlisten(None)
            await self._session.reset()
        if what in ("TEMP", "TEMPORARY"):
            self._session.temporary.clear()
        return Answer(f"DISCARD {'TEMP' if what == 'TEMPORARY' else what}")

    def _deallocate(self, name: str | None) -> Answer:
        statements = self._session.statements
        if name is None:
            for each in [each for each in statements if each]:
                del statements[each]
            return Answer("DEALLOCATE ALL")
        if statements.pop(name, None) is None:
            raise SqlError(NO_STATEMENT, f'prepared statement "{name}" does not exist')
        return Answer("DEALLOCATE")

    def _use(self, namespace: str) -> Answer:
        if not self._session.caller.has_namespace(namespace):
            raise NamespaceNotFound(f"there is no namespace {namespace!r}")
        self._session.set("search_path", f'"{namespace}"')
        return Answer("SET")

    # Cursors.

    def check_declared(self, command: Declare) -> None:
        """Raise SqlError where a cursor cannot be declared now."""
        if self._session.block.status == "I" and not command.hold:
            raise SqlError("25P01", "DECLARE CURSOR can only be used in transaction blocks", "BEGIN, or WITH HOLD")
        if command.name in self._session.portals:
            raise SqlError(CURSOR_EXISTS, f'cursor "{command.name}" already exists')

    def _cursor(self, name: str) -> Portal:
        portal = self._session.portals.get(name)
        if portal is None or portal.answer is None:
            raise SqlError(NO_CURSOR, f'cursor "{name}" does not exist')
        return portal

    async def _fetch(self, command: Fetch, formats: tuple[int, ...]) -> Answer:
        portal = self._cursor(command.name)
        answer = portal.answer
        assert answer is not None
        tables: list[pa.Table] = []
        left = command.count
        while left is None or left > 0:
            table = await answer.next()
            if table is None:
                break
            if left is not None and table.num_rows > left:
                answer.give_back(table.slice(left))
                table = table.slice(0, left)
            left = None if left is None else left - table.num_rows
            tables.append(table)
        if command.move:
            return Answer(f"MOVE {sum(table.num_rows for table in tables)}")
        columns = answer.columns or ()
        binary = any(column.format == BINARY_FORMAT for column in columns)
        found = Answer("FETCH ", columns if binary and not formats else formatted(columns, formats), at_hand=tables)
        found.asked = answer.asked
        return found

    async def _close(self, name: str | None) -> Answer:
        if name is None:
            await self._session.close_portals(held=True)
            return Answer("CLOSE CURSOR ALL")
        portal = self._cursor(name)
        del self._session.portals[name]
        await portal.close()
        return Answer("CLOSE CURSOR")


def formatted(columns: tuple[Column, ...], formats: tuple[int, ...]) -> tuple[Column, ...]:
    """The columns in the formats that are asked for."""
    every = spread(formats, len(columns))
    return tuple(
        Column(each.name, each.type, each.modifier, wanted, each.table_oid, each.number)
        for each, wanted in zip(columns, every, strict=True)
    )
