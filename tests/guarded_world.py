"""A server with authentication on and somebody of each kind: what each may do is what its tests' tables say.

The clients are plain: HTTP by ``httpx``, NATS by nats-py, neither of which knows Kalam.
"""

from __future__ import annotations

import base64
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
from guarded_broker import Plain
from patience import PATIENCE_S
from server_process import ServerProcess

PASSWORD: Final = "a right good password"
OUTSIDE: Final = ("nobody", "wrong", "locked", "expired")
"""Who does not come in: without a word, with a wrong password, and with a right one that does not count."""
INSIDE: Final = ("none", "reader", "writer", "owner", "member", "admin", "trusted")
"""Who comes in.

``none`` was granted nothing; ``member`` is in a role that is in the role ``readers``; ``admin`` is an administrator who
owns nothing; ``trusted`` has JETSTREAM on ``lab.logs`` and nothing else.
"""
PEOPLE: Final = (*OUTSIDE, *INSIDE)
STANDING: Final = """
    CREATE ROLE readers; CREATE ROLE team; GRANT readers TO team; GRANT team TO member;
    CREATE NAMESPACE lab; CREATE NAMESPACE vault;
    GRANT CREATE ON NAMESPACE lab TO owner; GRANT CREATE ON NAMESPACE vault TO keeper
"""
TABLES: Final = """
    CREATE TABLE lab.t (id INT PRIMARY KEY, v TEXT); CREATE TABLE lab.spare (id INT PRIMARY KEY, v TEXT);
    CREATE USER TABLE lab.notes (id INT PRIMARY KEY, v TEXT); CREATE STREAM TABLE lab.logs (id INT, v TEXT);
    INSERT INTO lab.t VALUES (1, 'one'), (2, 'two'); INSERT INTO lab.logs VALUES (1, 'logged')
"""
OWNED: Final = ("t", "spare", "notes", "logs")
HIDDEN: Final = """
    CREATE TABLE vault.gold (id INT PRIMARY KEY, bars TEXT); CREATE USER TABLE vault.diary (id INT PRIMARY KEY, v TEXT);
    CREATE STREAM TABLE vault.alarms (id INT, v TEXT); INSERT INTO vault.gold VALUES (1, 'bullion');
    INSERT INTO vault.diary VALUES (1, 'bullion'); INSERT INTO vault.alarms VALUES (1, 'bullion')
"""
"""The tables of ``keeper``, of which nobody else but administrators knows."""


def basic(user: str, secret: str = PASSWORD) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{secret}".encode()).decode()}


@dataclass
class Asker:
    """Somebody who asks over HTTP."""

    http: httpx.Client
    headers: Mapping[str, str]

    def send(self, method: str, path: str, **asked: Any) -> httpx.Response:
        headers = {**self.headers, **asked.pop("headers", {})}
        return self.http.request(method, path, headers=headers, **asked)

    def answer(self, sql: str, *params: Any, **headers: str) -> httpx.Response:
        return self.send("POST", "/v1/sql", json={"sql": sql, "params": params}, headers=headers)

    def rows(self, sql: str, *params: Any, **headers: str) -> list[list[Any]]:
        answer = self.answer(sql, *params, **headers)
        assert answer.status_code == 200, (sql, answer.text)
        found: list[list[Any]] = answer.json()["results"][-1].get("rows") or []
        return found

    def code(self, sql: str, *params: Any, **headers: str) -> str:
        """The code of the error, or ``ok``."""
        return str(self.answer(sql, *params, **headers).json().get("code", "ok"))

    @contextmanager
    def stream(self, method: str, path: str, **asked: Any) -> Iterator[httpx.Response]:
        headers = {**self.headers, **asked.pop("headers", {})}
        with self.http.stream(method, path, headers=headers, **asked) as response:
            yield response


@dataclass
class World:
    """The server and its people; ``admin`` is the first administrator, whom tests ask to prepare what they need."""

    server: ServerProcess
    _http: dict[str, httpx.Client] = field(default_factory=dict)

    @property
    def admin(self) -> Asker:
        return self.asker("admin-of-all", headers=basic("admin"))

    def asker(self, person: str, headers: Mapping[str, str] | None = None) -> Asker:
        """Somebody by name; who comes to nothing as one of ``OUTSIDE`` does."""
        if person not in self._http:
            self._http[person] = httpx.Client(base_url=self.server.http_url, timeout=PATIENCE_S, trust_env=False)
        if headers is None:
            secrets = {"wrong": "a wrong password"}
            headers = {} if person == "nobody" else basic(user_of(person), secrets.get(person, PASSWORD))
        return Asker(self._http[person], headers)

    @asynccontextmanager
    async def plain(self, person: str, **options: Any) -> AsyncIterator[Plain]:
        """A plain NATS client of somebody."""
        url = options.pop("url", self.server.nats_url)
        client = await Plain.connect(url, user_of(person), **({"password": PASSWORD} | options))
        try:
            yield client
        finally:
            await client.client.close()

    def user(self, name: str, *statements: str) -> Asker:
        """A new user, for whom an administrator carries out statements."""
        self.admin.rows(f"CREATE USER {name} PASSWORD $1", PASSWORD)
        for statement in statements:
            self.admin.rows(statement)
        return self.asker(name)

    def close(self) -> None:
        """Close what is open; whoever asks next opens it anew, where the server is by then."""
        for client in self._http.values():
            client.close()
        self._http.clear()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def user_of(person: str) -> str:
    """The user's name: the administrator who owns nothing is called ``root``."""
    return {"admin": "root", "wrong": "bystander"}.get(person, person)


def open_world(folder: Path, *flags: str) -> World:
    """Start the server and make everybody."""
    server = ServerProcess(folder / "data", flags=("--auth", "on", f"--nats-ws-port={free_port()}", *flags))
    world = World(server.start(KALAM_ADMIN_PASSWORD=PASSWORD))
    for name in (*INSIDE, "locked", "expired", "keeper", "bystander"):
        extra = {"admin": " ADMIN", "expired": " VALID UNTIL '2020-01-01T00:00:00Z'"}.get(name, "")
        world.admin.rows(f"CREATE USER {user_of(name)} PASSWORD $1{extra}", PASSWORD)
    world.admin.rows(f"ALTER USER locked LOCK; {STANDING}")
    world.asker("keeper").rows(HIDDEN)
    owner = world.asker("owner")
    owner.rows(TABLES)
    for table in OWNED:
        owner.rows(
            f"GRANT SELECT ON TABLE lab.{table} TO reader, readers;"
            f"GRANT INSERT, UPDATE, DELETE ON TABLE lab.{table} TO writer"
        )
    owner.rows(
        "CREATE MATERIALIZED VIEW lab.v AS SELECT id, v FROM lab.spare; GRANT SELECT ON TABLE lab.v TO reader, readers"
    )
    world.admin.rows("GRANT JETSTREAM ON TABLE lab.logs TO trusted")
    return world
