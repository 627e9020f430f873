"""The HTTP door with authentication on, around a small engine: real connections, real users, real logins."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import httpx
from login_book import CHEAP, Clock, open_database
from msgspec.structs import replace
from patience import PATIENCE_S
from prometheus_client import CollectorRegistry

from kalam.access.audit import Audit
from kalam.access.book import Book
from kalam.access.logins import Logins
from kalam.access.model import Ends, Grant, Narrowed, Privilege, Token, User
from kalam.access.opened import Access
from kalam.access.passwords import Passwords
from kalam.access.rights import Rights
from kalam.access.secrets import make_secret
from kalam.access.sessions import Sessions
from kalam.engine import Check, Departure, Engine, Identity, Session
from kalam.names import TableName
from kalam.query.results import Result
from kalam.schema import Table
from kalam.settings import load_settings
from kalam.sql import parse_statement, split, table_options
from kalam.sql.text.statements import CreateTable
from kalam.tasks import running
from kalam_http import create_app, serve_http
from kalam_http.guard import Guard
from kalam_http.identity import Entrance

PASSWORD = "correct horse"


class Door:
    """A server, its users, and what it was asked by whom."""

    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self.database = open_database(folder)
        self.book = Book(self.database)
        self.book.load()
        self.passwords = Passwords(CHEAP)
        self.audit = Audit(self.database, self.clock.now_us)
        sessions = Sessions(self.database, self.clock.now_us)
        self.logins = Logins(
            self.book, sessions, self.audit, passwords=self.passwords, clock=self.clock.seconds, now=self.clock.now
        )
        self.access = Access(self.book, Rights(self.book, on=True), self.audit, sessions, self.passwords, self.logins)
        self.registry = CollectorRegistry()
        self.asked: list[Identity] = []
        self.on_word: dict[str, Callable[[], Awaitable[None]]] = {}
        self.checks = [Check("sqlite", ok=True, detail="writable")]
        self.waiting, self.released = 0, asyncio.Event()
        self.client: httpx.AsyncClient

    # Users.

    async def user(self, name: str, password: str = PASSWORD, **fields: Any) -> None:
        encoded = await self.passwords.hash(password)
        user = User(name=name, password_hash=encoded, password_us=self.clock.now_us(), created_at=self.clock.now())
        await self.book.put_user(replace(user, **fields))

    async def token(self, user: str, **fields: Any) -> str:
        made = make_secret()
        token = Token(id=made.id, name="ci", user=user, hash=made.hash, created_at=self.clock.now())
        await self.book.put_token(replace(token, **fields))
        return made.text

    async def change(self, name: str, **fields: Any) -> None:
        await self.book.put_user(replace(self.book.users[name], **fields))
        await self.book.narrowed(Narrowed(users=frozenset((name,)), logins=Ends.ALL))

    async def drop(self, name: str) -> None:
        await self.book.drop(name)
        await self.book.narrowed(Narrowed(users=frozenset((name,)), logins=Ends.ALL))

    async def grant_select(self, name: str) -> None:
        await self.book.grant([name], [Grant(Privilege.SELECT, table_id=SEEN.table_id)])

    def fail(self, name: str, detail: str) -> None:
        self.checks.append(Check(name, ok=False, detail=detail))

    # The engine.

    def caller(
        self, session: Session, door: str, *, request_id: str | None = None, departure: Departure | None = None
    ) -> SmallCaller:
        return SmallCaller(self, session)

    async def health(self) -> list[Check]:
        return self.checks


class SmallCaller:
    """One request to it: ``wait`` waits, a word of ``on_word`` does what it is for."""

    def __init__(self, door: Door, session: Session) -> None:
        self._door, self._session = door, session

    async def execute(self, text: str, params: Sequence[Any] = ()) -> list[Result]:
        self._door.asked.append(self._session.identity)
        if text == "wait":
            self._door.waiting += 1
            await self._door.released.wait()
        if text in self._door.on_word:
            await self._door.on_word[text]()
        return [Result(columns=(), data=None, row_count=0, message="done")]

    def look(self, text: str, params: Sequence[Any]) -> bytes | None:
        return None

    def namespaces(self) -> list[str]:
        return ["app"]

    def tables(self) -> list[Table]:
        return [SEEN]

    counted = tables

    def cancel(self, query_id: str) -> None:
        """Nothing runs."""

    async def follow(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError


def _table() -> Table:
    statement = parse_statement(split("CREATE TABLE app.seen (id BIGINT PRIMARY KEY)")[0])
    assert isinstance(statement, CreateTable)
    return Table(
        name=TableName("app", "seen"),
        kind=statement.kind,
        columns=statement.columns,
        key=statement.key,
        options=table_options(statement.kind, statement.options, statement.columns),
        table_id=7,
        schema_version=1,
        created_at=Clock().now(),
    )


SEEN = _table()


@asynccontextmanager
async def open_door(folder: Path, **settings: Any) -> AsyncIterator[Door]:
    """A door whose server runs; it has no users yet."""
    door = Door(folder)
    guard = Guard(Entrance(door.access, "mine"))
    whole = load_settings(http_port=0, **settings)
    app = create_app(
        cast("Engine", door),
        settings=whole,
        registry=door.registry,
        overview=lambda visible: {"visible": None if visible is None else sorted(map(str, visible))},
        identity={"id": "mine"},
        guard=guard,
    )
    try:
        async with (
            running(guard.run(), "guard"),
            serve_http(app, whole) as listening,
            httpx.AsyncClient(base_url=listening.url, timeout=PATIENCE_S, trust_env=False) as client,
        ):
            door.client = client
            yield door
            door.released.set()
    finally:
        door.database.close()
