"""The types of columns, each in a module of its own: a new one is a module, a name in ``TypeName`` and a line here."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from kalam.rows.column_types.blobs import BLOB
from kalam.rows.column_types.booleans import BOOLEAN
from kalam.rows.column_types.dates import DATE
from kalam.rows.column_types.decimals import DECIMAL
from kalam.rows.column_types.floats import DOUBLE, FLOAT
from kalam.rows.column_types.instants import TIMESTAMP
from kalam.rows.column_types.integers import BIGINT, INT, SMALLINT
from kalam.rows.column_types.json_values import JSON
from kalam.rows.column_types.record import ColumnType, Decoding, Show
from kalam.rows.column_types.texts import TEXT
from kalam.rows.column_types.uuids import UUID
from kalam.schema import TypeName

__all__ = ["TYPES", "ColumnType", "Decoding", "Show"]

TYPES: Mapping[TypeName, ColumnType] = MappingProxyType(
    {
        kind.name: kind
        for kind in (
            *(BOOLEAN, SMALLINT, INT, BIGINT, FLOAT, DOUBLE, DECIMAL),
            *(TEXT, BLOB, TIMESTAMP, DATE, JSON, UUID),
        )
    }
)
"""Every type, by its name."""
