"""TIMESTAMP: an aware UTC datetime, in microseconds; an integer means what its column's UNIT says."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from operator import attrgetter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kalam.rows.column_types.arrow_kinds import is_text
from kalam.rows.column_types.record import ColumnType, PostgreSQLType
from kalam.rows.lone_values import show_timestamp, timestamp_text
from kalam.rows.time_units import PER_SECOND, Implausible, instant, micros_of, plausible
from kalam.rows.timestamp_text import read_utc_timestamp, rounded_micros
from kalam.rows.timestamps import from_micros, timestamps
from kalam.rows.values import EPOCH, BadValue, Fix, Values, shorten
from kalam.schema import DataType, TimestampUnit, TypeName

TIMESTAMP_ARROW = pa.timestamp("us", "UTC")
ARRAY_VALUES_MIN = 32
"""So many values are faster converted as an array than one by one."""
_ZONE, _MICROSECOND = attrgetter("tzinfo"), attrgetter("microsecond")
_STEP = timedelta(microseconds=1)
_FIRST_MICROS = (datetime(1, 1, 1, tzinfo=UTC) - EPOCH) // _STEP
_LAST_MICROS = (datetime(9999, 12, 31, 23, 59, 59, 999_999, UTC) - EPOCH) // _STEP
_from_seconds = datetime.fromtimestamp  # before 2100 a float of seconds rounds to the right microsecond


def _fix(kind: DataType) -> Fix:
    """Integers since 1970 in the column's unit, and datetimes of any offset, or of none, to aware UTC datetimes."""
    unit = kind.integer_unit
    first, end = plausible(unit)

    def fix(values: Values) -> Values:
        kinds = set(map(type, values))
        if kinds == {datetime}:
            zones = set(map(_ZONE, values))
            if zones == {UTC}:
                return values
            if zones == {None}:
                return [value.replace(tzinfo=UTC) for value in values]
        there = [value for value in values if value is not None] if type(None) in kinds else values
        if kinds - {type(None)} == {int} and first <= min(there) and max(there) < end:
            made = _of_integers(there, unit)
            if there is values:
                return made
            each_made = iter(made)
            return [None if value is None else next(each_made) for value in values]
        return [None if value is None else _instant(index, value, unit) for index, value in enumerate(values)]

    return fix


