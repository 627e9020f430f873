"""PostgreSQL's types as this door speaks them: their OIDs, and which one an Arrow column or a table's column has.

The OIDs are PostgreSQL's own, from its ``pg_type.dat``. What Arrow cannot say (JSON, UUID, VARCHAR(n)) is told by the
field's metadata; a cast leaves the metadata on what has become something else, so it counts only on a text.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final

import msgspec
import pyarrow as pa

from kalam.rows.columns import TYPE_METADATA
from kalam.schema import DataType, TypeName

VARIABLE: Final = -1
"""The size of a type whose values differ in length."""
NO_MODIFIER: Final = -1
HEADER_BYTES: Final = 4
"""What a modifier of a length counts besides."""


class PgType(msgspec.Struct, frozen=True):
    """A type: ``size`` in bytes, ``array`` is the OID of its arrays (0: none), ``category`` as in ``pg_type``.

    ``element`` is the OID of an array's elements, 0 for what is no array.
    """

    oid: int
    name: str
    size: int
    array: int
    category: str
    element: int = 0

    @property
    def is_array(self) -> bool:
        """Whether its values are arrays."""
        return self.element != 0


class Typed(msgspec.Struct, frozen=True):
    """A type as a column has it: with its modifier (the n of VARCHAR(n), precision and scale), -1 for none."""

    type: PgType
    modifier: int = NO_MODIFIER


BOOL: Final = PgType(16, "bool", 1, 1000, "B")
BYTEA: Final = PgType(17, "bytea", VARIABLE, 1001, "U")
CHAR: Final = PgType(18, "char", 1, 1002, "Z")
NAME: Final = PgType(19, "name", 64, 1003, "S")
INT8: Final = PgType(20, "int8", 8, 1016, "N")
INT2: Final = PgType(21, "int2", 2, 1005, "N")
INT2VECTOR: Final = PgType(22, "int2vector", VARIABLE, 1006, "A", 21)
INT4: Final = PgType(23, "int4", 4, 1007, "N")
REGPROC: Final = PgType(24, "regproc", 4, 1008, "N")
TEXT: Final = PgType(25, "text", VARIABLE, 1009, "S")
OID: Final = PgType(26, "oid", 4, 1028, "N")
XID: Final = PgType(28, "xid", 4, 1011, "U")
OIDVECTOR: Final = PgType(30, "oidvector", VARIABLE, 1013, "A", 26)
JSON: Final = PgType(114, "json", VARIABLE, 199, "U")
FLOAT4: Final = PgType(700, "float4", 4, 1021, "N")
FLOAT8: Final = PgType(701, "float8", 8, 1022, "N")
UNKNOWN: Final = PgType(705, "unknown", -2, 0, "X")
BPCHAR: Final = PgType(1042, "bpchar", VARIABLE, 1014, "S")
VARCHAR: Final = PgType(1043, "varchar", VARIABLE, 1015, "S")
DATE: Final = PgType(1082, "date", 4, 1182, "D")
TIME: Final = PgType(1083, "time", 8, 1183, "D")
TIMESTAMP: Final = PgType(1114, "timestamp", 8, 1115, "D")
TIMESTAMPTZ: Final = PgType(1184, "timestamptz", 8, 1185, "D")
INTERVAL: Final = PgType(1186, "interval", 16, 1187, "T")
NUMERIC: Final = PgType(1700, "numeric", VARIABLE, 1231, "N")
REGCLASS: Final = PgType(2205, "regclass", 4, 2210, "N")
REGTYPE: Final = PgType(2206, "regtype", 4, 2211, "N")
VOID: Final = PgType(2278, "void", 4, 0, "P")
UUID: Final = PgType(2950, "uuid", 16, 2951, "U")
JSONB: Final = PgType(3802, "jsonb", VARIABLE, 3807, "U")
REGNAMESPACE: Final = PgType(4089, "regnamespace", 4, 4090, "N")
REGROLE: Final = PgType(4096, "regrole", 4, 4097, "N")

SCALARS: Final = (
    *(BOOL, BYTEA, CHAR, NAME, INT8, INT2, INT2VECTOR, INT4, REGPROC, TEXT, OID, XID, OIDVECTOR, JSON, FLOAT4, FLOAT8),
    *(UNKNOWN, BPCHAR, VARCHAR, DATE, TIME, TIMESTAMP, TIMESTAMPTZ, INTERVAL, NUMERIC, REGCLASS, REGTYPE, VOID),
    *(UUID, JSONB, REGNAMESPACE, REGROLE),
)
ARRAYS: Final = tuple(
    PgType(scalar.array, f"_{scalar.name}", VARIABLE, 0, "A", scalar.oid) for scalar in SCALARS if scalar.array
)
BY_OID: Final = {known.oid: known for known in (*SCALARS, *ARRAYS)}

_PLAIN: Final = {
    TypeName.BOOLEAN: BOOL,
    TypeName.SMALLINT: INT2,
    TypeName.INT: INT4,
    TypeName.BIGINT: INT8,
    TypeName.FLOAT: FLOAT4,
    TypeName.DOUBLE: FLOAT8,
    TypeName.TEXT: TEXT,
    TypeName.BLOB: BYTEA,
    TypeName.TIMESTAMP: TIMESTAMPTZ,
    TypeName.DATE: DATE,
    TypeName.JSON: JSON,
    TypeName.UUID: UUID,
}
_ARROW: Final = {
    BOOL.oid: pa.bool_(),
    BYTEA.oid: pa.binary(),
    INT8.oid: pa.int64(),
    INT2.oid: pa.int16(),
    INT4.oid: pa.int32(),
    OID.oid: pa.int64(),
    FLOAT4.oid: pa.float32(),
    FLOAT8.oid: pa.float64(),
    DATE.oid: pa.date32(),
    TIME.oid: pa.time64("us"),
    TIMESTAMP.oid: pa.timestamp("us"),
    TIMESTAMPTZ.oid: pa.timestamp("us", "UTC"),
    INTERVAL.oid: pa.month_day_nano_interval(),
    NUMERIC.oid: pa.decimal128(38, 10),
}
_OIDS: Final = frozenset(known.oid for known in (OID, XID, REGPROC, REGCLASS, REGTYPE, REGNAMESPACE, REGROLE))
"""Types whose values are numbers of four bytes without a sign."""


def array_of(element: PgType) -> PgType:
    """The type of arrays of a type; text's where it has none."""
    return BY_OID[element.array or TEXT.array]


