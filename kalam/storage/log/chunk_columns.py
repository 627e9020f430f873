"""Chunks of the log as Arrow columns: those that are columns already as they are, rows converted together."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from kalam.rows.columns import to_arrow
from kalam.rows.types import Row
from kalam.rows.versions import StoredVersions
from kalam.storage.log.copies import Chunk


def columns_of(chunks: Sequence[Chunk], reader: StoredVersions, schema: pa.Schema) -> pa.Table:
    """The rows of chunks one after another; ``schema`` is that of the columns that ``reader`` gives."""
    parts: list[pa.Table] = []
    rows: list[Row] = []
    for chunk in chunks:
        columns = reader.columns(chunk.payload, chunk.schema_version)
        if columns is None:
            rows += reader.unpack(chunk.payload, chunk.schema_version)
            continue
        if rows:
            parts.append(pa.Table.from_batches([to_arrow(rows, schema)]))
            rows = []
        parts.append(columns.rename_columns(schema.names))  # which may have changed since
    if rows or not parts:
        parts.append(pa.Table.from_batches([to_arrow(rows, schema)]))
    return parts[0] if len(parts) == 1 else pa.concat_tables(parts)
