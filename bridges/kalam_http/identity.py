"""Who asks over HTTP: the one place that makes an ``Identity`` of a request, and its ``Caller``."""

from __future__ import annotations

from typing import Any, Final

from starlette.requests import Request

from kalam.engine import DEFAULT_USER, Caller, Engine, Identity, Session
from kalam_http.departures import departure_of

HTTP_DOOR: Final = "http"
USER_HEADER: Final = "X-Kalam-User"
USER_PARAMETER: Final[dict[str, Any]] = {
    "name": USER_HEADER,
    "in": "header",
    "required": False,
    "description": "the user as whom the statements run, while authentication is off",
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$", "default": DEFAULT_USER},
}


def identify(request: Request) -> Identity:
    """Who asks; raises InvalidName. An empty header names nobody, as one that is not there."""
    return Identity(request.headers.get(USER_HEADER) or DEFAULT_USER)


def caller_of(
    engine: Engine, request: Request, namespace: str | None = None, *, bigint_as_text: bool = False
) -> Caller:
    """A request at this door, which is cancelled when its client leaves; raises InvalidName."""
    session = Session(identify(request), namespace, bigint_as_text=bigint_as_text)
    return engine.caller(session, HTTP_DOOR, departure=departure_of(request.receive))
