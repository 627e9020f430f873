"""From what events show back to rows: the inverse of ``shown``, for changes that are replayed."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

import msgspec

from kalam.errors import InvalidValue
from kalam.rows.sql_values import sql_value
from kalam.schema import Column, TypeName

_JSON = msgspec.json.Encoder()


class SeenRows:
    """Reads maps as ``RowShower`` writes them, for the given columns."""

    def __init__(self, columns: Iterable[Column]) -> None:
        self._columns = tuple(columns)
        self._reads = [(column, _READS.get(column.type.name)) for column in self._columns]

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


def _blob(shown: Any) -> bytes:
    return bytes(shown) if isinstance(shown, bytes | bytearray | memoryview) else base64.b64decode(shown, validate=True)


def seen_timestamp(shown: Any) -> datetime:
    """A timestamp as an event shows it."""
    return shown if isinstance(shown, datetime) else datetime.fromisoformat(shown)


_READS: dict[TypeName, Callable[[Any], Any]] = {
    TypeName.JSON: lambda shown: _JSON.encode(shown).decode(),
    TypeName.UUID: str,
    TypeName.TEXT: str,
    TypeName.BLOB: _blob,
    TypeName.TIMESTAMP: seen_timestamp,
}
