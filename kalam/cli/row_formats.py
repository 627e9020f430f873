"""The formats of ``kalam insert``: which one a file has, and its rows as batches.

NDJSON is read line by line by ``rows_file``. A JSON array goes on as text, too. CSV, Parquet and Arrow become Arrow
streams, which the server decodes a column at a time.
"""

from __future__ import annotations

import contextlib
import enum
import io
import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from kalam.cli.failure import CommandFailed
from kalam.cli.parquet_reader import ParquetReader
from kalam.cli.rows_file import BadLine, RowBatch, read_ndjson
from kalam.cli.server_columns import DeletedRow, ServerColumns
from kalam.errors import InvalidValue, KalamError

if TYPE_CHECKING:  # pyarrow takes a while and is needed for its formats alone
    import pyarrow as pa

    from kalam.cli.loading.fitting import Fitting
    from kalam.rows.formats.batches import Batch, OnBad, RowNumbers
    from kalam.rows.formats.csv_text import Dialect

PIECE_BYTES: Final = 256 << 10
TEXT_ROWS: Final = 1_000
COLUMN_ROWS: Final = 20_000
"""Rows that are sent as one message, unless the user says otherwise."""
ARROW_BYTES_MAX: Final = 2 << 20


class RowFormat(enum.StrEnum):
    """What a file of rows is."""

    NDJSON = "ndjson"
    JSON = "json"
    CSV = "csv"
    PARQUET = "parquet"
    ARROW = "arrow"


SUFFIXES: Final = {
    ".ndjson": RowFormat.NDJSON,
    ".jsonl": RowFormat.NDJSON,
    ".csv": RowFormat.CSV,
    ".tsv": RowFormat.CSV,
    ".tab": RowFormat.CSV,
    ".parquet": RowFormat.PARQUET,
    ".arrow": RowFormat.ARROW,
    ".arrows": RowFormat.ARROW,
    ".feather": RowFormat.ARROW,
    ".ipc": RowFormat.ARROW,
}
CSV_HEAD: Final = re.compile(rb"[^{}\[\n]*[,;\t]")
HEADS: Final = ((b"PAR1", RowFormat.PARQUET), (b"ARROW1", RowFormat.ARROW), (b"\xff\xff\xff\xff", RowFormat.ARROW))


def format_of(path: Path, head: bytes) -> RowFormat:
    """The format of a file, after its name and its first bytes.

    JSON is an array if it begins as one; what has a comma, semicolon or tab in its first line and no brace before it is
    CSV.
    """
    known = SUFFIXES.get(path.suffix.lower())
    if known is not None:
        return known
    for begin, found in HEADS:
        if head.startswith(begin):
            return found
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip(b" \r\n")
    if text.lstrip().startswith(b"["):
        return RowFormat.JSON
    return RowFormat.CSV if CSV_HEAD.match(text) else RowFormat.NDJSON


def read_rows(
    file: BinaryIO,
    row_format: RowFormat,
    *,
    rows_max: int | None,
    bytes_max: int,
    row_bytes_max: int,
    server_columns: ServerColumns,
    fitting: Fitting | None = None,
    dialect: Dialect | None = None,
    on_bad: OnBad | None = None,
    parquet: ParquetReader | None = None,
) -> Iterator[RowBatch]:
    """The rows of a file as batches of at most ``rows_max`` rows and about ``bytes_max`` bytes; raises BadLine.

    A row that is longer makes a batch of its own; one over ``row_bytes_max`` is refused. What the server keeps itself
    is left out, and noted in ``server_columns``. ``fitting`` makes the rows the table's, ``dialect`` is that of CSV.
    What is no row goes to ``on_bad``, if there is one. ``parquet`` reads files of Parquet, else a reader of its own.
    """
    if row_format is RowFormat.NDJSON:
        return read_ndjson(
            file,
            rows_max=rows_max or TEXT_ROWS,
            bytes_max=bytes_max,
            row_bytes_max=row_bytes_max,
            server_columns=server_columns,
            fitting=fitting,
            on_bad=on_bad,
        )
    from kalam.rows.formats.batches import RowNumbers

    numbers = RowNumbers()

    def leave_out(error: KalamError, text: bytes) -> None:
        numbers.leave_out(error.fields["row"])
        if on_bad is not None:
            on_bad(error, text)

    if row_format is RowFormat.JSON:
        found = _json_batches(file, rows_max or TEXT_ROWS, bytes_max, row_bytes_max, server_columns, fitting)
    else:
        tables = read_tables(file, row_format, row_bytes_max, dialect, None if on_bad is None else leave_out, parquet)
        found = _arrow_batches(tables, rows_max, min(ARROW_BYTES_MAX, row_bytes_max), server_columns, fitting)
    return _numbered(found, row_bytes_max, numbers, on_bad)


Read = tuple["Batch", int]
"""A batch, and how many bytes of the file were read for it."""


