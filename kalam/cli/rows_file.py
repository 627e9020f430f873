"""A file of rows, cut into batches that are each one insert message.

A reader of a format is a function that yields ``RowBatch`` values; whoever sends them does not know the format. This
one reads NDJSON: it checks that every line is one JSON object and passes the bytes of its values on as they are, so
that no number is rounded on the way.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, Final

import msgspec

from kalam.cli.server_columns import DeletedRow, ServerColumns

LINE_BYTES_MAX: Final = 16 << 20  # a file without line ends must not be read into memory
BOM: Final = b"\xef\xbb\xbf"


class RowBatch(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of consecutive lines as the payload of one insert. ``end_byte`` is where in the file they end.

    ``unit`` is what ``first_line`` and ``last_line`` count: lines, or rows in a format that has none. ``arrow`` says
    that the payload is an Arrow stream.
    """

    payload: bytes
    rows: int
    first_line: int
    last_line: int
    end_byte: int
    arrow: bool = False
    unit: str = "lines"


class BadLine(Exception):
    """A line of the file is no row; ``line`` counts from 1."""

    def __init__(self, line: int, reason: str, unit: str = "line") -> None:
        super().__init__(f"{unit} {line:,} {reason}")
        self.line = line


def read_ndjson(
    file: BinaryIO, *, rows_max: int, bytes_max: int, row_bytes_max: int, server_columns: ServerColumns
) -> Iterator[RowBatch]:
    """Yield the rows of an NDJSON file, at most ``rows_max`` rows and ``bytes_max`` bytes of payload a batch.

    A row over ``bytes_max`` is a batch of its own. Blank lines are skipped. Raises BadLine at the first line that is no
    JSON object or makes a payload over ``row_bytes_max``; the rows of the batch that it would have belonged to are not
    yielded.
    """
    rows: list[bytes] = []
    size, first_line, last_line, end_byte = 2, 0, 0, 0
    for number, row, row_end in _rows(file, server_columns):
        if len(row) + 2 > row_bytes_max:
            raise BadLine(number, f"has {len(row):,} bytes, more than the {row_bytes_max:,} that a message may have")
        if rows and (len(rows) == rows_max or size + len(row) + 1 > bytes_max):
            yield _batch(rows, first_line, last_line, end_byte)
            rows, size = [], 2
        if not rows:
            first_line = number
        rows.append(row)
        size += len(row) + 1
        last_line, end_byte = number, row_end
    if rows:
        yield _batch(rows, first_line, last_line, end_byte)


def _rows(file: BinaryIO, server_columns: ServerColumns) -> Iterator[tuple[int, bytes, int]]:
    """The rows with their line numbers and the byte after them."""
    decoder = msgspec.json.Decoder()
    number, end_byte = 0, 0
    while line := file.readline(LINE_BYTES_MAX + 1):
        number += 1
        end_byte += len(line)
        if len(line) > LINE_BYTES_MAX:
            raise BadLine(number, f"is longer than {LINE_BYTES_MAX:,} bytes")
        row = (line.removeprefix(BOM) if number == 1 else line).strip()
        if row:
            _check_object(decoder, row, number)
            try:
                row = server_columns.out_of_json(row)
            except DeletedRow as exc:
                raise BadLine(number, str(exc)) from exc
            yield number, row, end_byte


def _check_object(decoder: msgspec.json.Decoder[object], row: bytes, number: int) -> None:
    try:
        value = decoder.decode(row)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise BadLine(number, f"is not valid JSON: {exc}") from exc
    if not isinstance(value, dict):
        raise BadLine(number, f"is not a row: a row is a JSON object, found {row[:40].decode(errors='replace')}")


def _batch(rows: list[bytes], first_line: int, last_line: int, end_byte: int) -> RowBatch:
    payload = b"[" + b",".join(rows) + b"]"
    return RowBatch(payload=payload, rows=len(rows), first_line=first_line, last_line=last_line, end_byte=end_byte)
