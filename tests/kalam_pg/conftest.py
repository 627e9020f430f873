"""A server with a PostgreSQL door that the tests of a process share; each test file uses a namespace of its own."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from server_process import ServerProcess


@pytest.fixture(scope="session")
def pg_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path_factory.mktemp("pg") / "data", flags=("--pg-port=0",)).start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def pg_url(pg_server: ServerProcess) -> str:
    """Where the door is, for a user and a database."""
    return str(pg_server.announcement["pg_url"]).replace("//", "//admin@") + "/kalam"


@pytest.fixture
def connection(pg_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(pg_url, autocommit=True) as opened:
        yield opened