def _numbered(batches: Iterable[Read], bytes_max: int, numbers: RowNumbers, on_bad: OnBad | None) -> Iterator[RowBatch]:
    rows = 0
    try:
        for batch, end_byte in batches:
            first, last = numbers.of(rows + 1), numbers.of(rows + batch.rows)
            if len(batch.payload) > bytes_max:
                reason = f"is longer than the {bytes_max:,} bytes that a message may have"
                if on_bad is None:
                    raise BadLine(first, reason, unit="row")
                on_bad(InvalidValue(f"it {reason}", row=first), batch.payload[:PIECE_BYTES])
                rows += batch.rows
                continue
            gaps = last - first + 1 > batch.rows
            yield RowBatch(
                payload=batch.payload,
                rows=batch.rows,
                first_line=first,
                last_line=last,
                end_byte=end_byte,
                arrow=batch.arrow,
                unit="rows",
                numbers=[numbers.of(rows + place) for place in range(1, batch.rows + 1)] if gaps else None,
            )
            rows += batch.rows
    except KalamError as exc:  # what is no row, as the cutters say it
        hint = f"\nhint: {exc.fields['hint']}" if "hint" in exc.fields else ""
        raise CommandFailed(f"error: {exc.detail}{hint}") from exc
    except DeletedRow as exc:
        raise CommandFailed(f"error: a row behind row {rows:,} {exc}") from exc


def _json_batches(
    file: BinaryIO,
    rows_max: int,
    bytes_max: int,
    row_bytes_max: int,
    server_columns: ServerColumns,
    fitting: Fitting | None,
) -> Iterator[Read]:
    from kalam.rows.formats.batches import RawBatcher
    from kalam.rows.formats.json_text import JsonArray

    def fit(row: bytes) -> bytes:
        row = server_columns.out_of_json(row)
        return row if fitting is None else fitting.row(row)

    cutter, batcher, end_byte = JsonArray(row_bytes_max), RawBatcher(rows_max, bytes_max), 0
    while piece := file.read(PIECE_BYTES):
        end_byte += len(piece)
        for batch in batcher.add(list(map(fit, cutter.feed(piece)))):
            yield batch, end_byte
    last = list(map(fit, cutter.end()))
    for batch in (*batcher.add(last), *batcher.end()):
        yield batch, end_byte


def _arrow_batches(
    tables: Iterable[tuple[pa.Table, int]],
    rows_max: int | None,
    bytes_max: int,
    server_columns: ServerColumns,
    fitting: Fitting | None,
) -> Iterator[Read]:
    import pyarrow as pa

    from kalam.rows.formats.batches import TableBatcher

    batcher, end_byte = TableBatcher(rows_max or COLUMN_ROWS, bytes_max), 0
    try:
        for table, end_byte in tables:
            plain = server_columns.out_of_table(table)
            for batch in batcher.add(plain if fitting is None else fitting.table(plain)):
                yield batch, end_byte
    except (pa.ArrowException, ValueError) as exc:
        raise CommandFailed(f"error: cannot read the file: {exc}") from exc
    for batch in batcher.end():
        yield batch, end_byte


def read_tables(
    file: BinaryIO,
    row_format: RowFormat,
    row_bytes_max: int,
    dialect: Dialect | None = None,
    on_bad: OnBad | None = None,
    parquet: ParquetReader | None = None,
) -> Iterator[tuple[pa.Table, int]]:
    """The rows of a file of columns, as they are in it, with the bytes that were read so far."""
    match row_format:
        case RowFormat.CSV:
            return _csv_tables(file, row_bytes_max, dialect, on_bad)
        case RowFormat.PARQUET:
            return _parquet_tables(file, parquet)
        case _:
            return _arrow_tables(file)


def _csv_tables(
    file: BinaryIO, row_bytes_max: int, dialect: Dialect | None, on_bad: OnBad | None
) -> Iterator[tuple[pa.Table, int]]:
    from kalam.rows.formats.csv_text import CsvText

    text, end_byte = CsvText(row_bytes_max, dialect, on_bad), 0
    while piece := file.read(PIECE_BYTES):
        end_byte += len(piece)
        table = text.feed(piece)
        if table is not None:
            yield table, end_byte
    table = text.end() if end_byte else None
    if table is not None:
        yield table, end_byte


def _parquet_tables(file: BinaryIO, reader: ParquetReader | None) -> Iterator[tuple[pa.Table, int]]:
    with contextlib.ExitStack() as stack:
        reader = reader or stack.enter_context(ParquetReader())
        found = stack.enter_context(contextlib.closing(reader.tables(file)))
        for table, share in found:
            yield table, int(file_size(file) * share)


def _arrow_tables(file: BinaryIO) -> Iterator[tuple[pa.Table, int]]:
    import pyarrow as pa

    if not file.seekable():
        if file.peek(6)[:6] == b"ARROW1":  # type: ignore[attr-defined]  # what cannot seek is a BufferedReader
            file = io.BytesIO(file.read())  # its table of contents is at its end
        else:
            with pa.ipc.open_stream(file) as stream:
                for batch in stream:
                    yield from _plain_tables(batch, 0)
            return
    is_file = file.read(6) == b"ARROW1"
    file.seek(0)
    with pa.ipc.open_file(file) if is_file else pa.ipc.open_stream(file) as reader:
        batches = (reader.get_batch(n) for n in range(reader.num_record_batches)) if is_file else reader
        for batch in batches:
            yield from _plain_tables(batch, file.tell())


def _plain_tables(batch: pa.RecordBatch, end_byte: int) -> Iterator[tuple[pa.Table, int]]:
    """A batch in parts, because what is encoded in it may be large once it is plain."""
    import pyarrow as pa

    from kalam.cli.loading.nested import readable_batch
    from kalam.rows.formats.foreign_arrow import check_buffers

    check_buffers(batch)
    for start in range(0, batch.num_rows, COLUMN_ROWS):
        yield pa.Table.from_batches([readable_batch(batch.slice(start, COLUMN_ROWS))]), end_byte


def file_size(file: BinaryIO) -> int:
    """The length of a file in bytes; 0 for what is none."""
    try:
        found = os.fstat(file.fileno())
    except OSError:
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) else 0
