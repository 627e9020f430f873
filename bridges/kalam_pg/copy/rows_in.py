"""Rows as COPY brings them: bytes in pieces of any size, made to tables a few megabytes at a time.

Law: what is read is what PostgreSQL reads. The quick way is Arrow's CSV reader and its casts; where a text has escapes,
or a cast fails, values are read one by one, which also tells the line and the column that are wrong.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Final, Protocol

import pyarrow as pa
import pyarrow.csv as pacsv

from kalam.schema import Column
from kalam_pg.copy.binary_in import BinaryIn
from kalam_pg.copy.columns_in import typed_table
from kalam_pg.copy.options import CopyStatement
from kalam_pg.errors import BAD_COPY, SqlError

_ESCAPE: Final = re.compile(rb"\\(x[0-9A-Fa-f]{1,2}|[0-7]{1,3}|.)", re.DOTALL)
_SIMPLE: Final = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}
_NULL: Final = b"\\N"
_END: Final = b"\\."
LINE_BYTES_MAX: Final = 64 << 20


class RowsIn(Protocol):
    """What makes tables of the bytes of a COPY."""

    def take(self, data: bytes, ended: bool) -> pa.Table:
        """The rows that are whole by now; raises SqlError for what is wrong with them."""


def rows_in(copied: CopyStatement, columns: Sequence[Column]) -> RowsIn:
    """The reader of a COPY's form."""
    if copied.form == "binary":
        return BinaryIn(columns)
    return CsvIn(copied, columns) if copied.form == "csv" else TextIn(copied, columns)


class TextIn:
    """The text form: lines of values between delimiters, with escapes."""

    def __init__(self, copied: CopyStatement, columns: Sequence[Column]) -> None:
        self._copied, self._columns = copied, columns
        self._rest = b""
        self._lines = 0
        self._header, self._over = copied.header, False

    def take(self, data: bytes, ended: bool) -> pa.Table:
        """The rows of the whole lines."""
        data = self._rest + data
        if len(data) > LINE_BYTES_MAX:
            raise SqlError("54000", "a line of the COPY is too long")
        if not ended:
            end = data.rfind(b"\n") + 1
            data, self._rest = data[:end], data[end:]
        data = self._without_end(data.replace(b"\r\n", b"\n"))
        if self._header and data:
            self._header = False
            data = data.partition(b"\n")[2]
            self._lines += 1
        if not data:
            return typed_table([[] for _ in self._columns], self._columns, self._lines)
        first = self._lines
        self._lines += data.count(b"\n")
        if _is_plain(data, self._copied) and len(self._columns) > 1:
            options = pacsv.ParseOptions(delimiter=self._copied.delimiter, quote_char=False, ignore_empty_lines=False)
            return typed_table(_read_csv(data, options, self._copied.null, self._columns, first), self._columns, first)
        return typed_table(self._by_lines(data, first), self._columns, first)

    def _without_end(self, data: bytes) -> bytes:
        """The data before a line that says that it is all."""
        if self._over:
            return b""
        at = 0 if data.startswith((_END + b"\n",)) or data == _END else data.find(b"\n" + _END + b"\n") + 1
        if at or data.startswith(_END + b"\n") or data == _END:
            self._over = True
            return data[:at]
        return data.removesuffix(b"\n" + _END) + b"\n" if data.endswith(b"\n" + _END) else data

    def _by_lines(self, data: bytes, first: int) -> list[list[bytes | None]]:
        """The values of the columns, each read with its escapes."""
        columns: list[list[bytes | None]] = [[] for _ in self._columns]
        delimiter, null = self._copied.delimiter.encode(), self._copied.null.encode()
        for number, line in enumerate(data.removesuffix(b"\n").split(b"\n"), first + 1):
            values = _fields(line, delimiter)
            _check_count(len(values), self._columns, number)
            for column, value in zip(columns, values, strict=True):
                column.append(None if value == null else _unescaped(value))
        return columns


