"""What is done to the book of users while no server runs."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from msgspec.structs import replace

from kalam.access.audit import Audit
from kalam.access.book import Book
from kalam.access.entry import Entry
from kalam.access.passwords import Passwords
from kalam.access.scram import make_verifier
from kalam.errors import NotFound
from kalam.storage.log.data_dir import DATABASE, locked_data_dir, prepare_database
from kalam.storage.log.database import Database


def reset_password(data_dir: Path, name: str, password: str) -> None:
    """Give a user of a stopped server another password, which ends what the old one let in.

    Raises NotFound where there is no such data directory or user, InvalidValue for what is no password, Unavailable
    while a server runs.
    """
    if not (data_dir / DATABASE).is_file():
        raise NotFound(f"{data_dir} is no data directory of Kalam", hint="say where it is with --data-dir")
    encoded = Passwords().hash_here(password)
    with locked_data_dir(data_dir) as path:
        prepared = prepare_database(path)
        database = Database(path / DATABASE, commit_rows_max=1)
        try:
            database.begin(prepared.data_id, prepared.generation or 0)
            database.start()
            asyncio.run(_reset(database, name, encoded, password))
        finally:
            database.close()


async def _reset(database: Database, name: str, encoded: str, password: str) -> None:
    book = Book(database)
    book.load()
    user = book.users.get(name)
    if user is None:
        raise NotFound(
            f"there is no user {name[:64]!r}",
            hint=f"there are: {', '.join(sorted(book.users))}"
            if book.users
            else "the first start with --auth on makes one",
        )
    with Audit(database).telling(Entry(at_us=0, user=None, door="command", action="ALTER USER", object=name)):
        changed = replace(user, password_hash=encoded, password_us=time.time_ns() // 1_000)
        await book.put_user(changed, make_verifier(password, book.salt_of(name)))
