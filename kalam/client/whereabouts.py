"""Where a server that is known in NATS answers HTTP: it says so itself, in its ``$SRV.INFO``."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
from nats.aio.client import Client

from kalam.tasks import heeding

OWN_HOSTS: Final = frozenset({"127.0.0.1", "localhost", "::1", "0.0.0.0", "::"})  # noqa: S104 - compared only


async def ask_identity(client: Client, prefix: str, timeout_s: float) -> dict[str, str]:
    """What the server with these subjects tells of itself: ``id``, ``http_url``, …; raises as nats-py."""
    inbox = client.new_inbox()
    answers = await client.subscribe(inbox)
    try:
        await client.publish("$SRV.INFO.kalam", b"", reply=inbox)
        while True:  # others may use the same NATS with another prefix
            info: dict[str, Any] = msgspec.json.decode((await heeding(answers.next_msg(timeout_s))).data or b"{}")
            if any(endpoint["subject"].startswith(f"{prefix}.api.") for endpoint in info.get("endpoints", ())):
                found: dict[str, str] = info["metadata"]
                return found
    finally:
        if not client.is_closed:
            await answers.unsubscribe()


def seen_from(asked: str, told: str) -> str:
    """The address that a server told of itself, as it is seen from where it was asked."""
    host, parts = urlsplit(asked).hostname, urlsplit(told)
    if host is None or host in OWN_HOSTS or parts.hostname not in OWN_HOSTS:
        return told
    shown = f"[{host}]" if ":" in host else host
    return parts._replace(netloc=shown if parts.port is None else f"{shown}:{parts.port}").geturl()
