"""The engine: every statement and every insert of every door goes through it.

A door makes an ``Identity``, gets a ``Caller`` for each request of its, and needs nothing else.
"""

from kalam.access.identity import DEFAULT_USER, Identity
from kalam.engine.caller import ROWS_OR_PARAMS, Caller
from kalam.engine.departures import Departure
from kalam.engine.described import Description
from kalam.engine.engine import Engine
from kalam.engine.health import Check
from kalam.engine.lookups import Lookups
from kalam.engine.session import Session
from kalam.engine.shown import Shown, ShownRole
from kalam.engine.stats import Stats
from kalam.query.points import PointRow
from kalam.sql.text.named_places import position_of
from kalam.tables.insert_batch import InsertMessage

__all__ = [
    "DEFAULT_USER",
    "ROWS_OR_PARAMS",
    "Caller",
    "Check",
    "Departure",
    "Description",
    "Engine",
    "Identity",
    "InsertMessage",
    "Lookups",
    "PointRow",
    "Session",
    "Shown",
    "ShownRole",
    "Stats",
    "position_of",
]
