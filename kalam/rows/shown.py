"""Rows as the outside sees them: events and messages in JSON and msgpack.

The rules are protocol.md's "Shown in JSON". msgspec writes nearly all of it in C; what it writes otherwise than the
contract asks (a whole second's six zeros, NaN, an embedded JSON text) is replaced beforehand, a column at a time and
only where a value needs it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import islice, repeat
from operator import ne
from typing import Any, Final

import msgspec
from msgspec import UNSET

from kalam.rows.column_types import TYPES, Show
from kalam.rows.types import Row
from kalam.rows.values import Values
from kalam.schema import Column, DataType, PayloadFormat, TypeName

_JSON = msgspec.json.Encoder()
_MSGPACK = msgspec.msgpack.Encoder()
_FLOATS: Final = frozenset({TypeName.FLOAT, TypeName.DOUBLE})


def show_in_json(name: TypeName, *, bigint_as_text: bool = False) -> Show | None:
    """What a column's values need before msgspec writes them as JSON; None for nothing."""
    kind = TYPES[name]
    return kind.as_text if bigint_as_text and kind.as_text else kind.in_json


def show_in_msgpack(name: TypeName) -> Show | None:
    """The same for msgpack, which has timestamps, bytes and NaN of its own."""
    return TYPES[name].in_msgpack


class RowShower:
    """Writes rows of one table as maps, with the given constant columns behind them.

    ``constants`` are the names of further members that all rows of a call share (``_updated``, ``_deleted``). With
    ``bigint_as_text`` JSON has BIGINT as text. Rows have ``hidden`` values behind those of the columns.
    """

    def __init__(
        self,
        columns: Iterable[Column],
        payload_format: PayloadFormat,
        constants: Sequence[str] = (),
        *,
        bigint_as_text: bool = False,
        hidden: int = 0,
    ) -> None:
        columns = tuple(columns)
        self._width = len(columns) if hidden else None
        is_json = payload_format is PayloadFormat.JSON
        show = partial(show_in_json, bigint_as_text=bigint_as_text) if is_json else show_in_msgpack
        self._shows = [(place, fix) for place, column in enumerate(columns) if (fix := show(column.type.name))]
        self._types = [column.type for column in columns]
        self._names = names = [column.name for column in columns]
        self._map: Any = msgspec.defstruct("Row", [*names, *constants], gc=False)
        self._part: Any = msgspec.defstruct("Part", [(name, Any, UNSET) for name in names], gc=False)
        self.is_json = is_json
        self.encode: Callable[[Any], bytes] = (_JSON if is_json else _MSGPACK).encode

    def maps(self, rows: Sequence[Row], constants: tuple[Any, ...] = ()) -> list[Any]:
        """The rows as values that ``encode`` writes as maps, every column present."""
        if not rows:
            return []
        columns: list[Values] = [*zip(*rows, strict=True)]
        del columns[len(self._names) :]  # what is hidden
        for place, show in self._shows:
            columns[place] = show(columns[place])
        return list(map(self._map, *columns, *map(repeat, constants)))

    def _seen(self, rows: Sequence[Row]) -> Sequence[Row]:
        """The rows without what is hidden."""
        return rows if self._width is None else [row[: self._width] for row in rows]

    def changed(self, olds: Sequence[Row], news: Sequence[Row]) -> list[Any]:
        """For each row the former values of the columns that changed, as values that ``encode`` writes as maps."""
        if not olds:
            return []
        columns: list[Values] = list(islice(zip(*olds, strict=True), self._width))
        wanted = list(map(which_differ, columns, zip(*news, strict=True), self._types))
        for place, show in self._shows:
            columns[place] = show(columns[place])
        return list(map(self._part, *map(_only, columns, wanted)))

    def each(self, rows: Sequence[Row]) -> list[bytes]:
        """Every row as a payload of its own."""
        return list(map(self.encode, self.maps(rows)))


def _only(values: Values, wanted: Sequence[bool]) -> Values:
    """The values that are wanted; what is UNSET is not written."""
    if all(wanted):
        return values
    if not any(wanted):
        return [UNSET] * len(wanted)
    return [value if is_wanted else UNSET for value, is_wanted in zip(values, wanted, strict=True)]


def which_differ(was: Values, now: Values, kind: DataType) -> Sequence[bool]:
    """Which values of a column of this type are others, as ``differs`` tells it."""
    if kind.name not in _FLOATS:
        return list(map(ne, was, now))
    # Of numbers that are not equal only two NaN are the same, and of equal ones only zeros may differ.
    return [
        a is not b and ((a == a or b == b) if a != b else not a and differs(a, b))
        for a, b in zip(was, now, strict=True)
    ]


def differs(a: Any, b: Any) -> bool:
    """Whether two values of a column are different, to the bit: NaN equals NaN, 0.0 is not -0.0."""
    if isinstance(a, float) and isinstance(b, float):
        if a == b:
            return a == 0 and math.copysign(1, a) != math.copysign(1, b)
        return a == a or b == b
    return bool(a != b) or type(a) is not type(b)
