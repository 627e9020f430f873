"""Asking a server that is known by HTTP where it is found in NATS, and the other way round.

What is found has to say that it is the same server: through a tunnel, or from another machine, its own addresses may be
somebody else's here. An address that only the server's own machine can use is tried at the host that was asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

import nats
from nats.aio.client import Client
from nats.errors import Error as NatsError

from kalam.cli.failure import HOW_TO_START, CommandFailed
from kalam.cli.http import get_readiness
from kalam.cli.refused import is_refused, not_let_in
from kalam.client.whereabouts import ask_identity, seen_from
from kalam.credentials import Credentials

ANSWER_S: Final = 5.0


Found = TypeVar("Found")


def nats_of(http_url: str, login: Credentials, options: Mapping[str, Any], prefix: str) -> str:
    """Where the server that answers at ``http_url`` is found in NATS, with these subjects; raises CommandFailed.

    ``options`` are what nats-py's ``connect`` takes for logging in.
    """
    identity = get_readiness(http_url, login).get("server")
    if not identity:
        raise not_let_in(http_url, login)
    url = identity.get("nats_url")
    if not url:
        raise CommandFailed(f"error: {http_url} does not say where it is found in NATS: say it with --url nats://…")
    url = seen_from(http_url, url)

    async def told(client: Client) -> dict[str, str]:
        return await ask_identity(client, prefix, login.name, ANSWER_S)

    if _at_nats(url, login, options, told).get("id") != identity["id"]:
        raise CommandFailed(
            f"error: the server is not found in NATS at {url}, where {http_url} says that it is: another one is there\n"
            "Say where it is with --url nats://…"
        )
    return url


def http_of(nats_url: str, login: Credentials, options: Mapping[str, Any], prefix: str) -> str:
    """Where the server with these subjects answers HTTP; raises CommandFailed."""

    async def identity(client: Client) -> dict[str, str]:
        return await ask_identity(client, prefix, login.name, ANSWER_S)

    told = _at_nats(nats_url, login, options, identity)
    url = told.get("http_url")
    if not url:
        raise CommandFailed(
            f"error: the server at {nats_url} does not say where it answers HTTP: say it with --url http://…"
        )
    url = seen_from(nats_url, url)
    if (get_readiness(url, login).get("server") or {}).get("id") != told["id"]:
        raise CommandFailed(
            f"error: {url} is here another server than the one at {nats_url}, which says that it is there: "
            "say where it is with --url http://…"
        )
    return url


def _at_nats(
    url: str, login: Credentials, options: Mapping[str, Any], ask: Callable[[Client], Awaitable[Found]]
) -> Found:
    async def asked() -> Found:
        async with _connected(url, options) as client:
            return await ask(client)

    try:
        return asyncio.run(asked())
    except (OSError, NatsError, ValueError, LookupError) as exc:
        if is_refused(exc):
            raise not_let_in(url, login) from exc
        raise CommandFailed(
            f"error: the server is not found in NATS at {url}: {str(exc) or type(exc).__name__}\n{HOW_TO_START}"
        ) from exc


@asynccontextmanager
async def _connected(url: str, options: Mapping[str, Any]) -> AsyncIterator[Client]:
    async def ignore(_: Exception) -> None:
        """What fails is told by the request."""

    async with asyncio.timeout(ANSWER_S):
        client = await nats.connect(
            url, allow_reconnect=False, max_reconnect_attempts=1, reconnect_time_wait=0, error_cb=ignore, **options
        )
    try:
        yield client
    finally:
        await client.close()
