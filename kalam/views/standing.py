"""How it stands with a view, for whoever keeps it, waits for it or shows it."""

from __future__ import annotations

import enum

import msgspec

from kalam.errors import KalamError


class Standing(enum.StrEnum):
    """How it stands with a view."""

    FILLING = "filling"
    RUNNING = "running"
    WAITING = "waiting"
    ASLEEP = "asleep"
    STOPPED = "stopped"
    FAILED = "failed"


class Kept(msgspec.Struct):
    """How a view stands, and why; the ``error`` where it was one that it waits behind."""

    standing: Standing = Standing.FILLING
    reason: str = ""
    error: KalamError | None = None
    filled_rows: int = 0
    cost_s: float = 0.0
    behind_since_s: float | None = None
