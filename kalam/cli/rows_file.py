"""A file of rows, cut into batches that are each one insert message.

A reader of a format is a function that yields ``RowBatch`` values; whoever sends them does not know the format. This
one reads NDJSON: it checks that every line is one JSON object and passes the bytes of its values on as they are, so
that no number is rounded on the way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, BinaryIO, Final

import msgspec

from kalam.cli.server_columns import DeletedRow, ServerColumns
from kalam.errors import InvalidValue

if TYPE_CHECKING:  # what is only named
    from kalam.cli.loading.fitting import Fitting
    from kalam.rows.formats.batches import OnBad

LINE_BYTES_MAX: Final = 16 << 20  # a file without line ends must not be read into memory
BOM: Final = b"\xef\xbb\xbf"


class RowBatch(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of consecutive lines as the payload of one insert. ``end_byte`` is where in the file they end.

    ``unit`` is what ``first_line`` and ``last_line`` count: lines, or rows in a format that has none. ``arrow`` says
    that the payload is an Arrow stream. ``file`` is what the file is called, '' for stdin; ``numbers`` are those of its
    rows where they do not follow upon each other.
    """

    payload: bytes
    rows: int
    first_line: int
    last_line: int
    end_byte: int
    arrow: bool = False
    unit: str = "lines"
    file: str = ""
    numbers: Sequence[int] | None = None

    def number(self, row: int) -> int:
        """Which line or row of the file the ``row``-th of the batch is; both count from 1."""
        return self.numbers[row - 1] if self.numbers is not None else self.first_line + row - 1

    def place(self, row: int) -> str:
        """The same as a person reads it, with the file."""
        number = f"{self.unit.removesuffix('s')} {self.number(row):,}"
        return f"{self.file}, {number}" if self.file else number


class BadLine(Exception):
    """A line of the file is no row; ``line`` counts from 1."""

    def __init__(self, line: int, reason: str, unit: str = "line") -> None:
        super().__init__(f"{unit} {line:,} {reason}")
        self.line = line


def read_ndjson(
    file: BinaryIO,
    *,
    rows_max: int,
    bytes_max: int,
    row_bytes_max: int,
    server_columns: ServerColumns,
    fitting: Fitting | None = None,
    on_bad: OnBad | None = None,
) -> Iterator[RowBatch]:
    """Yield the rows of an NDJSON file, at most ``rows_max`` rows and ``bytes_max`` bytes of payload a batch.

    A row over ``bytes_max`` is a batch of its own. Blank lines are skipped. Raises BadLine at the first line that is no
    JSON object or makes a payload over ``row_bytes_max``; the rows of the batch that it would have belonged to are not
    yielded. With ``on_bad`` such lines go there and the others are read.
    """
    rows: list[bytes] = []
    numbers: list[int] = []
    size, end_byte = 2, 0
    for number, found, row_end in _rows(file, server_columns, on_bad):
        row = found if fitting is None or fitting.is_idle else fitting.row(found)
        if len(row) + 2 > row_bytes_max:
            reason = f"has {len(row):,} bytes, more than the {row_bytes_max:,} that a message may have"
            _refuse(number, reason, row, on_bad)
            continue
        if rows and (len(rows) == rows_max or size + len(row) + 1 > bytes_max):
            yield _batch(rows, numbers, end_byte)
            rows, numbers, size = [], [], 2
        rows.append(row)
        numbers.append(number)
        size += len(row) + 1
        end_byte = row_end
    if rows:
        yield _batch(rows, numbers, end_byte)


def _refuse(number: int, reason: str, row: bytes, on_bad: OnBad | None) -> None:
    if on_bad is None:
        raise BadLine(number, reason)
    on_bad(InvalidValue(f"it {reason}", row=number), row)


def _rows(file: BinaryIO, server_columns: ServerColumns, on_bad: OnBad | None) -> Iterator[tuple[int, bytes, int]]:
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
            reason = _wrong(decoder, row)
            if reason is None:
                try:
                    row = server_columns.out_of_json(row)
                except DeletedRow as exc:
                    reason = str(exc)
            if reason is None:
                yield number, row, end_byte
            else:
                _refuse(number, reason, row, on_bad)


def _wrong(decoder: msgspec.json.Decoder[object], row: bytes) -> str | None:
    """Why a line is no row; None where it is one."""
    try:
        value = decoder.decode(row)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        return f"is not valid JSON: {exc}"
    if not isinstance(value, dict):
        return f"is not a row: a row is a JSON object, found {row[:40].decode(errors='replace')}"
    return None


def _batch(rows: list[bytes], numbers: list[int], end_byte: int) -> RowBatch:
    payload = b"[" + b",".join(rows) + b"]"
    first, last = numbers[0], numbers[-1]
    gaps = numbers if last - first + 1 > len(numbers) else None
    return RowBatch(payload=payload, rows=len(rows), first_line=first, last_line=last, end_byte=end_byte, numbers=gaps)
