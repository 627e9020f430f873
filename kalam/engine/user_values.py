"""The values that statements on users give: passwords, and times until which something is valid."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from kalam.engine.session import Request
from kalam.errors import InvalidValue
from kalam.query.parameters import check_parameters
from kalam.rows.timestamp_text import read_utc_timestamp
from kalam.sql.text.statements import Literal, Parameter

INFINITY: Final = "infinity"


def secret_of(password: Literal | Parameter, request: Request) -> str:
    """The password that a statement gives, as it stands there or as a parameter."""
    value = password.value if isinstance(password, Literal) else _parameter(password, request)
    if not isinstance(value, str):
        raise InvalidValue("a password is a text")
    return value


def _parameter(parameter: Parameter, request: Request) -> object:
    check_parameters(parameter.index, request.parameters)
    return request.parameters[parameter.index - 1]


def moment_of(text: str | None) -> datetime | None:
    """The time that VALID UNTIL names; None for no end."""
    if text is None or text.strip().lower() == INFINITY:
        return None
    try:
        return read_utc_timestamp(text)
    except (ValueError, OverflowError) as exc:
        raise InvalidValue("VALID UNTIL takes a time such as '2027-01-31T12:00:00Z', or 'infinity'") from exc


def us_of(moment: datetime) -> int:
    """A moment in microseconds since 1970."""
    return int(moment.timestamp() * 1_000_000)
