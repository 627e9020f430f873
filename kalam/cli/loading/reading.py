"""How the files of one insert are read: what was asked for, in one value, and the batches of a file by it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

import msgspec
from msgspec.structs import replace

from kalam.cli.failure import CommandFailed
from kalam.cli.loading.dialects import dialect_of
from kalam.cli.loading.fitting import Fitting
from kalam.cli.loading.inference import ROWS_MIN, types_of_rows, types_of_schema, types_of_texts
from kalam.cli.loading.sources import Source, head_of, open_source
from kalam.cli.parquet_reader import ParquetReader
from kalam.cli.row_formats import RowFormat, format_of, read_rows, read_tables
from kalam.cli.rows_file import BadLine, RowBatch, read_ndjson
from kalam.cli.server_columns import SERVER_COLUMNS, ServerColumns
from kalam.errors import KalamError

if TYPE_CHECKING:  # CSV brings pyarrow, which takes a while
    from kalam.rows.formats.csv_text import Dialect

EXCEL_HINT: Final = b"sep="
LOOKED_AT_BYTES_MAX: Final = 64 << 20
ROW_BYTES_MAX: Final = 16 << 20


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for: ``row_format`` and ``delimiter`` are None where the file is to say it itself.

    ``names`` are the columns of CSV that has no first line of names. ``on_bad`` takes a file's name, what it counts
    (rows or lines) and what is no row of it. ``spooled`` is a file that has what stdin had.
    """

    row_format: RowFormat | None = None
    encoding: str | None = None
    delimiter: str | None = None
    quote: str = '"'
    nulls: Sequence[str] = ()
    names: Sequence[str] | None = None
    booleans: bool = False
    rows_max: int | None = None
    bytes_max: int = ROW_BYTES_MAX
    row_bytes_max: int = ROW_BYTES_MAX
    on_bad: Callable[[str, str, KalamError, bytes], None] | None = None
    spooled: Path | None = None

    def files(
        self, names: Sequence[str], fitting: Fitting, server_columns: ServerColumns, parquet: ParquetReader
    ) -> Iterator[RowBatch]:
        """The rows of files one after another; ``end_byte`` of a batch counts over all of them."""
        before = 0
        for name in names:
            with open_source(name, self.encoding, self.spooled) as source:
                for batch in self.batches(source, fitting, server_columns, parquet):
                    yield replace(batch, end_byte=before + batch.end_byte) if before else batch
                before += source.size

    def batches(
        self, source: Source, fitting: Fitting, server_columns: ServerColumns, parquet: ParquetReader
    ) -> Iterator[RowBatch]:
        """The rows of a file, fitted; raises CommandFailed, which says in which file something is wrong."""
        on_bad = self.on_bad
        row_format, dialect = self._form(source)
        unit = "line" if row_format is RowFormat.NDJSON else "row"
        found = read_rows(
            source.file,
            row_format,
            rows_max=self.rows_max,
            bytes_max=self.bytes_max,
            row_bytes_max=self.row_bytes_max,
            server_columns=server_columns,
            fitting=fitting,
            dialect=dialect,
            on_bad=None if on_bad is None else lambda error, text: on_bad(source.shown, unit, error, text),
            parquet=parquet,
        )
        try:
            for batch in found:
                yield replace(batch, file=source.shown) if source.shown else batch
        except BadLine as exc:
            raise CommandFailed(f"error: {_in(source)}{exc}") from exc
        except CommandFailed as exc:
            raise CommandFailed(exc.text.replace("error: ", f"error: {_in(source)}", 1)) from exc
        except OSError as exc:
            raise CommandFailed(f"error: {_in(source)}cannot read the file further: {exc.strerror or exc}") from exc

    def _form(self, source: Source) -> tuple[RowFormat, Dialect | None]:
        head = head_of(source.file)
        row_format = self.row_format or (RowFormat.CSV if self.delimiter else format_of(source.path, head))
        if row_format is not RowFormat.CSV:
            return row_format, None
        delimiter = self.delimiter
        if head.startswith(EXCEL_HINT):  # a line that Excel writes for itself
            delimiter = delimiter or source.file.readline()[len(EXCEL_HINT) :][:1].decode("ascii", "replace")
            head = head_of(source.file)
        dialect = dialect_of(
            source.path, head, delimiter=delimiter, quote=self.quote, nulls=self.nulls, names=self.names
        )
        return row_format, dialect

    def guess(self, name: str) -> tuple[dict[str, str], int]:
        """The names in a file with the types that fit its first rows, and how many rows were looked at."""
        with open_source(name, self.encoding, self.spooled) as source:
            row_format, dialect = self._form(source)
            try:
                match row_format:
                    case RowFormat.NDJSON | RowFormat.JSON:
                        types, rows = self._guess_json(source.file, row_format)
                    case _:
                        types, rows = self._guess_columns(source.file, row_format, dialect)
            except BadLine as exc:
                raise CommandFailed(f"error: {_in(source)}{exc}") from exc
            except KalamError as exc:
                raise CommandFailed(f"error: {_in(source)}{exc.detail}") from exc
        types = {name: kind for name, kind in types.items() if name not in SERVER_COLUMNS}
        if not types:
            raise CommandFailed(f"error: {_in(source)}there are no rows to make a table for")
        return types, rows

    def _guess_json(self, file: BinaryIO, row_format: RowFormat) -> tuple[dict[str, str], int]:
        if row_format is RowFormat.NDJSON:
            batches = read_ndjson(
                file, rows_max=1, bytes_max=1, row_bytes_max=ROW_BYTES_MAX, server_columns=ServerColumns()
            )
            rows = [batch.payload[1:-1] for batch in itertools.islice(batches, ROWS_MIN)]
            return types_of_rows(rows, booleans=self.booleans), len(rows)
        from kalam.rows.formats.json_text import JsonArray

        cutter, rows = JsonArray(ROW_BYTES_MAX), []
        while len(rows) < ROWS_MIN and (piece := file.read(256 << 10)):
            rows += cutter.feed(piece)
        return types_of_rows(rows, booleans=self.booleans), len(rows)

    def _guess_columns(
        self, file: BinaryIO, row_format: RowFormat, dialect: Dialect | None
    ) -> tuple[dict[str, str], int]:
        import pyarrow as pa

        on_bad = None if self.on_bad is None else _ignore
        looked_at: list[pa.Table] = []
        rows = size = 0
        for table, _ in read_tables(file, row_format, ROW_BYTES_MAX, dialect, on_bad):
            looked_at.append(table)
            rows += table.num_rows
            size += table.nbytes
            if rows >= ROWS_MIN or size > LOOKED_AT_BYTES_MAX:
                break
        whole = pa.concat_tables(looked_at) if looked_at else pa.table({})
        if row_format is RowFormat.CSV:
            return types_of_texts(whole.to_pydict(), booleans=self.booleans), rows
        return types_of_schema(whole.schema), rows


def _ignore(error: KalamError, text: bytes) -> None:
    """A line that is no row says nothing about the others."""


def _in(source: Source) -> str:
    return f"{source.shown}: " if source.shown else ""
