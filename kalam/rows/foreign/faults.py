"""Why a message does not decode, and values that are made one by one where not all of them can be."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
import pyarrow as pa

from kalam.errors import KalamError
from kalam.rows.arrow_values import UNFIT, arrow_values
from kalam.rows.judged import UNREADABLE
from kalam.rows.normalise import column_fix
from kalam.rows.values import BadValue, shorten
from kalam.schema import Column

MISSING: Final = msgspec.UNSET
"""What a message does not have."""


class Reason(enum.StrEnum):
    """Why a message does not decode."""

    MALFORMED = "malformed"
    NOT_A_MAP = "not_a_map"
    WRONG_VALUE = "wrong_value"
    MISSING_VALUE = "missing_value"
    WRONG_FIELDS = "wrong_fields"


class Fault(msgspec.Struct, frozen=True):
    """The first thing that is wrong with a message."""

    reason: Reason
    text: str


Faults = dict[int, Fault]
"""What is wrong with messages, by their places."""


def wrong_value(column: Column, found: str) -> Fault:
    """A value that its column does not hold."""
    return Fault(Reason.WRONG_VALUE, f"column {column.name} expects {column.type}, found {found}")


def missing_value(column: Column) -> Fault:
    """A column that has to have a value has none."""
    return Fault(Reason.MISSING_VALUE, f"column {column.name} is {column.type} NOT NULL and got no value")


def fixed(column: Column, values: Sequence[Any], faults: Faults) -> Sequence[Any]:
    """The values of a column in a row's form; what does not fit is NULL, and noted."""
    fix = column_fix(column)
    if fix is None:
        return values
    try:
        return fix(values)
    except BadValue:
        return _each(column, values, lambda value: fix([value])[0], faults)


def from_texts(column: Column, texts: Sequence[str | None], faults: Faults) -> Sequence[Any]:
    """The values of a column that stand in texts; what does not read is NULL, and noted."""
    distinct = list(dict.fromkeys(texts))
    own: Faults = {}
    try:
        values = _read(column, distinct)
    except (KalamError, BadValue, *UNFIT):
        values = _each(column, distinct, lambda text: _read(column, [text])[0], own)
    known = dict(zip(distinct, values, strict=True))
    wrong = {distinct[place]: fault for place, fault in own.items()}
    for place, text in enumerate(texts if wrong else ()):
        if text in wrong:
            faults.setdefault(place, wrong[text])
    return [known[text] for text in texts]


def _read(column: Column, texts: Sequence[str | None]) -> Sequence[Any]:
    values = arrow_values(pa.chunked_array([pa.array(texts, pa.string())]), column, sql=False, lossless=False)
    fix = column_fix(column)
    return values if fix is None else fix(values)


def _each(column: Column, values: Sequence[Any], make: Callable[[Any], Any], faults: Faults) -> list[Any]:
    made = []
    for place, value in enumerate(values):
        try:
            made.append(make(value))
        except (KalamError, BadValue, *UNFIT, *UNREADABLE):
            faults.setdefault(place, wrong_value(column, shorten(value)))
            made.append(None)
    return made
