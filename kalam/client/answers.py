"""What a statement answered: rows as dictionaries, or as an Arrow table with the columns' own types."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Answer:
    """The answer of one statement: its columns and their SQL types, its rows, or a message."""

    columns: tuple[tuple[str, str], ...]
    values: Sequence[Sequence[Any]]
    row_count: int
    message: str | None

    @classmethod
    def of(cls, result: dict[str, Any]) -> Answer:
        """The answer that one member of ``results`` tells."""
        columns = tuple((column["name"], column["type"]) for column in result["columns"])
        return cls(columns, result["rows"], result["row_count"], result["message"])

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """The rows by column name, each value as JSON shows it."""
        names = [name for name, _ in self.columns]
        return [dict(zip(names, row, strict=True)) for row in self.values]

    def arrow(self) -> pa.Table:
        """The rows as an Arrow table (needs pyarrow)."""
        import pyarrow as pa

        columns = list(zip(*self.values, strict=True)) or [()] * len(self.columns)
        arrays = []
        for (_, sql_type), shown in zip(self.columns, columns, strict=True):
            read = _READS.get(sql_type.partition("(")[0])
            values = shown if read is None else [None if value is None else read(value) for value in shown]
            arrays.append(pa.array(values, _arrow_type(sql_type)))
        return pa.table(arrays, names=[name for name, _ in self.columns])


def _json_text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


_READS: dict[str, Callable[[Any], Any]] = {
    "TIMESTAMP": datetime.fromisoformat,
    "DATE": date.fromisoformat,
    "DECIMAL": Decimal,
    "BLOB": base64.b64decode,
    "FLOAT": float,
    "DOUBLE": float,
    "JSON": _json_text,
}


def _arrow_type(sql_type: str) -> Any:
    """The Arrow type of a SQL type; None, which lets Arrow choose, for a type that no column can have."""
    import pyarrow as pa

    name, _, rest = sql_type.partition("(")
    if name == "DECIMAL":
        precision, _, scale = rest.rstrip(")").partition(",")
        return pa.decimal128(int(precision), int(scale or 0))
    types = {
        "BOOLEAN": pa.bool_(),
        "SMALLINT": pa.int16(),
        "INT": pa.int32(),
        "BIGINT": pa.int64(),
        "FLOAT": pa.float32(),
        "DOUBLE": pa.float64(),
        "BLOB": pa.binary(),
        "TIMESTAMP": pa.timestamp("us", "UTC"),
        "DATE": pa.date32(),
    }
    return types.get(name, pa.string() if name in ("TEXT", "VARCHAR", "JSON", "UUID") else None)
