"""The messages of a session that has logged in, one after another, until its client leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

from kalam.settings import Settings
from kalam_pg.catalogue import Catalogue
from kalam_pg.errors import FEATURE, PROTOCOL, SqlError
from kalam_pg.session.copies import Copies
from kalam_pg.session.executor import Executor
from kalam_pg.session.extended import Extended
from kalam_pg.session.listening import Listening
from kalam_pg.session.own_statements import OwnStatements
from kalam_pg.session.session import Session
from kalam_pg.session.simple import run_at_once, run_text
from kalam_pg.wire.channel import Message
from kalam_pg.wire.payload import Payload

QUERY, FUNCTION_CALL, SYNC, FLUSH, TERMINATE, PASSWORD = (ord(kind) for kind in "QFSHXp")
COPY_MESSAGES: Final = frozenset(b"dcf")
"""Outside of a COPY they are what a client still sent that does not know of its error yet."""
MESSAGES_TOGETHER_MAX: Final = 64
"""Messages of a pipeline that are carried out before others of the event loop have their turn."""


class Dialogue:
    """Serves one session."""

    def __init__(self, session: Session, settings: Settings, catalogue: Catalogue) -> None:
        self._session = session
        self._listening = Listening(session)
        own = OwnStatements(session, self._listening)
        self._executor = Executor(session, own, catalogue)
        self._copies = Copies(session, settings)
        self._extended = Extended(session, self._executor, self._copies, settings)
        self._quick = {QUERY: self._query_at_once, **self._extended.quick}

    async def run(self) -> None:
        """Answer until the client takes its leave; raises Gone and SqlError for what cannot be gone on from."""
        session = self._session
        session.ready()
        session.channel.at_once = self._at_once
        taken = 0
        try:
            while True:
                session.idle = True
                message = await session.channel.read()
                session.idle = False
                if message.kind == TERMINATE:
                    return
                await self._take(message)
                taken += 1
                if taken % MESSAGES_TOGETHER_MAX == 0:  # what has come already is read without waiting
                    await asyncio.sleep(0)
        finally:
            session.idle, session.channel.at_once = False, None
            self._listening.unlisten(None)

    def _at_once(self, messages: Iterable[Message]) -> int:
        """Carry out what comes while the session is idle, as far as nothing has to be waited for; how many they were.

        So what drivers ask again and again, a row by its key, costs no turn of the session's task.
        """
        taken, channel = 0, self._session.channel
        if not self._session.idle or self._extended.waits:
            return taken
        try:
            for message in messages:
                carry_out = self._quick.get(message.kind)
                if carry_out is None or channel.full or not carry_out(message.data):
                    break
                taken += 1
        except Exception:  # noqa: BLE001, S110 - the session's task meets the same, and tells it
            pass
        return taken

    def _query_at_once(self, data: bytes) -> bool:
        payload = Payload(data)
        text = payload.text()
        payload.end()
        return run_at_once(self._session, self._executor, text)

    async def _take(self, message: Message) -> None:
        match message.kind:
            case kind if kind == QUERY:
                if not self._extended.skipping:
                    await self._query(message)
            case kind if kind == SYNC:
                await self._extended.sync()
            case kind if kind == FLUSH:
                await self._extended.flush()
            case kind if kind == FUNCTION_CALL:
                self._session.fail(SqlError(FEATURE, "functions are called in statements only", "SELECT f(…)"))
                self._session.ready()
            case kind if kind == PASSWORD:
                raise SqlError(PROTOCOL, "a password was not asked for")
            case kind if kind not in COPY_MESSAGES:
                await self._extended.take(message)

    async def _query(self, message: Message) -> None:
        payload = Payload(message.data)
        try:
            text = payload.text()
            payload.end()
        except SqlError as exc:
            self._session.fail(exc)
            self._session.ready()
            return
        await self._extended.flush()
        await run_text(self._session, self._executor, self._copies, text)
