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

import msgspec

from kalam.client.values import library
from kalam.errors import Internal, InvalidValue

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa


@dataclass(frozen=True)
class Description:
    """What a statement asks for and gives: names and SQL types of its parameters and columns.

    ``columns`` is None where the answer has no rows; ``kind`` the statement in words, ``writes`` whether it changes
    anything, ``many`` whether ``execute_many`` takes it.
    """

    parameters: tuple[tuple[str, str], ...]
    columns: tuple[tuple[str, str], ...] | None
    kind: str
    writes: bool
    many: bool

    @classmethod
    def of(cls, body: bytes) -> Description:
        """The description that a body tells; raises Internal for one that is none of Kalam's."""
        try:
            told = msgspec.json.decode(body)
            columns = None if told["columns"] is None else _names_and_types(told["columns"])
            return cls(_names_and_types(told["parameters"]), columns, told["kind"], told["writes"], told["many"])
        except (msgspec.MsgspecError, LookupError, TypeError) as exc:
            raise Internal(f"the answer is none of Kalam's: {body[:80]!r}") from exc


def _names_and_types(columns: Sequence[dict[str, str]]) -> tuple[tuple[str, str], ...]:
    return tuple((column["name"], column["type"]) for column in columns)


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
        return cls(_names_and_types(result["columns"]), result["rows"], result["row_count"], result["message"])

    @classmethod
    def last_of(cls, body: bytes) -> Answer:
        """The last answer of a body; raises Internal for one that is none of Kalam's."""
        try:
            return cls.of(msgspec.json.decode(body)["results"][-1])
        except (msgspec.MsgspecError, LookupError, TypeError) as exc:
            raise Internal(f"the answer is none of Kalam's: {body[:80]!r}") from exc

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """The rows by column name, each value as JSON shows it."""
        names = [name for name, _ in self.columns]
        return [dict(zip(names, row, strict=True)) for row in self.values]

    def arrow(self) -> pa.Table:
        """The rows as an Arrow table.

        Raises InvalidValue for a value beyond Python's or Arrow's, and ImportError without pyarrow.
        """
        pa = library("pyarrow", "arrow()")

        columns = list(zip(*self.values, strict=True)) or [()] * len(self.columns)
        arrays = []
        for (name, sql_type), shown in zip(self.columns, columns, strict=True):
            try:
                arrays.append(_arrow_column(sql_type, shown))
            except (pa.ArrowException, ArithmeticError, ValueError, TypeError) as exc:
                raise InvalidValue(f"column {name} ({sql_type}) has a value that Arrow cannot hold: {exc}") from exc
        return pa.table(arrays, names=[name for name, _ in self.columns])

    def pandas(self) -> pd.DataFrame:
        """The rows as a pandas frame, its types those of the columns whatever they hold; raises as ``arrow``.

        Integers and booleans are pandas' own types that know NULL (``Int64``, ``boolean``), so that none becomes a
        float; in a column of floats NULL is NaN.
        """
        pandas = library("pandas", "pandas()")
        types = {f"int{bits}": getattr(pandas, f"Int{bits}Dtype")() for bits in (16, 32, 64)} | {
            "bool": pandas.BooleanDtype()
        }
        frame: pd.DataFrame = self.arrow().to_pandas(types_mapper=lambda found: types.get(str(found)))
        return frame

    def polars(self) -> pl.DataFrame:
        """The rows as a polars frame; raises as ``arrow``, and InvalidValue where two columns have one name."""
        polars = library("polars", "polars()")
        try:
            frame: pl.DataFrame = polars.from_arrow(self.arrow())
        except polars.exceptions.PolarsError as exc:
            raise InvalidValue(f"polars cannot hold the answer: {exc}") from exc
        return frame


def _arrow_column(sql_type: str, shown: Sequence[Any]) -> Any:
    import pyarrow as pa

    read = _READS.get(sql_type.partition("(")[0])
    values = shown if read is None else [None if value is None else read(value) for value in shown]
    return pa.array(values, _arrow_type(sql_type))


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
