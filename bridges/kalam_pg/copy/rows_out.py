"""Rows as COPY sends them: text, CSV or binary, a CopyData message for each row, made a column at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kalam_pg.copy.options import CopyStatement
from kalam_pg.values.buffers import BINARY, fixed, joined, pieces
from kalam_pg.values.rows import Column, packed_rows
from kalam_pg.values.texts import texts

SIGNATURE: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
"""Of the binary form, with no flags and no extension."""
TRAILER: Final = b"\xff\xff"
_HEAD: Final = np.dtype([("type", "S1"), ("length", ">i4")])
_ESCAPED: Final = (
    (b"\\", b"\\\\"),
    (b"\n", b"\\n"),
    (b"\r", b"\\r"),
    (b"\t", b"\\t"),
    (b"\b", b"\\b"),
    (b"\f", b"\\f"),
    (b"\v", b"\\v"),
)
_PLAIN: Final = (
    pa.types.is_integer,
    pa.types.is_floating,
    pa.types.is_boolean,
    pa.types.is_date,
    pa.types.is_timestamp,
    pa.types.is_decimal,
)
"""Types whose text never needs an escape."""


def copy_rows(batch: pa.RecordBatch, columns: Sequence[Column], copied: CopyStatement) -> bytes:
    """The CopyData messages of a batch."""
    if copied.form == "binary":
        return bytes(packed_rows(batch, columns, b"d"))
    write = _csv_value if copied.form == "csv" else _text_value
    shown = [write(array, column, copied) for array, column in zip(batch.columns, columns, strict=True)]
    line = pc.binary_join_element_wise(*shown, _scalar(copied.delimiter.encode())) if shown else _empty(batch)
    return _messages(joined(line, _scalar(b"\n")))


def header_row(columns: Sequence[Column], copied: CopyStatement) -> bytes:
    """The line of the columns' names."""
    names = pa.record_batch([pa.array([column.name]) for column in columns], [str(n) for n in range(len(columns))])
    write = _csv_value if copied.form == "csv" else _text_value
    shown = [write(array, column, copied) for array, column in zip(names.columns, columns, strict=True)]
    return _messages(joined(pc.binary_join_element_wise(*shown, _scalar(copied.delimiter.encode())), _scalar(b"\n")))


def _messages(lines: pa.Array) -> bytes:
    heads = np.empty(len(lines), _HEAD)
    heads["type"], heads["length"] = b"d", np.diff(pieces(lines)[0]) + 4
    return bytes(pieces(joined(fixed(heads), lines))[1].tobytes())


def with_signature(messages: bytes) -> bytes:
    """Messages in binary whose first has the signature before its row, as ADBC wants it."""
    size = int.from_bytes(messages[1:5])
    return b"d" + (size + len(SIGNATURE)).to_bytes(4) + SIGNATURE + messages[5:]


def _text_value(array: pa.Array, _: Column, copied: CopyStatement) -> pa.Array:
    written = texts(array)
    if not any(test(array.type) for test in _PLAIN):
        escapes = _ESCAPED if copied.delimiter == "\t" else (*_ESCAPED, _with_backslash(copied.delimiter))
        for plain, escaped in escapes:
            if pc.any(pc.match_substring(written, plain)).as_py():
                written = pc.replace_substring(written, plain, escaped)
    return pc.fill_null(written, _scalar(copied.null.encode()))


def _with_backslash(character: str) -> tuple[bytes, bytes]:
    return character.encode(), b"\\" + character.encode()


def _csv_value(array: pa.Array, column: Column, copied: CopyStatement) -> pa.Array:
    written = texts(array)
    null, quote, escape = (value.encode() for value in (copied.null, copied.quote, copied.escape))
    forced = copied.force_quote is None or column.name in copied.force_quote
    marked = pc.equal(written, _scalar(null))
    for character in (copied.delimiter.encode(), quote, b"\n", b"\r", b"\\."):
        marked = pc.or_(marked, pc.match_substring(written, character))
    if forced or pc.any(marked).as_py():
        inner = pc.replace_substring(written, escape, escape * 2)
        if quote != escape:
            inner = pc.replace_substring(inner, quote, escape + quote)
        quoted = pc.binary_join_element_wise(_scalar(quote), inner, _scalar(quote), _scalar(b""))
        written = quoted if forced else pc.if_else(marked, quoted, written)
    return pc.fill_null(written, _scalar(null))


def _scalar(value: bytes) -> Any:
    return pa.scalar(value, BINARY)


def _empty(batch: pa.RecordBatch) -> pa.Array:
    return pa.array([b""] * batch.num_rows, BINARY)
