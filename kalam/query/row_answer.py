"""The JSON answer to a query for one row, of which all but the row's values was written beforehand.

It is byte for byte what ``answer_json`` writes for the same row as a table of Arrow (a test compares them); but a table
of one row costs 100 µs to make, and this a twentieth.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from kalam.query.results import ResultColumn
from kalam.rows.lone_values import show_timestamp
from kalam.rows.shown import show_in_json
from kalam.schema import TypeName

_ENCODER = msgspec.json.Encoder()


class RowAnswer:
    """Writes answers with these columns; ``types`` are their types' names."""

    def __init__(self, columns: Sequence[ResultColumn], types: Sequence[TypeName]) -> None:
        shown = [{"name": column.name, "type": column.type} for column in columns]
        self._head = b'{"results":[{"columns":' + _ENCODER.encode(shown) + b',"rows":['
        self._moments = [place for place, name in enumerate(types) if name is TypeName.TIMESTAMP]
        shows = [(place, show_in_json(name)) for place, name in enumerate(types) if name is not TypeName.TIMESTAMP]
        self._shows = [(place, show) for place, show in shows if show is not None]

    def write(self, values: list[Any] | None, took_ms: float) -> bytes:
        """The answer with these values, which are changed in place; None for an answer without a row."""
        if values is None:
            return b'%b],"row_count":0,"message":null}],"took_ms":%b}' % (self._head, _took(took_ms))
        for place in self._moments:
            values[place] = show_timestamp(values[place])
        for place, show in self._shows:
            values[place] = show((values[place],))[0]
        row = _ENCODER.encode(values)
        return b'%b%b],"row_count":1,"message":null}],"took_ms":%b}' % (self._head, row, _took(took_ms))


def _took(took_ms: float) -> bytes:
    return _ENCODER.encode(round(took_ms, 3))
