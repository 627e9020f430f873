"""Rows in CSV text that comes in pieces: a first line with the names of columns, then one row a line (RFC 4180).

pyarrow parses; every column is read as text, and the table's own types are made of it where all Arrow columns are
checked. A field that is empty without quotes is NULL, and ``""`` is the empty text.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.csv

from kalam.errors import InvalidValue
from kalam.rows.formats.batches import BadRow, LongRow, OnBad

BOM = b"\xef\xbb\xbf"
_SHOWN_CHARACTERS = 80


class Dialect(msgspec.Struct, frozen=True, kw_only=True):
    """How fields are told from each other, each by one ASCII character; an empty ``quote`` means that there is none.

    ``nulls`` are what an unquoted field says for NULL besides nothing. ``names`` are those of the columns where no
    first line has them.
    """

    delimiter: str = ","
    quote: str = '"'
    nulls: Sequence[str] = ()
    names: Sequence[str] | None = None


class CsvText:
    """Turns CSV into Arrow tables whose columns are all text."""

    def __init__(self, row_bytes_max: int, dialect: Dialect | None = None, on_bad: OnBad | None = None) -> None:
        self._row_bytes_max = row_bytes_max
        self._dialect = dialect or Dialect()
        self._on_bad = on_bad
        self._quote = self._dialect.quote.encode()
        self._rest = b""
        self._begun = False
        self._names = None if self._dialect.names is None else list(self._dialect.names)
        self._rows = 0

    def feed(self, piece: bytes) -> pa.Table | None:
        """The rows of the lines that end in this piece, None for none."""
        text = self._rest + piece
        cut = _last_line_end(text, self._quote)
        text, self._rest = text[:cut], text[cut:]
        if len(self._rest) > self._row_bytes_max:
            raise LongRow(self._rows + 1, self._row_bytes_max, hint="is a quote not closed?")
        return self._parse(text) if text else None

    def end(self) -> pa.Table | None:
        """The row of the last line, which needs no line end."""
        text, self._rest = self._rest, b""
        if self._quote and text.count(self._quote) % 2:
            raise BadRow(self._rows + 1, "is cut off: a quote is not closed")
        return self._parse(text) if text or self._names is None else None

    def _parse(self, text: bytes) -> pa.Table | None:
        if not self._begun:
            text, self._begun = text.removeprefix(BOM), True
        if self._names is None:
            begin = _first_line_end(text, self._quote)
            self._names, text = self._header(text[:begin]), text[begin:]
        if not text or (not text.strip() and len(self._names) > 1):
            return None
        bad: list[Any] = []
        try:
            table = self._read(text, self._names, bad)
        except (pa.ArrowException, UnicodeDecodeError) as exc:
            raise self._refusal(text, bad) or InvalidValue(
                f"the CSV cannot be read, somewhere after its row {self._rows:,}: {exc}"
            ) from exc
        for row in bad:
            self._on_bad(self._bad_row(row), row.text.encode())  # type: ignore[misc]  # without one the reading ended
        self._rows += table.num_rows + len(bad)
        return table

    def _read(self, text: bytes, names: list[str], bad: list[Any]) -> pa.Table:
        dialect = self._dialect

        def note(row: Any) -> str:
            bad.append(row)
            return "error" if self._on_bad is None else "skip"

        return pa.csv.read_csv(
            io.BytesIO(text),
            read_options=pa.csv.ReadOptions(column_names=names, use_threads=False, block_size=len(text) + 1),
            # A row of one column that is NULL is an empty line.
            parse_options=pa.csv.ParseOptions(
                delimiter=dialect.delimiter,
                quote_char=dialect.quote or False,
                newlines_in_values=bool(dialect.quote),
                ignore_empty_lines=len(names) > 1,
                invalid_row_handler=note,
            ),
            convert_options=pa.csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                null_values=["", *dialect.nulls],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        )

    def _header(self, line: bytes) -> list[str]:
        dialect = self._dialect
        quoting: Any = csv.QUOTE_MINIMAL if dialect.quote else csv.QUOTE_NONE
        marks: dict[str, Any] = {"delimiter": dialect.delimiter, "quotechar": dialect.quote or None}
        try:
            names = next(csv.reader(io.StringIO(_decoded(line, 0)), quoting=quoting, **marks), [])
        except csv.Error as exc:
            raise InvalidValue(f"the first line of the CSV, the names of the columns, cannot be read: {exc}") from exc
        names = [name.strip() for name in names]
        if not names or len(set(names)) < len(names):
            raise InvalidValue("the first line of the CSV has to name the columns, each once")
        return names

    def _refusal(self, text: bytes, bad: Sequence[Any]) -> InvalidValue | None:
        """Why the text is no rows, where that is known."""
        if bad and self._on_bad is None:
            return self._bad_row(bad[0])
        _decoded(text, self._rows)
        return None

    def _bad_row(self, row: Any) -> BadRow:
        shown = row.text if len(row.text) <= _SHOWN_CHARACTERS else row.text[:_SHOWN_CHARACTERS] + "..."
        fields = f"{row.actual_columns} field{'s' if row.actual_columns != 1 else ''}"
        return BadRow(self._rows + row.number, f"has {fields} and not {row.expected_columns}: {shown}")


def _decoded(text: bytes, rows_before: int) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError as exc:
        start = text.rfind(b"\n", 0, exc.start) + 1
        line = text[start : exc.start + 20].decode("ascii", "replace").splitlines()[0]
        near = rows_before + text.count(b"\n", 0, exc.start) + 1
        raise InvalidValue(
            f"row {near:,} or before: the text is not UTF-8, near {line[:_SHOWN_CHARACTERS]!r}",
            hint="send it as UTF-8; `kalam insert` has --encoding",
        ) from exc


def _last_line_end(text: bytes, quote: bytes) -> int:
    """The place behind the last line end that stands in no quotes; 0 for none."""
    if not quote:
        return text.rfind(b"\n") + 1
    end, odd = len(text), text.count(quote) % 2
    while (place := text.rfind(b"\n", 0, end)) >= 0:
        odd ^= text.count(quote, place, end) % 2
        if not odd:
            return place + 1
        end = place
    return 0


def _first_line_end(text: bytes, quote: bytes) -> int:
    place = -1
    while (place := text.find(b"\n", place + 1)) >= 0:
        if not quote or text.count(quote, 0, place) % 2 == 0:
            return place + 1
    return len(text)
