"""The columns of a view, from what DataFusion says of its result."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.types as types

from kalam.errors import Unsupported
from kalam.query.results import sql_type
from kalam.schema import DataType, TypeName

PRECISION_MAX = 38
_UNSIGNED = 20
"""The digits of a DECIMAL that holds every unsigned integer of 64 bits."""


def data_type_of(field: pa.Field) -> DataType:
    """The type of the column that holds a result; raises Unsupported where none does."""
    if types.is_uint64(field.type):
        return DataType(name=TypeName.DECIMAL, precision=_UNSIGNED, scale=0)
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
