"""Rows of a result as text, a table at a time: NDJSON and CSV.

The values look as in the JSON format (``kalam.query.results``). In CSV a NULL is an empty field and the empty text is
``""``, so that an insert of the CSV gives the same rows.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from msgspec.structs import replace

from kalam.errors import InvalidValue
from kalam.query.results import json_rows, rows_result

_ENCODER = msgspec.json.Encoder()


def ndjson(table: pa.Table, *, bigint_as_text: bool = False) -> bytes:
    """One JSON object a row; raises InvalidValue where two columns have one name."""
    names = table.column_names
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidValue(
            f"two columns of the result are called {twice!r}, which NDJSON cannot show: name one with AS"
        )
    rows = json_rows(replace(rows_result(table), bigint_as_text=bigint_as_text))
    return _ENCODER.encode_lines([dict(zip(names, row, strict=True)) for row in rows])


def csv(table: pa.Table, *, header: bool) -> bytes:
    """The rows as CSV, with the names of the columns before them if asked."""
    if not table.num_columns:
        return b""
    shown: Sequence[Sequence[Any]] = list(zip(*json_rows(rows_result(table)), strict=True))
    columns = [
        column if _is_plain(column) else pa.array([_text(value) for value in values], pa.string())
        for column, values in zip(table.columns, shown or [()] * table.num_columns, strict=True)
    ]
    sink = io.BytesIO()
    options = pa.csv.WriteOptions(include_header=header)
    pa.csv.write_csv(pa.table(columns, names=table.column_names), sink, options)
    return sink.getvalue()


def _is_plain(column: pa.ChunkedArray) -> bool:
    """Whether pyarrow writes these values as the contract shows them."""
    kind, types = column.type, pa.types
    if types.is_floating(kind):
        return bool(pc.all(pc.is_finite(column)).as_py() is not False)
    return bool(
        types.is_integer(kind)
        or types.is_boolean(kind)
        or types.is_string(kind)
        or types.is_decimal128(kind)
        or types.is_date32(kind)
    )


def _text(value: Any) -> str | None:
    match value:
        case None | str():
            return value
        case bytes():
            return base64.b64encode(value).decode()
        case msgspec.Raw():
            return bytes(value).decode()
        case _:
            found = msgspec.to_builtins(value)
            return found if isinstance(found, str) else _ENCODER.encode(found).decode()
