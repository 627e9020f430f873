from __future__ import annotations

from datetime import date
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from kalam.foreign import ColumnSource, ForeignOptions, Invalid, Over, Payload, Place
from kalam.names import TableName
from kalam.rows.column_types import TYPES
from kalam.schema import (
    Column,
    Compression,
    DataType,
    Default,
    DefaultKind,
    PayloadFormat,
    StoredOptions,
    StreamOptions,
    StreamStorage,
    TableDefinition,
    TableKind,
    TypeName,
)
from kalam.sql import create_table_sql, parse_statement, table_options
from kalam.sql.text.statements import CreateTable, TableRef

NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True) | st.sampled_from(
    ["order", "select", "primary", "table", "key", "constraint", "column", "check", "not", "default", "if", "user"]
)
SAFE_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
JSON_VALUES = st.recursive(
    st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | SAFE_TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SAFE_TEXT, inner, max_size=3),
    max_leaves=5,
)
FUNCTIONS = {
    TypeName.TIMESTAMP: [DefaultKind.NOW],
    TypeName.BIGINT: [DefaultKind.SNOWFLAKE_ID],
    TypeName.UUID: [DefaultKind.UUID_V7],
    TypeName.TEXT: [DefaultKind.UUID_V7, DefaultKind.CURRENT_USER],
}


@st.composite
def data_types(draw: st.DrawFn) -> DataType:
    name = draw(st.sampled_from(TypeName))
    if name is TypeName.DECIMAL:
        precision = draw(st.integers(1, 38))
        return DataType(name=name, precision=precision, scale=draw(st.integers(0, precision)))
    if name is TypeName.TEXT:
        return DataType(name=name, length_max=draw(st.none() | st.integers(20, 100)))
    return DataType(name=name)


def literals(data_type: DataType) -> st.SearchStrategy[Any]:
    match data_type.name:
        case TypeName.BOOLEAN:
            return st.booleans()
        case TypeName.SMALLINT | TypeName.INT | TypeName.BIGINT as name:
            bound = 1 << (TYPES[name].bits - 1)
            return st.integers(-bound, bound - 1)
        case TypeName.FLOAT:
            return st.floats(width=32, allow_nan=False, allow_infinity=False)
        case TypeName.DOUBLE:
            return st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from(["NaN", "-Infinity"])
        case TypeName.DECIMAL:
            return st.sampled_from(["0", "-0.5"]) if data_type.scale else st.sampled_from(["0", "7", "-7"])
        case TypeName.TEXT:
            return SAFE_TEXT
        case TypeName.BLOB:
            return st.sampled_from(["", "/wA=", "AAAA"])
        case TypeName.TIMESTAMP:
            return st.datetimes().map(lambda moment: moment.isoformat(timespec="microseconds") + "Z")
        case TypeName.DATE:
            return st.dates(date(1, 1, 1)).map(date.isoformat)
        case TypeName.JSON:
            return JSON_VALUES
        case TypeName.UUID:
            return st.uuids().map(str)


@st.composite
def columns(draw: st.DrawFn) -> tuple[Column, ...]:
    names = draw(st.lists(NAMES, min_size=1, max_size=5, unique=True))
    made = []
    for number, name in enumerate(names, 1):
        data_type = draw(data_types())
        kinds = st.sampled_from([None, DefaultKind.LITERAL, *FUNCTIONS.get(data_type.name, [])])
        kind = draw(kinds)
        literal = draw(literals(data_type)) if kind is DefaultKind.LITERAL else None
        default = Default(kind=kind, literal=literal) if kind else None
        made.append(Column(column_id=number, name=name, type=data_type, nullable=draw(st.booleans()), default=default))
    return tuple(made)


def sources() -> st.SearchStrategy[ColumnSource | None]:
    texts = {Place.HEADER: "it's", Place.PATH: """a["it's"].b[0]"""}
    told = [ColumnSource(place, text) for place, text in texts.items()]
    return st.sampled_from([None, ColumnSource(Place.TOKEN, 3), *told])


