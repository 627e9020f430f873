"""A command's connection to NATS, as who logs in, and what is told where nobody is let in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from kalam.cli.address import Address
from kalam.cli.refused import not_let_in
from kalam.errors import Unauthenticated

if TYPE_CHECKING:  # the client imports NATS, which a command does when it needs it
    from kalam.client import Kalam


@asynccontextmanager
async def connected(where: Address, nats_url: str, prefix: str) -> AsyncIterator[Kalam]:
    """The Python client, connected while the block runs; raises CommandFailed where the login is refused."""
    from kalam.client.kalam import logged_in

    login = where.login
    try:
        async with logged_in(nats_url, login, prefix=prefix, nats_options=where.nats_options()) as kalam:
            yield kalam
    except Unauthenticated as exc:
        raise not_let_in(nats_url, login) from exc
