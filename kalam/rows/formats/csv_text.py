"""Rows in CSV text that comes in pieces: a first line with the names of columns, then one row a line (RFC 4180).

pyarrow parses; every column is read as text, and the table's own types are made of it where all Arrow columns are
checked. A field that is empty without quotes is NULL, and ``""`` is the empty text.
"""

from __future__ import annotations

import csv
import io

import pyarrow as pa
import pyarrow.csv

from kalam.errors import InvalidValue
from kalam.rows.formats.batches import BadRow, LongRow

BOM = b"\xef\xbb\xbf"


class CsvText:
    """Turns CSV into Arrow tables whose columns are all text."""

    def __init__(self, row_bytes_max: int) -> None:
        self._row_bytes_max = row_bytes_max
        self._rest = b""
        self._names: list[str] | None = None
        self._rows = 0

    def feed(self, piece: bytes) -> pa.Table | None:
        """The rows of the lines that end in this piece, None for none."""
        text = self._rest + piece
        cut = _last_line_end(text)
        text, self._rest = text[:cut], text[cut:]
        if len(self._rest) > self._row_bytes_max:
            raise LongRow(self._rows + 1, self._row_bytes_max, hint="is a quote not closed?")
        return self._parse(text) if text else None

    def end(self) -> pa.Table | None:
        """The row of the last line, which needs no line end."""
        text, self._rest = self._rest, b""
        if text.count(b'"') % 2:
            raise BadRow(self._rows + 1, "is cut off: a quote is not closed")
        return self._parse(text) if text or self._names is None else None

    def _parse(self, text: bytes) -> pa.Table | None:
        if self._names is None:
            text = text.removeprefix(BOM)
            begin = _first_line_end(text)
            self._names, text = _names(text[:begin]), text[begin:]
        if not text or (not text.strip() and len(self._names) > 1):
            return None
        try:
            table = _read(text, self._names)
        except (pa.ArrowException, UnicodeDecodeError) as exc:
            raise InvalidValue(f"the CSV cannot be read, somewhere after its row {self._rows:,}: {exc}") from exc
        self._rows += table.num_rows
        return table


def _read(text: bytes, names: list[str]) -> pa.Table:
    return pa.csv.read_csv(
        io.BytesIO(text),
        read_options=pa.csv.ReadOptions(column_names=names, use_threads=False, block_size=len(text) + 1),
        # A row of one column that is NULL is an empty line.
        parse_options=pa.csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=len(names) > 1),
        convert_options=pa.csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()),
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    )


def _names(line: bytes) -> list[str]:
    try:
        names = next(csv.reader(io.StringIO(line.decode())), [])
    except (UnicodeDecodeError, csv.Error) as exc:
        raise InvalidValue(f"the first line of the CSV, the names of the columns, cannot be read: {exc}") from exc
    if not names or len(set(names)) < len(names):
        raise InvalidValue("the first line of the CSV has to name the columns, each once")
    return [name.strip() for name in names]


def _last_line_end(text: bytes) -> int:
    """The place behind the last line end that stands in no quotes; 0 for none."""
    end, odd = len(text), text.count(b'"') % 2
    while (place := text.rfind(b"\n", 0, end)) >= 0:
        odd ^= text.count(b'"', place, end) % 2
        if not odd:
            return place + 1
        end = place
    return 0


def _first_line_end(text: bytes) -> int:
    place = -1
    while (place := text.find(b"\n", place + 1)) >= 0:
        if text.count(b'"', 0, place) % 2 == 0:
            return place + 1
    return len(text)