@st.composite
def definitions(draw: st.DrawFn) -> TableDefinition:
    kind = draw(st.sampled_from([TableKind.STREAM, TableKind.SHARED, TableKind.USER, TableKind.FOREIGN]))
    made = draw(columns())
    key: tuple[str, ...] = ()
    if kind is TableKind.FOREIGN:
        made = tuple(replace(column, source=draw(sources())) for column in made)
    elif kind is not TableKind.STREAM:
        may_be = [column.name for column in made if TYPES[column.type.name].is_key and not column.nullable]
        key = tuple(draw(st.permutations(may_be))[: draw(st.integers(1, 3))]) or ("_row_id",)
        if key == ("_row_id",):
            default = Default(kind=DefaultKind.SNOWFLAKE_ID)
            data_type = DataType(name=TypeName.BIGINT)
            row_id = Column(column_id=len(made) + 1, name="_row_id", type=data_type, nullable=False, default=default)
            made = (*made, row_id)
    subject_key = draw(st.none() | st.sampled_from([column.name for column in made]))
    format_, as_text = draw(st.sampled_from(PayloadFormat)), draw(st.booleans())
    options: StreamOptions | StoredOptions | ForeignOptions
    if kind is TableKind.FOREIGN:
        over = Over("it's", draw(st.none() | st.just("a.*.>")), draw(st.none() | st.just("hub")))
        options = ForeignOptions(
            over=over, payload=draw(st.sampled_from(Payload)), invalid=draw(st.sampled_from(Invalid))
        )
    elif kind is TableKind.STREAM:
        options = StreamOptions(
            retention_s=draw(st.none() | st.integers(1, 10**9)),
            max_buffer_rows=draw(st.integers(1, 10**8)),
            ephemeral=draw(st.booleans()),
            storage=draw(st.sampled_from(StreamStorage)),
            replicas=draw(st.sampled_from([1, 3, 5])),
            subject_key=subject_key,
            format=format_,
            bigint_as_text=as_text,
        )
    else:
        rows = draw(st.none() | st.integers(1, 10**7))
        options = StoredOptions(
            flush_rows=rows,
            flush_interval_s=draw(st.integers(1, 86_400) | (st.none() if rows else st.nothing())),
            location=draw(st.none() | st.just("/it's/${user_id}" if kind is TableKind.USER else "s3://b/it's")),
            deleted_retention_s=draw(st.none() | st.integers(1, 1_000).map(lambda hours: hours * 3_600)),
            compression=draw(st.sampled_from(Compression)),
            subject_key=subject_key,
            format=format_,
            bigint_as_text=as_text,
        )
    name = TableName(draw(NAMES.filter(lambda name: name not in ("system", "kalam"))), draw(NAMES))
    return TableDefinition(name=name, kind=kind, columns=made, key=key, options=options)


@settings(max_examples=200, deadline=None)
@given(definitions())
def test_a_table_s_create_statement_makes_the_same_table(table: TableDefinition) -> None:
    statement = parse_statement(create_table_sql(table))
    assert isinstance(statement, CreateTable)
    assert statement.ref == TableRef(table.name.namespace, table.name.table)
    assert (statement.kind, statement.columns, statement.key) == (table.kind, table.columns, table.key)
    options = table_options(statement.kind, statement.options, statement.columns)
    assert (replace(options, over=statement.over) if statement.over else options) == table.options


def test_a_create_statement_is_written_for_people() -> None:
    statement = parse_statement(
        "CREATE TABLE app.t (id BIGINT PRIMARY KEY, name VARCHAR(9) NOT NULL DEFAULT 'x', \"order\" JSON)"
    )
    assert isinstance(statement, CreateTable)
    table = TableDefinition(
        name=TableName("app", "t"),
        kind=statement.kind,
        columns=statement.columns,
        key=statement.key,
        options=table_options(statement.kind, statement.options, statement.columns),
    )
    assert create_table_sql(table).splitlines() == [
        "CREATE SHARED TABLE app.t (",
        "    id BIGINT PRIMARY KEY,",
        "    name VARCHAR(9) NOT NULL DEFAULT 'x',",
        '    "order" JSON',
        ") WITH (",
        "    FLUSH_POLICY = 'rows:100000,interval:300',",
        "    DELETED_RETENTION = '7d',",
        "    COMPRESSION = 'zstd',",
        "    FORMAT = 'json',",
        "    BIGINT_AS_TEXT = false",
        ")",
    ]
