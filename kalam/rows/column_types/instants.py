"""TIMESTAMP: an aware UTC datetime, in microseconds; an integer means milliseconds since 1970."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from operator import attrgetter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kalam.rows.column_types.arrow_kinds import is_text
from kalam.rows.column_types.record import ColumnType
from kalam.rows.lone_values import show_timestamp, timestamp_text
from kalam.rows.timestamp_text import read_utc_timestamp, rounded_micros
from kalam.rows.timestamps import from_micros, timestamps
from kalam.rows.values import EPOCH, Values, each
from kalam.schema import DataType, TypeName

TIMESTAMP_ARROW = pa.timestamp("us", "UTC")
ARRAY_VALUES_MIN = 32
"""So many values are faster converted as an array than one by one."""
FLOAT_EXACT_MS = 2**32 * 1_000
"""Up to here the seconds as a float are less than half a microsecond off, and so round to the right one."""
_ZONE, _MICROSECOND = attrgetter("tzinfo"), attrgetter("microsecond")
_STEP = timedelta(microseconds=1)
_from_seconds = datetime.fromtimestamp


def _fix(values: Values) -> Values:
    """Integers (milliseconds since 1970) and datetimes of any offset, or of none, to aware UTC datetimes."""
    kinds = set(map(type, values))
    if kinds == {datetime}:
        zones = set(map(_ZONE, values))
        if zones == {UTC}:
            return values
        if zones == {None}:
            return [value.replace(tzinfo=UTC) for value in values]
    if kinds == {int} and min(values) > -FLOAT_EXACT_MS and max(values) < FLOAT_EXACT_MS:
        if len(values) < ARRAY_VALUES_MIN:
            return [_from_seconds(value / 1_000, UTC) for value in values]
        return from_micros(np.array(values, np.int64) * 1_000)
    return each(values, _instant, "a TIMESTAMP between the years 1 and 9999")


def _instant(value: datetime | int) -> datetime:
    if isinstance(value, int):
        return EPOCH + timedelta(milliseconds=value)
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _assigned(value: Any) -> Any:
    if isinstance(value, str):
        return read_utc_timestamp(value)
    if type(value) is date:
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    if isinstance(value, datetime) and value.tzinfo is None:
        return value.replace(tzinfo=UTC)
    return value


def from_arrow(values: pa.ChunkedArray, _: DataType | None = None) -> list[Any]:
    """Timestamps of any unit, dates, milliseconds since 1970, or texts, which mean UTC where they name no offset."""
    kind = values.type
    if kind == TIMESTAMP_ARROW:
        return timestamps(values)
    if is_text(kind):
        for form in (TIMESTAMP_ARROW, pa.timestamp("us")):  # Arrow reads fewer forms, and those much faster
            with suppress(pa.ArrowException, ValueError):
                return timestamps(values.cast(form).cast(TIMESTAMP_ARROW))
        return [None if text is None else _of_text(text) for text in values.to_pylist()]
    if pa.types.is_integer(kind):
        values = values.cast(pa.int64()).cast(pa.timestamp("ms"))
    elif pa.types.is_timestamp(kind) and kind.unit == "ns":
        micros = rounded_micros(np.asarray(pc.fill_null(values.cast(pa.int64()), 0).to_numpy(), np.int64))
        missing = np.asarray(values.is_null().to_numpy())
        values = pa.chunked_array([pa.array(micros, pa.int64(), mask=missing)])
    elif not (pa.types.is_timestamp(kind) or pa.types.is_date(kind)):
        raise ValueError("it has no timestamps")
    if pa.types.is_timestamp(values.type):
        values = values.cast(pa.timestamp(values.type.unit))
    return timestamps(values.cast(pa.timestamp("us")).cast(TIMESTAMP_ARROW))


def _of_text(text: str) -> datetime:
    """A text as RFC 3339 has it, or milliseconds since 1970 in digits."""
    if text.strip().lstrip("-").isdecimal():
        return EPOCH + timedelta(milliseconds=int(text))
    return read_utc_timestamp(text)


def _default(value: Any, _: DataType) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise TypeError("expected a text like '2024-01-31T12:00:00Z'")
    try:
        moment = EPOCH + timedelta(milliseconds=value) if isinstance(value, int) else read_utc_timestamp(value)
    except ValueError:
        raise ValueError("expected a text like '2024-01-31T12:00:00Z'") from None
    return timestamp_text(moment)


def _show(values: Values) -> Values:
    try:
        whole = [place for place, micros in enumerate(map(_MICROSECOND, values)) if not micros]
    except AttributeError:  # of a NULL
        return [show_timestamp(value) for value in values]
    if not whole:
        return values
    shown = list(values)
    for place in whole:
        shown[place] = timestamp_text(values[place])
    return shown


def from_event(shown: Any) -> datetime:
    """A timestamp as an event shows it."""
    return shown if isinstance(shown, datetime) else datetime.fromisoformat(shown)


def _compared(value: Any) -> str | None:
    try:
        if isinstance(value, str):
            moment = read_utc_timestamp(value)
        elif isinstance(value, int) and not isinstance(value, bool):
            moment = EPOCH + timedelta(milliseconds=value)
        else:
            return None
    except (ValueError, OverflowError):
        return None
    return f"""arrow_cast({(moment - EPOCH) // _STEP}, 'Timestamp(Microsecond, Some("UTC"))')"""


TIMESTAMP = ColumnType(
    name=TypeName.TIMESTAMP,
    words=("TIMESTAMP", "TIMESTAMPTZ", "DATETIME"),
    literal="TIMESTAMP",
    is_key=True,
    decoded=lambda kind, how: datetime | int,
    fix=lambda kind: _fix,
    assigned=_assigned,
    from_arrow=from_arrow,
    own_arrow=pa.types.is_timestamp,
    arrow=lambda kind: TIMESTAMP_ARROW,
    default=_default,
    in_json=_show,
    from_event=from_event,
    compared=_compared,
)
