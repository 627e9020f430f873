"""Schemas and tables as bytes, in Arrow's stream format: how both sides of a query process's sockets write them.

A process that runs queries imports this, so nothing of what is stored may come with it.
"""

from __future__ import annotations

import pyarrow as pa


def schema_bytes(schema: pa.Schema) -> bytes:
    """A schema as it is told."""
    return bytes(schema.serialize().to_pybytes())


def stream_bytes(table: pa.Table) -> pa.Buffer:
    """A table as an Arrow stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()
