"""Users, logins and the audit, opened in order."""

from __future__ import annotations

from collections.abc import Coroutine, Iterator
from typing import Any

import msgspec

from kalam.access.audit import Audit
from kalam.access.book import Book
from kalam.access.logins import Logins
from kalam.access.passwords import Passwords
from kalam.access.rights import Rights
from kalam.access.sessions import Sessions
from kalam.storage.log.database import Database
from kalam.threads import Purpose, in_thread


class Access(msgspec.Struct, frozen=True):
    """The parts, open."""

    book: Book
    rights: Rights
    audit: Audit
    sessions: Sessions
    passwords: Passwords
    logins: Logins

    def loops(self) -> Iterator[tuple[Coroutine[Any, Any, None], str]]:
        """What runs beside the server, by name; nothing where nobody logs in."""
        if self.rights.on:
            yield self.audit.run(), "audit"
            yield self.sessions.run(), "sessions"

    async def close(self) -> None:
        """Write what waits."""
        await self.sessions.save()
        await self.audit.drain()


async def open_access(database: Database, *, on: bool, scram: bool = True) -> Access:
    """Read the book of users and the sessions; ``on`` says that rights are asked, ``scram`` what is kept of secrets."""
    book, sessions, passwords = Book(database), Sessions(database), Passwords(scram=scram)
    await in_thread(Purpose.CATALOGUE, book.load)
    await in_thread(Purpose.CATALOGUE, sessions.load)
    audit = Audit(database)
    logins = Logins(book, sessions, audit, passwords=passwords)
    if on:
        await logins.tidy()
    return Access(book, Rights(book, on=on), audit, sessions, passwords, logins)
