"""A materialized view that wakes because a plain NATS client subscribes to its subject, and tells what changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import msgspec
import nats
from nats.errors import Error as NatsError

from kalam.cli.demo_quakes import FEED_USER, VIEW
from kalam.cli.failure import CommandFailed

SUBJECT: Final = f"kalam.shared.{VIEW}.>"
RUNNING_S: Final = 30.0
CHANGES_S: Final = 30.0  # how long the last change may take
POLL_S: Final = 0.05
Changes = list[tuple[dict[str, Any], dict[str, Any]]]
"""Rows as they are now, and what was else in them before."""


async def watch(
    nats_url: str,
    *,
    password: str | None,
    is_running: Callable[[], bool],
    change: Callable[[], object],
    expected: int,
) -> Changes:
    """Subscribe, which wakes the view, ``change`` what it reads, and collect so many updates, or those in time.

    The functions are called in a thread.
    """
    login: dict[str, Any] = {} if password is None else {"user": FEED_USER, "password": password}
    try:
        client = await nats.connect(nats_url, name="kalam demo", inbox_prefix=f"_INBOX.{FEED_USER}", **login)
    except (NatsError, OSError) as exc:
        raise CommandFailed(f"error: no subscription through NATS: {exc or type(exc).__name__}") from exc
    found: Changes = []
    try:
        heard = await client.subscribe(SUBJECT)
        await client.flush()
        async with asyncio.timeout(RUNNING_S):
            while not await asyncio.to_thread(is_running):  # noqa: ASYNC110 - SQL alone tells
                await asyncio.sleep(POLL_S)
        await asyncio.to_thread(change)
        async with asyncio.timeout(CHANGES_S):
            while len(found) < expected:
                event = msgspec.json.decode((await heard.next_msg(CHANGES_S)).data)
                if event["op"] == "update":
                    found += zip(event["rows"], event["old"], strict=True)
    except (TimeoutError, NatsError):
        return found
    finally:
        await client.close()
    return found
