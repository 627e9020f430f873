"""Whether the server is ready: what has to be well for it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from kalam.errors import KalamError, without_folders
from kalam.storage.log.database import Database, probe
from kalam.storage.work.flush_schedule import FlushSchedule

LOOK_S_MAX = 60.0
"""How long the flusher may not look at what is due before it is stuck."""


class Check(msgspec.Struct, frozen=True):
    """One thing that has to be well for the server to be ready."""

    name: str
    ok: bool
    detail: str = ""


class Health(msgspec.Struct, frozen=True):
    """Looks at the parts on which everything stands."""

    data_dir: Path
    disk_free_bytes_min: int
    database: Database
    schedule: FlushSchedule
    broker_connected: Callable[[], bool]
    broker_answers: Callable[[], Awaitable[bool]]
    logins_answered: Callable[[], bool] | None = None
    """Whether the broker can ask about logins, where it does: else nobody comes in, and who is in notices nothing."""

    async def checks(self) -> list[Check]:
        """What has to be well, as it is now."""
        free = shutil.disk_usage(self.data_dir).free
        failing = self.schedule.failing
        unlooked_s = time.monotonic() - self.schedule.looked_at
        nats = "not connected"
        if self.broker_connected():
            nats = "connected" if await self.broker_answers() else "connected, but the broker does not answer"
        if self.database.failure is not None:  # without traffic nothing else would find out that it works again
            with suppress(KalamError):
                await self.database.write(probe)
        return [
            *self._logins(),
            Check("sqlite", self.database.failure is None, without_folders(self.database.failure or "writable")),
            Check("nats", nats == "connected", nats),
            Check("flusher", unlooked_s < LOOK_S_MAX, f"failing for {', '.join(failing)}" if failing else "well"),
            Check("disk", free >= self.disk_free_bytes_min, f"{free} bytes free"),
        ]

    def _logins(self) -> list[Check]:
        if self.logins_answered is None:
            return []
        answered = self.logins_answered()
        return [Check("logins", answered, "answered" if answered else "the broker cannot ask about them")]
