"""Fixtures of the STREAM tables: programs that know the contract alone, on a server that a module's tests share."""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import nats
import pytest
from foreign_program import Program
from nats.aio.client import Client
from patience import PATIENCE_S
from server_process import ServerProcess

_numbers = itertools.count(1)


@pytest.fixture
async def connect() -> AsyncIterator[Callable[..., Awaitable[Program]]]:
    """Connects programs to a server's broker, or to another one by its URL."""
    clients: list[Client] = []

    async def connect(server: ServerProcess, url: str | None = None, **options: Any) -> Program:
        client = await nats.connect(url or server.nats_url, **{"allow_reconnect": False} | options)
        clients.append(client)
        return Program(server, client)

    yield connect
    for client in clients:
        await client.close()


@pytest.fixture
async def program(shared_server: ServerProcess, connect: Callable[..., Awaitable[Program]]) -> Program:
    """A program connected to the module's server."""
    return await connect(shared_server)


@pytest.fixture
def namespace(shared_server: ServerProcess) -> str:
    """A new namespace on the module's server."""
    name = f"n{next(_numbers)}"
    shared_server.sql(f"CREATE NAMESPACE {name}")
    return name


@pytest.fixture
def wait_for() -> Callable[[Callable[[], Any]], Any]:
    """Waits until a function answers something true, and returns it; raises TimeoutError after a minute."""

    def wait_for(condition: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + PATIENCE_S
        while not (met := condition()):
            if time.monotonic() > deadline:
                raise TimeoutError("the condition was not met")
            time.sleep(0.02)
        return met

    return wait_for


@pytest.fixture
def stats() -> Callable[[ServerProcess, str], dict[str, str]]:
    """SHOW STATS of a table as a dictionary."""

    def stats(server: ServerProcess, table: str) -> dict[str, str]:
        return dict(server.sql(f"SHOW STATS FOR TABLE {table}"))

    return stats