class CsvIn:
    """CSV: values may be in quotes, and hold line ends there."""

    def __init__(self, copied: CopyStatement, columns: Sequence[Column]) -> None:
        self._copied, self._columns = copied, columns
        self._quote = copied.quote.encode()
        self._rest = b""
        self._lines = 0
        self._header = copied.header
        double = copied.escape == copied.quote
        self._options = pacsv.ParseOptions(
            delimiter=copied.delimiter,
            quote_char=copied.quote,
            double_quote=double,
            escape_char=False if double else copied.escape,
            newlines_in_values=True,
            ignore_empty_lines=False,
        )

    def take(self, data: bytes, ended: bool) -> pa.Table:
        """The rows of the whole records."""
        data = self._rest + data
        if len(data) > LINE_BYTES_MAX:
            raise SqlError("54000", "a record of the COPY is too long")
        end = len(data) if ended else self._records_end(data)
        data, self._rest = data[:end], data[end:]
        if ended:
            data = data.removesuffix(_END + b"\n").removesuffix(b"\n" + _END)
        if self._header and data:
            self._header = False
            data = data[self._records_end(data, first=True) :]
            self._lines += 1
        first, self._lines = self._lines, self._lines + data.count(b"\n")
        if not data:
            return typed_table([[] for _ in self._columns], self._columns, first)
        return typed_table(
            _read_csv(data, self._options, self._copied.null, self._columns, first), self._columns, first
        )

    def _records_end(self, data: bytes, *, first: bool = False) -> int:
        """Where the last record that is whole ends, or the first: at a line's end outside of quotes."""
        quotes = data
        if self._copied.escape != self._copied.quote:
            escape = self._copied.escape.encode()
            quotes = quotes.replace(escape + escape, b"  ").replace(escape + self._quote, b"  ")
        end = quotes.find(b"\n") if first else quotes.rfind(b"\n")
        while end >= 0 and quotes.count(self._quote, 0, end) % 2:
            end = quotes.find(b"\n", end + 1) if first else quotes.rfind(b"\n", 0, end)
        if first and end < 0:
            return len(data)
        return end + 1


def _is_plain(data: bytes, copied: CopyStatement) -> bool:
    """Whether no value has an escape: the only backslashes are those of NULLs."""
    count = data.count(b"\\")
    if not count:
        return b"\0" not in data
    if copied.null != "\\N":
        return False
    nulls = data.count(_NULL)
    return count == nulls and nulls == len(re.findall(_whole_null(copied.delimiter.encode()), data))


def _whole_null(delimiter: bytes) -> bytes:
    around = re.escape(delimiter)
    return rb"(?:(?<=[\n" + around + rb"])|^)\\N(?=[\n" + around + rb"]|$)"


def _read_csv(
    data: bytes, options: pacsv.ParseOptions, null: str, columns: Sequence[Column], first: int
) -> list[pa.ChunkedArray]:
    names = [str(place) for place in range(len(columns))]
    read = pacsv.ReadOptions(column_names=names, use_threads=False, block_size=max(len(data) + 1, 1 << 20))
    convert = pacsv.ConvertOptions(
        column_types={name: pa.binary() for name in names},
        null_values=[null],
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
        check_utf8=False,
    )
    try:
        table = pacsv.read_csv(io.BytesIO(data), read_options=read, parse_options=options, convert_options=convert)
    except pa.ArrowInvalid as exc:
        raise _misshapen(str(exc), columns, first) from None
    return list(table.columns)


def _misshapen(said: str, columns: Sequence[Column], first: int) -> SqlError:
    found = re.search(r"Row #(\d+): Expected (\d+) columns, got (\d+)|Expected (\d+) columns, got (\d+)", said)
    if found is None:
        return SqlError(BAD_COPY, f"the data is no CSV behind line {first}: {said[:200]}")
    count = int(found[3] or found[5])
    line = first + int(found[1] or 1)
    return _wrong_count(count, columns, line)


def _wrong_count(count: int, columns: Sequence[Column], line: int) -> SqlError:
    if count < len(columns):
        return SqlError(BAD_COPY, f'missing data for column "{columns[count].name}" in line {line}')
    return SqlError(BAD_COPY, f"extra data after last expected column in line {line}")


def _check_count(count: int, columns: Sequence[Column], line: int) -> None:
    if count != len(columns):
        raise _wrong_count(count, columns, line)


def _fields(line: bytes, delimiter: bytes) -> list[bytes]:
    """A line cut at its delimiters, but for those behind a backslash."""
    parts = line.split(delimiter)
    if b"\\" + delimiter not in line:
        return parts
    fields = [parts[0]]
    for part in parts[1:]:
        before = fields[-1]
        if (len(before) - len(before.rstrip(b"\\"))) % 2:
            fields[-1] = before + delimiter + part
        else:
            fields.append(part)
    return fields


def _unescaped(value: bytes) -> bytes:
    if b"\\" not in value:
        return value

    def read(found: re.Match[bytes]) -> bytes:
        body = found[1]
        if body[:1] == b"x" and len(body) > 1:
            return bytes([int(body[1:], 16)])
        if body[:1].isdigit() and body[:1] < b"8":
            return bytes([int(body, 8) & 0xFF])
        return _SIMPLE.get(body, body)

    return _ESCAPE.sub(read, value)
