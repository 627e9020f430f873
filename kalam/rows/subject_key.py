"""The last token of an event's subject: the value of the table's SUBJECT_KEY, as one token of a NATS subject."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec

from kalam.errors import InvalidValue

KEY_BYTES_MAX = 128
NO_KEY = "-"  # the token of NULL and of an empty text

_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]+")


def key_token(value: object) -> str:
    """The token of a SUBJECT_KEY's value.

    It is the value's JSON text, a text without quotes and escapes. One with a character outside ``A-Z a-z 0-9 _ -`` is
    ``=`` and its UTF-8 bytes in base64url without padding; ``-`` stands for NULL and for an empty text, and the text
    ``-`` itself is encoded. Raises InvalidValue for more than 128 bytes.
    """
    text = value if type(value) is str else _json_text(value)
    if _PLAIN_KEY.fullmatch(text) and len(text) <= KEY_BYTES_MAX and text != NO_KEY:
        return text
    return _encoded(text) if text else NO_KEY


def _encoded(text: str) -> str:
    try:
        raw = text.encode()
    except UnicodeEncodeError as exc:
        raise InvalidValue("a SUBJECT_KEY value is not valid Unicode text (it has a lone surrogate)") from exc
    if len(raw) > KEY_BYTES_MAX:
        raise InvalidValue(
            f"a SUBJECT_KEY value is {len(raw)} bytes long, at most {KEY_BYTES_MAX} fit into a subject: {text[:40]!r}…"
        )
    return "=" + base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _json_text(value: object) -> str:
    text_of = _TEXT_OF.get(type(value))
    if text_of is None:
        raise InvalidValue(f"a value of type {type(value).__name__} cannot be a SUBJECT_KEY")
    return text_of(value)


def _float_text(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return msgspec.json.encode(value).decode()  # the same digits as in the row's own JSON


def _timestamp_text(value: datetime) -> str:
    utc = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    return utc.strftime("%Y-%m-%dT%H:%M:%S.%f").rjust(26, "0") + "Z"


_TEXT_OF: dict[type, Callable[[Any], str]] = {
    type(None): lambda _: "",
    bool: lambda value: "true" if value else "false",
    int: str,
    float: _float_text,
    str: str,
    bytes: lambda value: base64.b64encode(value).decode(),
    Decimal: lambda value: format(value, "f"),
    datetime: _timestamp_text,
    date: date.isoformat,
    UUID: str,
}
