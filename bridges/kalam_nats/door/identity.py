"""Who asks over NATS: the one place that makes an ``Identity`` of a subject's user.

A subject names the user; that nobody publishes on another's is for the broker to see to.
"""

from __future__ import annotations

from typing import Final

from kalam.engine import Caller, Engine, Identity, Session
from kalam_nats.broker.interest import Interest
from kalam_nats.door.departures import departure_of

NATS_DOOR: Final = "nats"


def identify(user: str) -> Identity:
    """Who asks, as the subject of the request says."""
    return Identity(user)


def caller_of(engine: Engine, session: Session, reply: str = "", interest: Interest | None = None) -> Caller:
    """A request at this door; where it has a reply subject it is cancelled when nobody waits for the answer."""
    departure = departure_of(reply, interest) if reply and interest is not None else None
    return engine.caller(session, NATS_DOOR, departure=departure)
