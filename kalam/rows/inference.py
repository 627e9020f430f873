"""The type that fits values that were seen: of a file that is loaded, or of messages that others published.

Texts are looked at: a column has a type if every text of it is one of its values and would come back as it was written.
So 007 is a text, and so is a number with more digits than a DOUBLE keeps. Integers are BIGINT, because what was not
looked at may be larger.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import date, datetime
from typing import Any, Final

TRUE_WORDS: Final = ("true", "t", "yes", "y", "on", "1")
FALSE_WORDS: Final = ("false", "f", "no", "n", "off", "0")
BIGINT_MAX: Final = (1 << 63) - 1
DIGITS_MAX: Final = 15
"""Every number of so many digits comes back from a DOUBLE as it was."""

_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*)")
_FLOAT = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,3})?")
_NOT_FINITE: Final = frozenset({"nan", "inf", "-inf", "infinity", "-infinity"})
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TIMESTAMP = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}.*")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def type_of_texts(texts: Sequence[str], *, booleans: bool = False) -> str:
    """The type that fits all of these texts."""
    words = frozenset(TRUE_WORDS + FALSE_WORDS) if booleans else frozenset({"true", "false"})
    tests: tuple[tuple[str, Callable[[str], object]], ...] = (
        ("BOOLEAN", lambda text: text.lower() in words),
        ("BIGINT", _is_integer),
        ("DOUBLE", _is_float),
        ("DATE", lambda text: _DATE.fullmatch(text) and _reads(date, text)),
        ("TIMESTAMP", lambda text: _TIMESTAMP.fullmatch(text) and _reads(datetime, text)),
        ("UUID", _UUID.fullmatch),
    )
    return next((name for name, fits in tests if texts and all(map(fits, texts))), "TEXT")


def _is_integer(text: str) -> bool:
    return bool(_INTEGER.fullmatch(text)) and -BIGINT_MAX - 1 <= int(text) <= BIGINT_MAX and text != "-0"


def _is_float(text: str) -> bool:
    if text.lower() in _NOT_FINITE:
        return True
    digits = re.sub(r"[eE].*|[^0-9]", "", text).lstrip("0")
    return bool(_FLOAT.fullmatch(text)) and len(digits) <= DIGITS_MAX


def _reads(kind: type[date | datetime], text: str) -> bool:
    try:
        kind.fromisoformat(text)
    except ValueError:
        return False
    return True


def type_of_values(values: Sequence[Any], *, booleans: bool = False) -> str:
    """The type that fits all of these values of JSON or msgpack, none of them NULL."""
    match set(map(type, values)):
        case kinds if not kinds:
            return "TEXT"
        case kinds if kinds == {bool}:
            return "BOOLEAN"
        case kinds if kinds == {int}:
            if booleans and set(values) <= {0, 1}:
                return "BOOLEAN"
            return "BIGINT" if all(-BIGINT_MAX - 1 <= value <= BIGINT_MAX for value in values) else "DECIMAL(38,0)"
        case kinds if kinds <= {int, float}:
            return "DOUBLE"
        case kinds if kinds == {str}:
            guessed = type_of_texts(values, booleans=booleans)
            return guessed if guessed not in ("BIGINT", "DOUBLE") and (booleans or guessed != "BOOLEAN") else "TEXT"
        case _:
            return "JSON"
