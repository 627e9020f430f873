"""Sessions: what a login over HTTP leaves with a browser, so that it need not keep a password.

They are in memory, and in ``kalam.db`` so that a restart logs nobody out. Memory counts; what the database has not
heard of yet, because the disk refused it or because only the time of the last use has changed, is written later.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from typing import Final

import msgspec
import structlog

from kalam.access.login import Login
from kalam.access.secrets import SESSION, Made, id_of, is_hash_of
from kalam.errors import KalamError
from kalam.storage.log.database import Database, now_us

IDLE_US: Final = 12 * 3_600_000_000
PER_USER_MAX: Final = 100
"""Of more the one that was not used for longest ends."""
SAVE_S: Final = 60.0

log = structlog.get_logger(__name__)


class Session(msgspec.Struct):
    """A session; times are microseconds since 1970.

    ``token`` is the id of the token that it was opened with, "" for a password; ``password_us`` is when that was set.
    """

    id: str
    user: str
    hash: bytes
    address: str
    token: str
    password_us: int
    created_us: int
    used_us: int

    @property
    def login(self) -> Login:
        """Who is logged in by it."""
        return Login(self.user, "session", self.id, None, self.password_us)

    @property
    def ends_us(self) -> int:
        """When it ends unless it is used before."""
        return self.used_us + IDLE_US


class Sessions:
    """The sessions of one database; ``now_us`` gives the time in microseconds since 1970."""

    def __init__(self, database: Database, now_us: Callable[[], int] = now_us) -> None:
        self._database, self._now_us = database, now_us
        self._sessions: dict[str, Session] = {}
        self._unsaved: set[str] = set()
        """The ids of those that the database has otherwise, or has still."""

    def load(self) -> None:
        """Read everything; blocking, for the start."""
        with self._database.reading() as conn:
            for row in conn.execute(
                "SELECT session_id, user, hash, address, token_id, password_us, created_us, used_us FROM sessions"
            ):
                self._sessions[row[0]] = Session(*row)

    def __iter__(self) -> Iterator[Session]:
        """All that have not been idle for too long, oldest first."""
        found = [session for session in self._sessions.values() if not self._is_idle(session)]
        return iter(sorted(found, key=lambda session: session.created_us))

    def get(self, session_id: str) -> Session | None:
        """The session of an id, unless it was idle for too long."""
        session = self._sessions.get(session_id)
        return None if session is None or self._is_idle(session) else session

    def find(self, secret: str) -> Session | None:
        """The session whose secret this is."""
        session_id = id_of(secret, SESSION)
        session = self.get(session_id) if session_id else None
        return session if session is not None and is_hash_of(session.hash, secret) else None

    def use(self, session: Session) -> None:
        """Have a session last for another while."""
        session.used_us = self._now_us()
        self._unsaved.add(session.id)

    async def open(self, made: Made, login: Login, address: str) -> None:
        """Begin a session with a secret that was made for it."""
        now = self._now_us()
        token = login.credential if login.how == "token" else ""
        session = Session(made.id, login.user, made.hash, address, token, login.password_us, now, now)
        self._sessions[made.id] = session
        self._unsaved.add(made.id)
        own = sorted(
            (each for each in self._sessions.values() if each.user == login.user), key=lambda each: each.used_us
        )
        for each in own[:-PER_USER_MAX]:
            self._forget(each)
        await self.save()

    async def end(self, ended: Callable[[Session], bool]) -> list[Session]:
        """End the sessions for which this is so."""
        found = [session for session in self._sessions.values() if ended(session)]
        for session in found:
            self._forget(session)
        if found:
            await self.save()
        return found

    async def run(self) -> None:
        """Bring the database up to date now and then, until cancelled."""
        while True:
            await asyncio.sleep(SAVE_S)
            await self.end(self._is_idle)
            await self.save()

    def _is_idle(self, session: Session) -> bool:
        return self._now_us() >= session.ends_us

    async def save(self) -> None:
        """Bring the database up to date; what the disk refuses is tried again later."""
        if not self._unsaved:
            return
        unsaved, self._unsaved = self._unsaved, set()
        there = [msgspec.structs.astuple(self._sessions[id_]) for id_ in unsaved if id_ in self._sessions]
        gone = [(id_,) for id_ in unsaved if id_ not in self._sessions]

        def write(conn: sqlite3.Connection) -> None:
            conn.executemany("INSERT OR REPLACE INTO sessions VALUES (?, ?, ?, ?, ?, ?, ?, ?)", there)
            conn.executemany("DELETE FROM sessions WHERE session_id = ?", gone)

        try:
            await self._database.write(write)
        except KalamError as exc:
            self._unsaved |= unsaved
            log.warning("sessions wait for the disk", sessions=len(self._unsaved), error=exc.detail)

    def _forget(self, session: Session) -> None:
        del self._sessions[session.id]
        self._unsaved.add(session.id)
