"""The extended protocol: Parse, Bind, Describe, Execute, Close, Flush and Sync.

Law: behind an error everything is skipped up to the next Sync. Portals end there too, outside of a block.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from kalam.settings import Settings
from kalam.sql import StatementText
from kalam_pg.errors import CURSOR_EXISTS, NO_CURSOR, NO_STATEMENT, PROTOCOL, STATEMENT_EXISTS, SqlError
from kalam_pg.session.commands import Copy
from kalam_pg.session.copies import Copies
from kalam_pg.session.executor import Executor
from kalam_pg.session.insert_run import InsertRun
from kalam_pg.session.own_statements import formatted
from kalam_pg.session.rows_out import send_rows
from kalam_pg.session.session import Session
from kalam_pg.session.statements import Portal, Prepared
from kalam_pg.values.rows import Column
from kalam_pg.wire import messages
from kalam_pg.wire.channel import Gone, Message
from kalam_pg.wire.payload import Payload

ONES = frozenset((0, 1))
HELD_MAX = 10_000
"""Prepared statements, and portals, that a session may have."""


class Bound(msgspec.Struct, frozen=True):
    """What a Bind message says: the values of parameters with their formats, and the formats of what comes back."""

    portal: str
    statement: str
    forms: tuple[int, ...]
    cells: Sequence[bytes | None]
    formats: tuple[int, ...]


class Extended:
    """Carries out the messages of one session."""

    def __init__(self, session: Session, executor: Executor, copies: Copies, settings: Settings) -> None:
        self._session, self._executor, self._copies = session, executor, copies
        self._run = InsertRun(session, settings)
        self.skipping = False
        self._bound_bytes = 0
        self.quick: Mapping[int, Callable[[bytes], bool]] = {
            ord("P"): self._parse_at_once,
            ord("B"): self._bind_at_once,
            ord("D"): self._describe_at_once,
            ord("E"): self._execute_at_once,
            ord("S"): self._sync_at_once,
        }
        """What carries a message out at once, by its kind."""

    @property
    def waits(self) -> bool:
        """Whether rows wait to be stored, or an error for its Sync."""
        return self.skipping or self._run.waiting

    # What needs no waiting. Each says whether it was carried out; where it was not, nothing has happened, and ``take``
    # begins from the start: it tells what is wrong, too.

    def _sync_at_once(self, _: bytes) -> bool:
        session = self._session
        if session.block.status == "I" and not session.forget_portals():
            return False
        session.ready()
        return True

    def _parse_at_once(self, data: bytes) -> bool:
        name, text, declared = _read_parse(Payload(data))
        prepared = None if name else self._executor.known(text, declared)
        if prepared is None or len(self._session.statements) >= HELD_MAX:
            return False
        self._session.block.check(prepared.command)
        self._session.statements[""] = prepared
        self._session.write(messages.PARSED)
        return True

    def _bind_at_once(self, data: bytes) -> bool:
        bound, portals = _read_bind(data), self._session.portals
        prepared, former = self._prepared(bound.statement), portals.get(bound.portal)
        oids = prepared.oids(len(bound.cells))
        if prepared.inserts_rows or oids is None or len(portals) >= HELD_MAX:
            return False
        if former is not None and (bound.portal or former.answer is not None):
            return False
        self._session.block.check(prepared.command)
        parameters = self._executor.values(oids, bound.cells, bound.forms)
        portals[bound.portal] = Portal(prepared, parameters, bound.formats)
        self._session.write(messages.BOUND)
        return True

    def _describe_at_once(self, data: bytes) -> bool:
        name = _name_in(data[1:])
        if data[:1] == b"P":
            portal = self._portal(name)
            told = portal.prepared.told.get(portal.formats) if portal.answer is None else None
        else:
            told = self._prepared(name).told_whole if data[:1] == b"S" else None
        if told is None:
            return False
        self._session.write(told)
        return True

    def _execute_at_once(self, data: bytes) -> bool:
        portal = self._portal(_name_in(data[:-4]))
        found = self._executor.look(portal)
        if found is None:
            return False
        portal.done = True
        self._session.write(found.data)
        return True

    async def take(self, message: Message) -> None:
        """Carry one out; an error is told, and what follows is skipped."""
        if self.skipping:
            return
        payload = Payload(message.data)
        self._statement: StatementText | None = None
        try:
            match chr(message.kind):
                case "P":
                    await self._parse(payload)
                case "B":
                    await self._bind(message.data)
                case "D":
                    await self._describe(payload)
                case "E":
                    await self._execute(payload)
                case "C":
                    await self._close(payload)
        except Gone:
            raise
        except Exception as exc:  # noqa: BLE001 - whatever it was, the client is told
            self.fail(exc)

    def fail(self, error: Exception) -> None:
        """Tell an error, and skip what follows; rows that wait are not stored, for they were one transaction."""
        self.skipping = True
        self._run.forget()
        self._session.fail(error, self._statement)

    async def flush(self) -> None:
        """Flush: the client wants to hear all by now."""
        await self._settle()
        await self._session.drain()

    async def sync(self) -> None:
        """Sync: the end of a run, where an error ends as well."""
        await self._settle()
        self.skipping = False
        if self._session.block.status == "I":
            await self._session.end_block(rolled_back=False)
        self._session.ready()
        await self._session.drain()

    async def _settle(self) -> None:
        """Store what waits."""
        try:
            await self._run.store()
        except Gone:
            raise
        except Exception as exc:  # noqa: BLE001 - whatever it was, the client is told
            self.fail(exc)

    async def _parse(self, payload: Payload) -> None:
        await self._run.store()
        name, text, declared = _read_parse(payload)
        statements = self._session.statements
        if name and name in statements:
            raise SqlError(STATEMENT_EXISTS, f'prepared statement "{name}" already exists')
        if len(statements) >= HELD_MAX:
            raise SqlError("54000", f"a session has at most {HELD_MAX:,} prepared statements")
        self._statement = StatementText(text)
        prepared = self._executor.known(text, declared) or await self._executor.prepare(text, declared)
        self._session.block.check(prepared.command)
        statements[name] = prepared
        self._session.write(messages.PARSED)

    async def _bind(self, data: bytes) -> None:
        bound = _read_bind(data)
        prepared = self._prepared(bound.statement)
        if not (prepared.inserts_rows and self._run.goes_on_with(prepared)):
            await self._run.store()
        self._statement = prepared.statement
        self._session.block.check(prepared.command)
        await self._replace(bound.portal)
        parameters = await self._parameters(prepared, bound.cells, bound.forms)
        self._session.portals[bound.portal] = Portal(prepared, parameters, bound.formats)
        self._bound_bytes = len(data)
        self._run.tell(messages.BOUND)

    async def _parameters(
        self, prepared: Prepared, cells: Sequence[bytes | None], forms: Sequence[int]
    ) -> Sequence[Any]:
        if not cells or prepared.described is not None:  # nothing is to be asked of the engine
            return await self._executor.parameters(prepared, cells, forms)
        with self._session.running():
            return await self._executor.parameters(prepared, cells, forms)

    async def _replace(self, name: str) -> None:
        portals = self._session.portals
        if name and name in portals:
            raise SqlError(CURSOR_EXISTS, f'portal "{name}" already exists')
        if len(portals) >= HELD_MAX:
            raise SqlError("54000", f"a session has at most {HELD_MAX:,} portals")
        former = portals.pop(name, None)
        if former is not None:
            await former.close()

    async def _describe(self, payload: Payload) -> None:
        kind, name = payload.take(1), payload.text()
        payload.end()
        if kind == b"P":
            await self._describe_portal(self._portal(name))
            return
        if kind != b"S":
            raise SqlError(PROTOCOL, "Describe is of a statement (S) or a portal (P)")
        await self._run.store()
        prepared = self._prepared(name)
        self._statement = prepared.statement
        with self._session.running():
            described = await self._executor.describe(prepared)
        told = messages.parameter_description(described.parameters or prepared.declared)
        told += messages.NO_DATA if described.columns is None else messages.row_description(described.columns)
        if prepared.described is described:
            prepared.told_whole = told
        self._session.write(told)

    async def _describe_portal(self, portal: Portal) -> None:
        prepared = portal.prepared
        if prepared.inserts_rows:
            self._run.tell(messages.NO_DATA)
            return
        await self._run.store()
        self._statement = prepared.statement
        formats = portal.formats
        told = prepared.told.get(formats)
        if portal.answer is not None or told is None:
            columns = await self._columns(portal, formats)
            told = messages.NO_DATA if columns is None else messages.row_description(columns)
            prepared.tell(formats, told)
        self._session.write(told)

    async def _columns(self, portal: Portal, formats: tuple[int, ...]) -> tuple[Column, ...] | None:
        if portal.answer is not None:
            return portal.answer.columns
        with self._session.running():
            columns = (await self._executor.describe(portal.prepared)).columns
        return None if columns is None else formatted(columns, formats)

    async def _execute(self, payload: Payload) -> None:
        name, rows_max = payload.text(), payload.int32()
        payload.end()
        portal, session = self._portal(name), self._session
        prepared = portal.prepared
        self._statement = prepared.statement
        session.block.check(prepared.command)
        if prepared.inserts_rows and portal.parameters:
            self._run.add(portal, self._bound_bytes)
            return
        await self._run.store()
        if prepared.statement is None:
            session.write(messages.EMPTY_QUERY)
            return
        if isinstance(prepared.command, Copy):
            with session.running():
                await self._copies.run(prepared.command)
            return
        if portal.done:
            session.write(messages.complete(prepared.tag + "0" if prepared.tag.endswith(" ") else prepared.tag))
            return
        if (found := self._executor.look(portal)) is not None:
            await portal.close()
            session.write(found.data)
            if session.channel.full:  # many may be asked for before a Sync
                await session.drain()
            return
        await self._rows(portal, max(rows_max, 0))

    async def _rows(self, portal: Portal, rows_max: int) -> None:
        session = self._session
        former = portal.answer
        with session.running(None if former is None else former.request_id):
            if former is None:
                portal.answer = await self._executor.start(portal, paused=rows_max > 0)
            answer = portal.answer
            assert answer is not None
            sent, ended = 0, True
            if answer.columns is not None:
                sent, ended = await send_rows(session, answer, rows_max)
        if not ended:
            session.write(messages.SUSPENDED)
            return
        await portal.close()
        session.write(messages.complete(answer.tag(sent)))

    async def _close(self, payload: Payload) -> None:
        kind, name = payload.take(1), payload.text()
        payload.end()
        await self._run.store()
        if kind == b"S":
            self._session.statements.pop(name, None)
        elif kind != b"P":
            raise SqlError(PROTOCOL, "Close is of a statement (S) or a portal (P)")
        elif (portal := self._session.portals.pop(name, None)) is not None:
            await portal.close()
        self._session.write(messages.CLOSED)

    def _prepared(self, name: str) -> Prepared:
        found = self._session.statements.get(name)
        if found is None:
            raise SqlError(NO_STATEMENT, f'prepared statement "{name}" does not exist')
        return found

    def _portal(self, name: str) -> Portal:
        found = self._session.portals.get(name)
        if found is None:
            raise SqlError(NO_CURSOR, f'portal "{name}" does not exist')
        return found


def _read_parse(payload: Payload) -> tuple[str, str, tuple[int, ...]]:
    """A statement's name, its text, and what its parameters are declared as."""
    name, text = payload.text(), payload.text()
    declared = tuple([payload.uint32() for _ in range(payload.count())])
    payload.end()
    return name, text, declared


def _read_bind(data: bytes) -> Bound:
    payload = Payload(data)
    portal, statement = payload.text(), payload.text()
    forms, cells, formats = payload.int16s(), payload.cells(), payload.int16s()
    payload.end()
    if not (ONES.issuperset(forms) and ONES.issuperset(formats)) or len(forms) not in (0, 1, len(cells)):
        raise SqlError(PROTOCOL, "a format is 0 for text or 1 for binary, for each value, for all, or left out")
    return Bound(portal, statement, forms, cells, formats)


def _name_in(data: bytes) -> str:
    """A name with its byte 0, and nothing else; raises ValueError."""
    if not data or data.find(b"\0") != len(data) - 1:
        raise ValueError
    return data[:-1].decode()
