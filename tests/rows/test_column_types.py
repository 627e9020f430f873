"""The record of each column type: there is one of every type, and each is whole."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from kalam.rows.column_types import TYPES, ColumnType, Decoding
from kalam.rows.column_types.record import Show
from kalam.rows.values import Values
from kalam.schema import DataType, TypeName

ROWS: dict[TypeName, Any] = {
    TypeName.BOOLEAN: True,
    TypeName.SMALLINT: -(2**15),
    TypeName.INT: 2**31 - 1,
    TypeName.BIGINT: -(2**63),
    TypeName.FLOAT: 0.10000000149011612,
    TypeName.DOUBLE: float("-inf"),
    TypeName.DECIMAL: Decimal("-1234567890123456789.00"),
    TypeName.TEXT: "\u00e4 'quoted'",
    TypeName.BLOB: b"\x00\xff",
    TypeName.TIMESTAMP: datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC),
    TypeName.DATE: date(1, 1, 1),
    TypeName.JSON: '{"a":[1,null]}',
    TypeName.UUID: "0190b8d4-0000-7000-8000-00000000002a",
}
"""A value of each type as a row has it."""
every = pytest.mark.parametrize("kind", TYPES.values(), ids=list(TYPES))


def data_type(kind: ColumnType) -> DataType:
    return (
        DataType(name=kind.name, precision=38, scale=2) if kind.name is TypeName.DECIMAL else DataType(name=kind.name)
    )


def shown(show: Show | None, values: Values) -> Values:
    return values if show is None else show(values)


def taken(kind: ColumnType, values: Values) -> Values:
    return values if kind.fix is None else kind.fix(data_type(kind))(values)


def test_every_type_has_a_record() -> None:
    assert set(TYPES) == set(TypeName) == set(ROWS)
    assert all(kind.name is name for name, kind in TYPES.items())


def test_no_word_names_two_types() -> None:
    assert Counter(word for kind in TYPES.values() for word in kind.words).most_common(1)[0][1] == 1
    assert all(kind.words[0] == name for name, kind in TYPES.items())


def test_each_type_is_another_one_for_postgresql() -> None:
    """Names and oids of PostgreSQL's pg_type.dat, which no release of it changes."""
    assert {name: (kind.postgresql.name, kind.postgresql.oid) for name, kind in TYPES.items()} == {
        TypeName.BOOLEAN: ("bool", 16),
        TypeName.SMALLINT: ("int2", 21),
        TypeName.INT: ("int4", 23),
        TypeName.BIGINT: ("int8", 20),
        TypeName.FLOAT: ("float4", 700),
        TypeName.DOUBLE: ("float8", 701),
        TypeName.DECIMAL: ("numeric", 1700),
        TypeName.TEXT: ("text", 25),
        TypeName.BLOB: ("bytea", 17),
        TypeName.TIMESTAMP: ("timestamptz", 1184),
        TypeName.DATE: ("date", 1082),
        TypeName.JSON: ("json", 114),
        TypeName.UUID: ("uuid", 2950),
    }


@every
def test_what_json_shows_is_taken_again(kind: ColumnType) -> None:
    value = ROWS[kind.name]
    text = msgspec.json.encode(shown(kind.in_json, [value])[0])
    decoded = msgspec.json.decode(text, type=kind.decoded(data_type(kind), Decoding()))
    assert taken(kind, [decoded]) == [value]


@every
def test_what_msgpack_shows_is_taken_again(kind: ColumnType) -> None:
    value = ROWS[kind.name]
    packed = msgspec.msgpack.encode(shown(kind.in_msgpack, [value])[0])
    decoded = msgspec.msgpack.decode(packed, type=kind.decoded(data_type(kind), Decoding(native=True)))
    assert taken(kind, [decoded]) == [value]


@every
def test_what_is_stored_is_read_back(kind: ColumnType) -> None:
    value = ROWS[kind.name]
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(value), type=kind.stored) == value


@every
def test_arrow_holds_the_value_exactly(kind: ColumnType) -> None:
    value, own = ROWS[kind.name], data_type(kind)
    column = pa.chunked_array([pa.array([value, None], kind.arrow(own))])
    assert kind.own_arrow(column.type)
    assert taken(kind, kind.from_arrow(column.slice(0, 1), own)) == [value]
    assert column.null_count == 1


@every
def test_what_a_default_carries_is_assigned_as_the_value(kind: ColumnType) -> None:
    """A DEFAULT is read from SQL's literal, kept as JSON and taken like any other value."""
    value, own = ROWS[kind.name], data_type(kind)
    literal = value if kind.name is TypeName.JSON else msgspec.to_builtins(shown(kind.in_json, [value])[0])
    carried = kind.default(literal, own)
    carried = msgspec.json.decode(msgspec.json.encode(carried))
    if kind.name is not TypeName.JSON:  # which is carried as the value itself
        carried = kind.assigned(carried)
    decoded = msgspec.convert(carried, kind.decoded(own, Decoding(native=True)))
    assert taken(kind, [decoded]) == [value]


@every
def test_what_an_event_shows_is_the_value(kind: ColumnType) -> None:
    value = ROWS[kind.name]
    event = msgspec.json.decode(msgspec.json.encode(shown(kind.in_json, [value])[0]))
    seen = kind.assigned(event) if kind.from_event is None else kind.from_event(event)
    decoded = seen if kind.from_event else msgspec.convert(seen, kind.decoded(data_type(kind), Decoding(native=True)))
    assert taken(kind, [decoded]) == [value] or seen == value
