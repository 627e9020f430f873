"""The repair of the embedded broker's store: a restart, once a full disk has room again.

After the disk was full (ENOSPC) a stream of nats-server stays broken until the broker restarts: publishes to it only
time out, even with room again. So when acks have failed to come, or told of no room, and the disk has room (setting
``disk_free_bytes_min``), and no ack at all has come since, the broker is restarted. Between restarts the pause grows:
a broker that is merely slow must not be kept from its work.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog

from kalam.errors import BrokerUnavailable
from kalam_nats.jetstream import JetStream

PATIENCE_S = 2.0
"""How long after trouble an ack may still come."""
PAUSE_S_MIN, PAUSE_S_MAX = 10.0, 600.0

log = structlog.get_logger(__name__)


class StoreRepair:
    """Restarts the broker that keeps its store in ``folder``, when that helps."""

    def __init__(
        self, jetstream: JetStream, folder: Path, free_bytes_min: int, restart: Callable[[], Awaitable[None]]
    ) -> None:
        self._jetstream, self._folder, self._free_bytes_min = jetstream, folder, free_bytes_min
        self._restart = restart
        self._trouble = asyncio.Event()
        jetstream.on_trouble = self._trouble.set

    async def run(self) -> None:
        """Watch for trouble, until cancelled."""
        pause_s = PAUSE_S_MIN
        while True:
            self._trouble.clear()
            await self._trouble.wait()
            acks = self._jetstream.acks
            await asyncio.sleep(PATIENCE_S)
            if self._jetstream.acks > acks:
                pause_s = PAUSE_S_MIN
                continue
            if shutil.disk_usage(self._folder).free < self._free_bytes_min:
                continue  # the next publish that fails asks again
            log.warning("the broker stores nothing although the disk has room; it is restarted", again_in_s=pause_s)
            try:
                await self._restart()
            except BrokerUnavailable as exc:
                log.error("nats_server_not_restarted", error=exc.detail)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, PAUSE_S_MAX)
