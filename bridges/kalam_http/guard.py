"""Who stands before every route that is not open to strangers, and shows those the door whose login ends.

A request whose user is locked, whose token is dropped, whose password is changed or whose time is over meanwhile is cut
off, as by its client's departure: what it reads is cancelled, an answer gets no end, a commit goes on. The request that
ends its own login, by a logout or a new password, gets its answer.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from kalam.access.model import Narrowed
from kalam_http.connections import CUT_OFF
from kalam_http.identity import IDENTITY, Entrance, Visit

EVERY_S: Final = 0.5
"""How often it is asked whether a login has ended by itself."""
LAST_WORD_S: Final = 0.2
"""How long a live query that is closed for it has to say so, before its connection is."""
_ANSWERED: ContextVar[int] = ContextVar("answered", default=0)
"""The key of the request that is answered; who listens to the book is run in the context of whoever changed it."""


class Guard:
    """Lets requests in, and remembers them while they are answered."""

    def __init__(self, entrance: Entrance) -> None:
        self.entrance = entrance
        self._present: dict[int, tuple[Visit, Scope]] = {}
        self._leaving: set[int] = set()
        if entrance.access is not None:
            entrance.access.book.on_narrowed(self._narrowed)

    def before(self, app: ASGIApp) -> ASGIApp:
        """The application, for those who have proven who they are."""

        async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
            visit = await self.entrance.visit(scope)
            scope["state"][IDENTITY] = visit
            if visit.login is None:
                await app(scope, receive, send)
                return
            key = id(scope)
            self._present[key] = visit, scope
            _ANSWERED.set(key)
            try:
                await app(scope, receive, send)
            finally:
                del self._present[key]
                self._leaving.discard(key)

        return guarded

    async def run(self) -> None:
        """Show those the door whose login has ended, until cancelled."""
        while True:
            await asyncio.sleep(EVERY_S)
            self._show_out()

    async def _narrowed(self, _: Narrowed) -> None:
        if _ANSWERED.get() in self._present:
            self._leaving.add(_ANSWERED.get())
        if self._ended():
            await asyncio.sleep(LAST_WORD_S)
            self._show_out()

    def _show_out(self) -> None:
        for scope in self._ended():
            scope["state"][CUT_OFF]()

    def _ended(self) -> list[Scope]:
        """The requests whose login has ended."""
        present = self._present.items()
        return [
            scope for key, (visit, scope) in present if key not in self._leaving and not self.entrance.stands(visit)
        ]
