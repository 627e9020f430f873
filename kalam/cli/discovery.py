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
from kalam.client.whereabouts import ask_identity, seen_from

ANSWER_S: Final = 5.0


Found = TypeVar("Found")


def nats_of(http_url: str) -> str:
    """Where the server that answers at ``http_url`` is found in NATS; raises CommandFailed."""
    identity = get_readiness(http_url).get("server") or {}
    url = identity.get("nats_url")
    if not url:
        raise CommandFailed(f"error: {http_url} does not say where it is found in NATS: say it with --url nats://…")
    url = seen_from(http_url, url)

    async def same(client: Client) -> bool:
        await client.request(f"$SRV.PING.kalam.{identity['id']}", b"", timeout=ANSWER_S)
        return True

    _at_nats(url, {}, same)
    return url


def http_of(nats_url: str, options: Mapping[str, Any], prefix: str) -> str:
    """Where the server with these subjects answers HTTP; raises CommandFailed."""

    async def identity(client: Client) -> dict[str, str]:
        return await ask_identity(client, prefix, "admin", ANSWER_S)

    told = _at_nats(nats_url, options, identity)
    url = told.get("http_url")
    if not url:
        raise CommandFailed(
            f"error: the server at {nats_url} does not say where it answers HTTP: say it with --url http://…"
        )
    url = seen_from(nats_url, url)
    if (get_readiness(url).get("server") or {}).get("id") != told["id"]:
        raise CommandFailed(
            f"error: {url} is here another server than the one at {nats_url}, which says that it is there: "
            "say where it is with --url http://…"
        )
    return url


def _at_nats(url: str, options: Mapping[str, Any], ask: Callable[[Client], Awaitable[Found]]) -> Found:
    async def asked() -> Found:
        async with _connected(url, options) as client:
            return await ask(client)

    try:
        return asyncio.run(asked())
    except (OSError, NatsError, ValueError) as exc:
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
