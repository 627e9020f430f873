"""A server in this process is asked as a door would."""

from __future__ import annotations

from kalam.engine import Caller, Session
from kalam.server import Running


def asking(running: Running) -> Caller:
    """A request of the administrator's."""
    return running.engine.caller(Session(), "test")
