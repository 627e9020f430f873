"""The repair of the embedded broker's store: a restart, once a full disk has room again.

After the disk was full (ENOSPC) nats-server turns JetStream off, or a stream of it stays broken, until the broker
restarts: publishes only time out, even with room again. So when acks have failed to come, or JetStream told of no room
or did not answer, the broker is restarted as soon as the disk has room, if then no ack at all comes, or none of a
stream that has failed again and again: the other streams may be well. What is room is not for the readiness of the
server to say (``disk_free_bytes_min``): on a small disk there may never be so much.

Between restarts the pause grows while they do not help: a broker that is merely slow must not be kept from its work. An
ack shows that the last one did, and the next trouble is another one.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog

from kalam.backoff import Backoff
from kalam.errors import BrokerUnavailable
from kalam_nats.broker.jetstream import JetStream, RefusedError

PATIENCE_S = 2.0
"""How long after trouble an ack may still come."""
PAUSE_S_MIN, PAUSE_S_MAX = 10.0, 600.0
FAILING_S = 1.0
"""How long the acks of a stream have to fail, without a good one between, before it is taken for broken."""
LOOK_S = 0.5
"""How often a full disk is looked at."""
ROOM_BYTES = 16 << 20
"""Two of the blocks in which JetStream writes."""

log = structlog.get_logger(__name__)


class StoreRepair:
    """Restarts the broker that keeps its store in ``folder``, when that helps."""

    def __init__(
        self, jetstream: JetStream, folder: Path, free_bytes_min: int, restart: Callable[[], Awaitable[None]]
    ) -> None:
        self._jetstream, self._folder = jetstream, folder
        self._room_bytes = min(free_bytes_min, ROOM_BYTES)
        self._restart = restart
        self._trouble = asyncio.Event()
        jetstream.on_trouble = self._trouble.set

    async def run(self) -> None:
        """Watch for trouble, until cancelled."""
        backoff, restarted_at = Backoff(PAUSE_S_MIN, PAUSE_S_MAX), self._jetstream.acks
        while True:
            self._trouble.clear()
            await self._trouble.wait()
            if self._jetstream.acks > restarted_at:
                backoff.reset()
            if not await self._is_broken():
                continue
            pause_s = backoff.failed()
            log.warning("the broker stores nothing although the disk has room; it is restarted", again_in_s=pause_s)
            try:
                await self._restart()
            except BrokerUnavailable as exc:
                log.error("nats_server_not_restarted", error=exc.detail)
            restarted_at = self._jetstream.acks
            self._jetstream.failing.clear()
            await asyncio.sleep(pause_s)

    async def _is_broken(self) -> bool:
        """Whether nothing is stored though there is room, for which it waits."""
        acks = self._jetstream.acks
        await asyncio.sleep(PATIENCE_S)
        while shutil.disk_usage(self._folder).free < self._room_bytes:  # noqa: ASYNC110 - nobody tells of room
            await asyncio.sleep(LOOK_S)
        failing = self._jetstream.failing
        if self._jetstream.acks > acks:
            return any(last - first >= FAILING_S for first, last in failing.values())
        return bool(failing) or not await self._answers()

    async def _answers(self) -> bool:
        """Whether JetStream's API does, which alone was in trouble."""
        try:
            await self._jetstream.request("INFO")
        except (BrokerUnavailable, RefusedError):
            return False
        return True