def typed_of_column(data_type: DataType) -> Typed:
    """The type of a table's column."""
    if data_type.name is TypeName.DECIMAL:
        return Typed(NUMERIC, numeric_modifier(data_type.precision or 38, data_type.scale or 0))
    if data_type.name is TypeName.TEXT and data_type.length_max:
        return Typed(VARCHAR, data_type.length_max + HEADER_BYTES)
    return Typed(_PLAIN[data_type.name])


def numeric_modifier(precision: int, scale: int) -> int:
    """The modifier of NUMERIC(precision, scale)."""
    return ((precision << 16) | scale) + HEADER_BYTES


def typed_of(field: pa.Field) -> Typed:
    """The type of a column of a result."""
    said = field.metadata.get(TYPE_METADATA, b"").decode() if field.metadata else ""
    return _typed(field.type, said)


@lru_cache(maxsize=1_024)
def _typed(kind: pa.DataType, said: str) -> Typed:
    types = pa.types
    if types.is_dictionary(kind):
        kind = kind.value_type
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return _text(said)
    if types.is_decimal(kind):
        if kind.precision > 38:
            return Typed(NUMERIC)
        return Typed(NUMERIC, numeric_modifier(kind.precision, kind.scale))
    if types.is_list(kind) or types.is_large_list(kind) or types.is_list_view(kind) or types.is_fixed_size_list(kind):
        element = _typed(kind.value_type, "").type
        return Typed(BY_OID[TEXT.array] if element.is_array else array_of(element))
    return Typed(_scalar(kind))


def _text(said: str) -> Typed:
    if said in ("JSON", "UUID"):
        return Typed(JSON if said == "JSON" else UUID)
    if said.startswith("VARCHAR("):
        return Typed(VARCHAR, int(said[len("VARCHAR(") : -1]) + HEADER_BYTES)
    return Typed(TEXT)


def _scalar(kind: pa.DataType) -> PgType:  # noqa: C901 - one line a type
    types = pa.types
    if types.is_timestamp(kind):
        return TIMESTAMP if kind.tz is None else TIMESTAMPTZ
    if types.is_struct(kind) or types.is_map(kind):
        return JSON
    if types.is_interval(kind) or types.is_duration(kind):
        return INTERVAL
    if types.is_time(kind):
        return TIME
    if types.is_date(kind):
        return DATE
    if types.is_boolean(kind):
        return BOOL
    if types.is_int8(kind) or types.is_uint8(kind) or types.is_int16(kind):
        return INT2
    if types.is_uint16(kind) or types.is_int32(kind):
        return INT4
    if types.is_uint64(kind):
        return NUMERIC
    if types.is_integer(kind):
        return INT8
    if types.is_float16(kind) or types.is_float32(kind):
        return FLOAT4
    if types.is_float64(kind):
        return FLOAT8
    if (
        types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_binary_view(kind)
        or types.is_fixed_size_binary(kind)
    ):
        return BYTEA
    return TEXT


def declared(oid: int) -> pa.DataType | None:
    """What a client says of a parameter by its OID, as Arrow's type; None where it leaves the type to the server."""
    known = BY_OID.get(oid)
    if known is None or known is UNKNOWN:
        return None
    if known.is_array:
        return pa.list_(_ARROW.get(known.element, pa.string()))
    return _ARROW.get(oid, pa.string())


def known(oid: int) -> PgType:
    """The type of an OID; one that this door does not know is sent as text."""
    return BY_OID.get(oid) or PgType(oid, f"type {oid}", VARIABLE, 0, "U")


def array_of_values(values: Sequence[Any], kind: PgType) -> pa.Array:
    """Python values as an array from which this type is written; an OID may be given as the name that it stands for."""
    if kind.is_array or any(isinstance(value, list) for value in values):
        return pa.array(values, pa.list_(_ARROW.get(kind.element, pa.string())))
    if kind.oid in _OIDS and not any(isinstance(value, str) for value in values):
        return pa.array(values, pa.int64())
    if kind is NUMERIC:
        return pa.array([None if value is None else Decimal(value) for value in values])
    arrow = _ARROW.get(kind.oid, pa.string()) if kind.oid not in _OIDS else pa.string()
    if arrow == pa.string():
        values = [value if value is None or isinstance(value, str) else str(value) for value in values]
    return pa.array(values, arrow)
