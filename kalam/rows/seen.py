"""From what events show back to rows: the inverse of ``shown``, for changes that are replayed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from kalam.errors import InvalidValue
from kalam.rows.column_types import TYPES
from kalam.rows.sql_values import sql_value
from kalam.schema import Column


class SeenRows:
    """Reads maps as ``RowShower`` writes them, for the given columns."""

    def __init__(self, columns: Iterable[Column]) -> None:
        self._columns = tuple(columns)
        self._reads = [(column, TYPES[column.type.name].from_event) for column in self._columns]

    def row(self, shown: Mapping[str, Any]) -> tuple[Any, ...]:
        """The row of a map; raises InvalidValue where a column is missing or is no value of its type."""
        try:
            return tuple(self._value(column, read, shown[column.name]) for column, read in self._reads)
        except (KeyError, ValueError, TypeError) as exc:
            raise InvalidValue(f"a change in the feed is not of this table's columns: {exc}") from exc

    def _value(self, column: Column, read: Callable[[Any], Any] | None, shown: Any) -> Any:
        if shown is None:
            return None
        return read(shown) if read is not None else sql_value(column, shown)
