"""The formats of ``kalam export``: pieces of a result, each an Arrow table, written one after another into a file."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol

if TYPE_CHECKING:  # pyarrow takes a while, and a command that is only described does without
    import pyarrow as pa


class ExportFormat(enum.StrEnum):
    """How rows are written."""

    NDJSON = "ndjson"
    JSON = "json"
    CSV = "csv"
    PARQUET = "parquet"
    ARROW = "arrow"


SUFFIXES: Final = {".jsonl": ExportFormat.NDJSON, **{f".{form}": form for form in ExportFormat}}
LINES: Final = frozenset({ExportFormat.NDJSON, ExportFormat.CSV})
"""Formats of which a beginning can be read."""


class RowWriter(Protocol):
    """Writes pieces of one schema."""

    def write_table(self, rows: pa.Table) -> None:
        """Write a piece."""

    def close(self) -> None:
        """Write what makes it whole."""


def row_writer(form: ExportFormat, target: BinaryIO, schema: pa.Schema) -> RowWriter:
    """What writes rows of a schema into ``target`` in a format."""
    import pyarrow as pa
    import pyarrow.parquet

    match form:
        case ExportFormat.NDJSON:
            return _Ndjson(target)
        case ExportFormat.JSON:
            return _JsonArray(target)
        case ExportFormat.CSV:
            return _Csv(target, schema)
        case ExportFormat.PARQUET:
            parquet: RowWriter = pyarrow.parquet.ParquetWriter(target, schema, compression="zstd")
            return parquet
        case ExportFormat.ARROW:
            arrow: RowWriter = pa.ipc.new_file(target, schema)
            return arrow


class _Ndjson:
    def __init__(self, target: BinaryIO) -> None:
        self._target = target

    def write_table(self, rows: pa.Table) -> None:
        from kalam.query.row_text import ndjson

        self._target.write(ndjson(rows))

    def close(self) -> None:
        """There is nothing to close."""


class _JsonArray:
    """One array, a row on each line."""

    def __init__(self, target: BinaryIO) -> None:
        self._target = target
        self._before = b"[\n"

    def write_table(self, rows: pa.Table) -> None:
        from kalam.query.row_text import ndjson

        for line in ndjson(rows).splitlines():
            self._target.write(self._before + line)
            self._before = b",\n"

    def close(self) -> None:
        self._target.write(b"[]\n" if self._before.startswith(b"[") else b"\n]\n")


class _Csv:
    def __init__(self, target: BinaryIO, schema: pa.Schema) -> None:
        from kalam.query.row_text import csv

        self._target = target
        target.write(csv(schema.empty_table(), header=True))

    def write_table(self, rows: pa.Table) -> None:
        from kalam.query.row_text import csv

        self._target.write(csv(rows, header=False))

    def close(self) -> None:
        """There is nothing to close."""
