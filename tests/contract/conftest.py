"""Fixtures of the contract: programs that know it alone, and a namespace for each test on the module's server."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable

import nats
import pytest
from foreign_program import Program
from nats.aio.client import Client
from server_process import ServerProcess

_numbers = itertools.count(1)


@pytest.fixture
async def connect() -> AsyncIterator[Callable[[ServerProcess], Awaitable[Program]]]:
    """Connects programs to a server's broker."""
    clients: list[Client] = []

    async def connect(server: ServerProcess) -> Program:
        clients.append(await nats.connect(server.nats_url, allow_reconnect=False))
        return Program(server, clients[-1])

    yield connect
    for client in clients:
        await client.close()


@pytest.fixture
async def program(shared_server: ServerProcess, connect: Callable[[ServerProcess], Awaitable[Program]]) -> Program:
    """A program connected to the module's server."""
    return await connect(shared_server)


@pytest.fixture
def namespace(shared_server: ServerProcess) -> str:
    """A new namespace on the module's server."""
    name = f"n{next(_numbers)}"
    shared_server.sql(f"CREATE NAMESPACE {name}")
    return name
