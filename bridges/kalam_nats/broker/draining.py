"""The end of subscriptions."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import structlog
from nats.aio.subscription import Subscription

log = structlog.get_logger(__name__)

DRAIN_S = 5.0
"""How long the end of a subscription is waited for."""


async def drained(subscriptions: Iterable[Subscription]) -> None:
    """Take no more messages, and return when those that came are handled."""
    for subscription in subscriptions:
        try:
            async with asyncio.timeout(DRAIN_S):
                await subscription.drain()  # type: ignore[no-untyped-call]
        except Exception as exc:  # noqa: BLE001 - the connection may be gone, and we are going
            log.debug("subscription not drained", error=str(exc))
