"""A server in this process is asked as a door would."""

from __future__ import annotations

from kalam.engine import ADMINISTRATOR, Caller
from kalam.server import Running


def asking(running: Running) -> Caller:
    """A request of the administrator's."""
    return running.engine.caller(ADMINISTRATOR, "test")
