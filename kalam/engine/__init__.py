"""The engine: every statement and every insert of every door goes through it.

A door makes an ``Identity``, gets a ``Caller`` for each request of its, and needs nothing else.
"""

from kalam.access.identity import DEFAULT_USER, Identity
from kalam.engine.caller import Caller
from kalam.engine.departures import Departure
from kalam.engine.engine import Engine
from kalam.engine.health import Check
from kalam.engine.session import Session
from kalam.engine.shown import Shown, ShownRole
from kalam.engine.stats import Stats
from kalam.tables.insert_batch import InsertMessage

__all__ = [
    "DEFAULT_USER",
    "Caller",
    "Check",
    "Departure",
    "Engine",
    "Identity",
    "InsertMessage",
    "Session",
    "Shown",
    "ShownRole",
    "Stats",
]
