"""A database with an empty book of users."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from guarded_world import World, open_world
from login_book import CHEAP, Clock, open_database

from kalam.access.book import Book
from kalam.access.passwords import Passwords
from kalam.storage.log.database import Database


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def passwords() -> Passwords:
    return Passwords(CHEAP)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = open_database(tmp_path)
    yield database
    database.close()


@pytest.fixture
def book(database: Database) -> Book:
    book = Book(database)
    book.load()
    return book


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A server with somebody of each kind, which many tests share: each makes what it changes, and users, anew."""
    world = open_world(tmp_path_factory.mktemp("world"))
    yield world
    world.close()
    world.server.kill()
