"""Rows as the outside sees them: events and messages in JSON and msgpack.

The rules are protocol.md's "Shown in JSON". msgspec writes nearly all of it in C; what it writes otherwise than the
contract asks (a whole second's six zeros, NaN, an embedded JSON text) is replaced beforehand, a column at a time and
only where a value needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from functools import partial
from math import isfinite
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np

from kalam.rows.normalise import nonfinite_text
from kalam.rows.types import Row
from kalam.schema import Column, PayloadFormat, TypeName

_JSON = msgspec.json.Encoder()
_MSGPACK = msgspec.msgpack.Encoder()

Show = Callable[[Sequence[Any]], Sequence[Any]]


def timestamp_text(value: datetime) -> str:
    """An aware UTC datetime as RFC 3339 text with six fractional digits and ``Z``."""
    return value.isoformat(timespec="microseconds")[:-6] + "Z"


def show_timestamp(value: datetime | None) -> datetime | str | None:
    """A timestamp as msgspec has to get it: it leaves out the fraction of a whole second."""
    return value if value is None or value.microsecond else timestamp_text(value)


_MICROSECOND = attrgetter("microsecond")


def _show_timestamps(values: Sequence[Any]) -> Sequence[Any]:
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


def _show_floats(values: Sequence[Any]) -> Sequence[Any]:
    if isfinite(sum(filter(None, values))):  # NaN and the infinities survive a sum
        return values
    return [value if value is None or isfinite(value) else nonfinite_text(value) for value in values]


def _show_float32s(values: Sequence[Any]) -> Sequence[Any]:
    shortest = [None if value is None else float(str(np.float32(value))) for value in values]
    return _show_floats(shortest)


def _show_decimals(values: Sequence[Any]) -> Sequence[Any]:
    return [None if value is None else format(value, "f") for value in values]


def _show_json(values: Sequence[Any]) -> Sequence[Any]:
    return [None if value is None else msgspec.Raw(value.encode()) for value in values]


def _show_integers(values: Sequence[Any]) -> Sequence[Any]:
    return [None if value is None else str(value) for value in values]


def _unpack_json(values: Sequence[Any]) -> Sequence[Any]:
    return [None if value is None else msgspec.json.decode(value) for value in values]


def show_in_json(name: TypeName, *, bigint_as_text: bool = False) -> Show | None:
    """What a column's values need before msgspec writes them as JSON; None for nothing."""
    match name:
        case TypeName.BIGINT if bigint_as_text:  # JavaScript's numbers are exact up to 2^53 only
            return _show_integers
        case TypeName.TIMESTAMP:
            return _show_timestamps
        case TypeName.DOUBLE:
            return _show_floats
        case TypeName.FLOAT:  # 0.1 and not 0.10000000149011612: the shortest text that reads back as the same 32 bits
            return _show_float32s
        case TypeName.DECIMAL:
            return _show_decimals
        case TypeName.JSON:
            return _show_json
        case _:
            return None


def show_in_msgpack(name: TypeName) -> Show | None:
    """The same for msgpack, which has timestamps, bytes and NaN of its own."""
    match name:
        case TypeName.DECIMAL:
            return _show_decimals
        case TypeName.JSON:
            return _unpack_json
        case _:
            return None


class RowShower:
    """Writes rows of one table as maps, with the given constant columns behind them.

    ``constants`` are the names of further members that all rows of a call share (``_updated``, ``_deleted``). With
    ``bigint_as_text`` JSON has BIGINT as text.
    """

    def __init__(
        self,
        columns: Iterable[Column],
        payload_format: PayloadFormat,
        constants: Sequence[str] = (),
        *,
        bigint_as_text: bool = False,
    ) -> None:
        columns = tuple(columns)
        is_json = payload_format is PayloadFormat.JSON
        show = partial(show_in_json, bigint_as_text=bigint_as_text) if is_json else show_in_msgpack
        self._shows = [(column.name, fix) for column in columns if (fix := show(column.type.name))]
        self._names = [column.name for column in columns]
        self._map: Any = msgspec.defstruct("Row", [*self._names, *constants], gc=False)
        self.is_json = is_json
        self.encode: Callable[[Any], bytes] = (_JSON if is_json else _MSGPACK).encode

    def maps(self, rows: Sequence[Row], constants: tuple[Any, ...] = ()) -> list[Any]:
        """The rows as values that ``encode`` writes as maps, every column present."""
        make = self._map
        maps = [make(*row, *constants) for row in rows]
        for name, show in self._shows:
            values = list(map(attrgetter(name), maps))
            shown = show(values)
            if shown is not values:
                for row_map, value, old in zip(maps, shown, values, strict=True):
                    if value is not old:
                        setattr(row_map, name, value)
        return maps

    def changed(self, olds: Sequence[Row | None], news: Sequence[Row]) -> list[dict[str, Any]]:
        """For each row the former values of the columns that changed, as ``encode`` takes them."""
        there = iter(self.maps([old for old in olds if old is not None]))
        shown = [None if old is None else next(there) for old in olds]
        return [
            {}
            if old is None
            else {
                name: getattr(was, name)
                for name, a, b in zip(self._names, old, new, strict=True)
                if a is not b and differs(a, b)
            }
            for was, old, new in zip(shown, olds, news, strict=True)
        ]

    def each(self, rows: Sequence[Row]) -> list[bytes]:
        """Every row as a payload of its own."""
        return list(map(self.encode, self.maps(rows)))


def differs(a: Any, b: Any) -> bool:
    """Whether two values of a column are different, to the bit: NaN equals NaN, 0.0 is not -0.0."""
    if isinstance(a, float) and isinstance(b, float):
        return a.hex() != b.hex()
    return bool(a != b) or type(a) is not type(b)


def json_default(value: Any) -> Any:
    """How a lone value that is not of a table's column is shown in JSON."""
    if isinstance(value, datetime):
        return show_timestamp(value)
    if isinstance(value, float) and not isfinite(value):
        return nonfinite_text(value)
    return format(value, "f") if isinstance(value, Decimal) else value
