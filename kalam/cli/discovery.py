"""Asking a server that is known by HTTP where it is found in NATS, and the other way round.

What is found has to say that it is the same server: through a tunnel, or from another machine, its own addresses may be
somebody else's here. An address that only the server's own machine can use is tried at the host that was asked.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import nats
from nats.aio.client import Client
from nats.errors import Error as NatsError

from kalam.cli.failure import HOW_TO_START, CommandFailed
from kalam.cli.http import get_readiness

ANSWER_S: Final = 5.0
OWN_HOSTS: Final = frozenset({"127.0.0.1", "localhost", "::1", "0.0.0.0", "::"})  # noqa: S104 - compared only


Found = TypeVar("Found")


def nats_of(http_url: str) -> str:
    """Where the server that answers at ``http_url`` is found in NATS; raises CommandFailed."""
    identity = get_readiness(http_url).get("server") or {}
    url = identity.get("nats_url")
    if not url:
        raise CommandFailed(f"error: {http_url} does not say where it is found in NATS: say it with --url nats://…")
    url = _seen_from(http_url, url)

    async def same(client: Client) -> bool:
        await client.request(f"$SRV.PING.kalam.{identity['id']}", b"", timeout=ANSWER_S)
        return True

    _at_nats(url, {}, same)
    return url


def http_of(nats_url: str, options: Mapping[str, Any], prefix: str) -> str:
    """Where the server with these subjects answers HTTP; raises CommandFailed."""

    async def identity(client: Client) -> dict[str, str]:
        inbox = client.new_inbox()
        answers = await client.subscribe(inbox)
        await client.publish("$SRV.INFO.kalam", b"", reply=inbox)
        while True:  # others may use the same NATS with another prefix
            info = json.loads((await answers.next_msg(ANSWER_S)).data)
            if any(endpoint["subject"].startswith(f"{prefix}.api.") for endpoint in info["endpoints"]):
                found: dict[str, str] = info["metadata"]
                return found

    told = _at_nats(nats_url, options, identity)
    url = told.get("http_url")
    if not url:
        raise CommandFailed(
            f"error: the server at {nats_url} does not say where it answers HTTP: say it with --url http://…"
        )
    url = _seen_from(nats_url, url)
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


def _seen_from(asked: str, told: str) -> str:
    """The address that a server told of itself, as it is seen from where it was asked."""
    host, parts = urlsplit(asked).hostname, urlsplit(told)
    if host is None or host in OWN_HOSTS or parts.hostname not in OWN_HOSTS:
        return told
    shown = f"[{host}]" if ":" in host else host
    return parts._replace(netloc=shown if parts.port is None else f"{shown}:{parts.port}").geturl()
