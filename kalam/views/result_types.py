"""The columns of a view, from what DataFusion says of its result."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.types as types

from kalam.errors import InvalidValue, Unsupported
from kalam.query.results import sql_type
from kalam.schema import DataType, TypeName

PRECISION_MAX = 38


def data_type_of(field: pa.Field) -> DataType:
    """The type of the column that holds a result; raises Unsupported where none does."""
    if types.is_decimal(field.type):
        if field.type.precision <= PRECISION_MAX and 0 <= field.type.scale <= field.type.precision:
            return DataType(name=TypeName.DECIMAL, precision=field.type.precision, scale=field.type.scale)
    else:
        said = sql_type(field).partition("(")[0]
        name = TypeName.TEXT if said == "VARCHAR" else said
        if name in TypeName.__members__:
            return DataType(name=TypeName(name))
    raise Unsupported(
        f"column {field.name} of the SELECT is {sql_type(field)}, which no column of a table can be", hint="CAST it"
    )


def fitted(result: pa.Table, schema: pa.Schema) -> pa.Table:
    """The result with these names and types; raises InvalidValue, which names the column that a value does not fit."""
    result = result.rename_columns(schema.names)
    if result.schema.types == schema.types:
        return result
    try:
        return result.cast(schema)
    except pa.ArrowInvalid as exc:
        raise InvalidValue(f"{_misfit(result, schema)}: {exc}") from exc


def _misfit(result: pa.Table, schema: pa.Schema) -> str:
    for column, field in zip(result.columns, schema, strict=True):
        try:
            column.cast(field.type)
        except pa.ArrowInvalid:
            return f"column {field.name} expects {sql_type(field)}"
    return "a NULL does not fit its column"
