"""What an integer means as a TIMESTAMP: seconds, milliseconds, microseconds or nanoseconds since 1970.

Its column says which. Seconds that are taken for milliseconds are a day in January 1970, and nobody notices. So an
integer that lands before 1971 or after 2100 by its column's unit, and between them by another one, is refused; in a
table of real times there is none of these. No integer is a time between 1971 and 2100 in two units.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from kalam.rows.values import EPOCH
from kalam.schema import TimestampUnit

PER_SECOND: Final = {
    TimestampUnit.SECONDS: 1,
    TimestampUnit.MILLISECONDS: 1_000,
    TimestampUnit.MICROSECONDS: 1_000_000,
    TimestampUnit.NANOSECONDS: 1_000_000_000,
}
FIRST_S: Final = int(datetime(1971, 1, 1, tzinfo=UTC).timestamp())
END_S: Final = int(datetime(2101, 1, 1, tzinfo=UTC).timestamp())


class Implausible(ValueError):
    """An integer is probably meant in another unit: ``found`` says what it would be, ``hint`` what to do."""

    def __init__(self, value: int, unit: TimestampUnit, meant: TimestampUnit) -> None:
        self.found = f"{value}, which is {_day(value, meant)} in {meant.words} and {_day(value, unit)} in {unit.words}"
        self.hint = f"send {unit.words}, or a text; a column of {meant.words} is declared TIMESTAMP UNIT '{meant}'"
        super().__init__(f"found {self.found}; {self.hint}")


def plausible(unit: TimestampUnit) -> tuple[int, int]:
    """The first integer of a unit that is a time from 1971 on, and the first one after 2100."""
    return FIRST_S * PER_SECOND[unit], END_S * PER_SECOND[unit]


def micros_of(value: int, unit: TimestampUnit) -> int:
    """The microseconds that an integer is; of nanoseconds the nearest one."""
    if unit is TimestampUnit.NANOSECONDS:
        return (value + 500) // 1_000
    return value * (1_000_000 // PER_SECOND[unit])


def instant(value: int, unit: TimestampUnit) -> datetime:
    """The time that an integer is; raises Implausible, and OverflowError for one outside of the years 1 to 9999."""
    meant = _meant(value, unit)
    if meant is not None:
        raise Implausible(value, unit, meant)
    return EPOCH + timedelta(microseconds=micros_of(value, unit))


def _meant(value: int, unit: TimestampUnit) -> TimestampUnit | None:
    """The other unit in which an integer is a plausible time that is none in its own."""
    first, end = plausible(unit)
    if first <= value < end:
        return None
    others = ((other, *plausible(other)) for other in TimestampUnit)
    return next((other for other, first, end in others if first <= value < end), None)


def _day(value: int, unit: TimestampUnit) -> str:
    try:
        return str((EPOCH + timedelta(microseconds=micros_of(value, unit))).date())
    except OverflowError:
        return "a year beyond 9999"
