"""What is known of a condition over one table without planning it (``condition`` reads it)."""

from __future__ import annotations

from datetime import date

import msgspec

PinValue = str | int | bool | date


class Pin(msgspec.Struct, frozen=True):
    """``column = value`` or ``column IN (value, …)``, every value of the column's own type."""

    column: str
    values: frozenset[PinValue]


class Condition(msgspec.Struct, frozen=True):
    """A condition's parts. ``whole`` says that the pins, joined by AND, are all of it.

    ``columns`` are the names of the columns in it; ``reads_clock`` is set where it may turn out otherwise tomorrow.
    """

    columns: frozenset[str]
    pins: tuple[Pin, ...]
    whole: bool
    reads_clock: bool