def _of_integers(values: Values, unit: TimestampUnit) -> list[datetime]:
    """Plausible integers as what they are."""
    per_second = PER_SECOND[unit]
    if len(values) >= ARRAY_VALUES_MIN:
        numbers = np.array(values, np.int64)
        if unit is TimestampUnit.NANOSECONDS:
            return from_micros(rounded_micros(numbers))
        return from_micros(numbers * (1_000_000 // per_second))
    if unit is TimestampUnit.NANOSECONDS:
        return [_from_seconds(micros_of(value, unit) / 1_000_000, UTC) for value in values]
    return [_from_seconds(value / per_second, UTC) for value in values]


def _instant(index: int, value: datetime | int, unit: TimestampUnit) -> datetime:
    try:
        if isinstance(value, int):
            return instant(value, unit)
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    except Implausible as exc:
        raise BadValue(index, f"a TIMESTAMP (an integer is {unit.words})", exc.found, exc.hint) from exc
    except (ValueError, OverflowError) as exc:
        raise BadValue(index, "a TIMESTAMP between the years 1 and 9999", shorten(value)) from exc


def _assigned(value: Any) -> Any:
    if isinstance(value, str):
        return read_utc_timestamp(value)
    if type(value) is date:
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    if isinstance(value, datetime) and value.tzinfo is None:
        return value.replace(tzinfo=UTC)
    return value


def from_arrow(values: pa.ChunkedArray, _: DataType | None = None) -> list[Any]:
    """Timestamps of any unit, dates, or texts, which mean UTC where they name no offset; integers as they are."""
    kind = values.type
    if kind == TIMESTAMP_ARROW:
        return timestamps(values)
    if is_text(kind):
        for form in (TIMESTAMP_ARROW, pa.timestamp("us")):  # Arrow reads fewer forms, and those much faster
            with suppress(pa.ArrowException, ValueError):
                return timestamps(values.cast(form).cast(TIMESTAMP_ARROW))
        return [None if text is None else _of_text(text) for text in values.to_pylist()]
    if pa.types.is_integer(kind):
        return list(values.to_pylist())
    if not (pa.types.is_timestamp(kind) or pa.types.is_date(kind)):
        raise ValueError("it has no timestamps")
    return timestamps(_in_micros(values))


def _in_micros(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Timestamps of any unit and zone, or dates; raises ArrowInvalid for what 64 bits of microseconds do not hold."""
    kind = values.type
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        micros = rounded_micros(np.asarray(pc.fill_null(values.cast(pa.int64()), 0).to_numpy(), np.int64))
        missing = np.asarray(values.is_null().to_numpy())
        values = pa.chunked_array([pa.array(micros, pa.int64(), mask=missing)])
    if pa.types.is_timestamp(values.type):
        values = values.cast(pa.timestamp(values.type.unit))
    return values.cast(pa.timestamp("us")).cast(TIMESTAMP_ARROW)


def _whole(values: pa.ChunkedArray, _: DataType) -> pa.ChunkedArray | None:
    if not pa.types.is_timestamp(values.type):
        return None
    try:
        found = values if values.type == TIMESTAMP_ARROW else _in_micros(values)
    except pa.ArrowInvalid:
        return None
    bounds = pc.min_max(found.cast(pa.int64())).as_py()
    if bounds["min"] is not None and not _FIRST_MICROS <= bounds["min"] <= bounds["max"] <= _LAST_MICROS:
        return None
    return found


def _of_text(text: str) -> datetime | int:
    """A text as RFC 3339 has it, or the digits of an integer."""
    if text.strip().lstrip("-").isdecimal():
        return int(text)
    return read_utc_timestamp(text)


def _default(value: Any, kind: DataType) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise TypeError("expected a text like '2024-01-31T12:00:00Z'")
    try:
        moment = instant(value, kind.integer_unit) if isinstance(value, int) else read_utc_timestamp(value)
    except Implausible:
        raise
    except ValueError:
        raise ValueError("expected a text like '2024-01-31T12:00:00Z'") from None
    return timestamp_text(moment)


def _show(values: Values) -> Values:
    try:
        micros = list(map(_MICROSECOND, values))
    except AttributeError:  # of a NULL
        return [show_timestamp(value) for value in values]
    whole = micros.count(0)
    if not whole:
        return values
    shown, place = list(values), -1
    for _ in range(whole):
        place = micros.index(0, place + 1)
        shown[place] = timestamp_text(values[place])
    return shown


def from_event(shown: Any) -> datetime:
    """A timestamp as an event shows it."""
    return shown if isinstance(shown, datetime) else datetime.fromisoformat(shown)


def _compared(value: Any, kind: DataType) -> str | None:
    try:
        if isinstance(value, str):
            moment = read_utc_timestamp(value)
        elif isinstance(value, int) and not isinstance(value, bool):
            moment = EPOCH + micros_of(value, kind.integer_unit) * _STEP  # of any plausibility: it may be a bound
        else:
            return None
    except (ValueError, OverflowError):
        return None
    return f"""arrow_cast({(moment - EPOCH) // _STEP}, 'Timestamp(Microsecond, Some("UTC"))')"""


TIMESTAMP = ColumnType(
    name=TypeName.TIMESTAMP,
    words=("TIMESTAMP", "TIMESTAMPTZ", "DATETIME"),
    postgresql=PostgreSQLType("timestamptz", 1184),
    literal="TIMESTAMP",
    is_key=True,
    decoded=lambda kind, how: datetime | int,
    fix=_fix,
    assigned=_assigned,
    from_arrow=from_arrow,
    own_arrow=pa.types.is_timestamp,
    whole=_whole,
    arrow=lambda kind: TIMESTAMP_ARROW,
    default=_default,
    in_json=_show,
    from_event=from_event,
    compared=_compared,
)
