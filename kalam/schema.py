"""A table's definition: its kind, typed columns, key and options, as frozen values.

``TableDefinition`` is what a CREATE TABLE asks for; ``Table`` is what the catalogue holds (it has an id and a version).
Columns are matched by ``column_id`` and never by name, so that a name dropped and added again is empty.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from operator import itemgetter
from typing import Any, assert_never

import msgspec

from kalam.foreign import ColumnSource, ForeignOptions
from kalam.names import TableName
from kalam.table_kinds import STORED_KINDS as STORED_KINDS
from kalam.table_kinds import TableKind as TableKind
from kalam.table_options import Compression as Compression
from kalam.table_options import OnCommit
from kalam.table_options import PayloadFormat as PayloadFormat
from kalam.table_options import SelectOptions as SelectOptions
from kalam.table_options import StoredOptions as StoredOptions
from kalam.table_options import StreamOptions as StreamOptions
from kalam.table_options import StreamStorage as StreamStorage
from kalam.table_options import TemporaryOptions as TemporaryOptions
from kalam.table_options import ViewOptions as ViewOptions
from kalam.timestamp_unit import TimestampUnit as TimestampUnit

ROW_ID = "_row_id"
UPDATED = "_updated"
DELETED = "_deleted"
SEQ = "_seq"
"""The place of a version in the log of its copy, as segments and queries that read versions name it."""
STREAM_KEY = "_key"
VIEW_KEY = "_key"
"""The last column of a materialized view whose key is no column of its SELECT; shown where it is named."""
FIRST_OWNER = "admin"
"""Who owns what was made without authentication."""


class TypeName(enum.StrEnum):
    """The column types, each in its one canonical spelling."""

    BOOLEAN = "BOOLEAN"
    SMALLINT = "SMALLINT"
    INT = "INT"
    BIGINT = "BIGINT"
    FLOAT = "FLOAT"
    DOUBLE = "DOUBLE"
    DECIMAL = "DECIMAL"
    TEXT = "TEXT"
    BLOB = "BLOB"
    TIMESTAMP = "TIMESTAMP"
    DATE = "DATE"
    JSON = "JSON"
    UUID = "UUID"


_STORED_COLUMNS = {UPDATED: TypeName.TIMESTAMP, DELETED: TypeName.BOOLEAN}
_STREAM_COLUMNS = {STREAM_KEY: TypeName.TEXT}
VIRTUAL_COLUMNS: Mapping[str, TypeName] = {
    "_subject": TypeName.TEXT,
    SEQ: TypeName.BIGINT,
    "_time": TypeName.TIMESTAMP,
    "_headers": TypeName.JSON,
    "_raw": TypeName.BLOB,
    "_error": TypeName.TEXT,
}
"""What a message of a foreign stream is, beside the columns that are made of it; shown where it is named."""
REVISION, OPERATION = "_revision", "_operation"
BUCKET_COLUMNS: Mapping[str, TypeName] = {
    **VIRTUAL_COLUMNS,
    STREAM_KEY: TypeName.TEXT,
    REVISION: TypeName.BIGINT,
    OPERATION: TypeName.TEXT,
}
"""Likewise of a key of a bucket."""


class DataType(msgspec.Struct, frozen=True, kw_only=True):
    """A column type: ``precision`` and ``scale`` belong to DECIMAL, ``length_max`` (characters) to VARCHAR(n).

    ``unit`` belongs to TIMESTAMP and is None for milliseconds; it says how integers are read, and not what is kept.
    """

    name: TypeName
    precision: int | None = None
    scale: int | None = None
    length_max: int | None = None
    unit: TimestampUnit | None = None

    def __str__(self) -> str:
        if self.name is TypeName.DECIMAL:
            return f"DECIMAL({self.precision},{self.scale})"
        return f"VARCHAR({self.length_max})" if self.length_max else self.name.value

    @property
    def declaration(self) -> str:
        """The type as a column is declared with it."""
        return f"{self} UNIT '{self.unit}'" if self.unit else str(self)

    @property
    def integer_unit(self) -> TimestampUnit:
        """What an integer counts that is given for a TIMESTAMP of this type."""
        return self.unit or TimestampUnit.MILLISECONDS


class DefaultKind(enum.StrEnum):
    """Where a column's default comes from: a literal, or a function evaluated for each insert."""

    LITERAL = "LITERAL"
    NOW = "NOW()"
    SNOWFLAKE_ID = "SNOWFLAKE_ID()"
    UUID_V7 = "UUID_V7()"
    CURRENT_USER = "CURRENT_USER()"


class Default(msgspec.Struct, frozen=True, kw_only=True):
    """A column's default. ``literal`` is the value as JSON would carry it (so that it can be stored as JSON)."""

    kind: DefaultKind
    literal: Any = None

    def __str__(self) -> str:
        if self.kind is not DefaultKind.LITERAL:
            return self.kind.value
        match self.literal:
            case None:
                return "NULL"
            case bool():
                return "TRUE" if self.literal else "FALSE"
            case int() | float():
                return str(self.literal)
            case str():
                return "'" + self.literal.replace("'", "''") + "'"
            case other:
                return "'" + msgspec.json.encode(other).decode().replace("'", "''") + "'"


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """A column of a table. ``column_id`` is 1, 2, 3, … in order of creation and never used again.

    ``fill`` is what older rows have in a column that an ALTER added, as JSON would carry it. ``source`` says where in a
    foreign message its value is; None for the member of its name.
    """

    column_id: int
    name: str
    type: DataType
    nullable: bool = True
    default: Default | None = None
    fill: Any = None
    source: ColumnSource | None = None


TableOptions = StreamOptions | StoredOptions | ViewOptions | ForeignOptions | SelectOptions | TemporaryOptions


Key = Any
"""What tells a row from the others of its table: the value of its key column, or a tuple of those of several."""


def _no_key(row: Sequence[Any]) -> Key:
    raise TypeError("the rows of a STREAM table have no key column")


class TableDefinition(msgspec.Struct, frozen=True, kw_only=True):
    """What CREATE TABLE asks for: checked, complete, not yet stored.

    ``columns`` are the declared ones, followed by ``_row_id`` where the table has no key of its own. ``key`` names the
    key's columns in their order; it is empty for a STREAM table, and a temporary one may have none. ``owned_by`` is the
    user or role that may alter and grant it.
    """

    name: TableName
    kind: TableKind
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    options: TableOptions
    owned_by: str = FIRST_OWNER

    @classmethod
    def of_view(
        cls, name: TableName, columns: tuple[Column, ...], key: tuple[str, ...], options: ViewOptions, owned_by: str
    ) -> TableDefinition:
        """The table that a materialized view is."""
        return TableDefinition(
            name=name, kind=TableKind.VIEW, columns=columns, key=key, options=options, owned_by=owned_by
        )

    @property
    def is_stored(self) -> bool:
        """Whether its rows, with their versions, are kept in the log and in Parquet files."""
        return isinstance(self.options, StoredOptions)

    @property
    def is_stream(self) -> bool:
        """Whether its events lie in a stream of Kalam's own."""
        return isinstance(self.options, StreamOptions)

    @property
    def per_user(self) -> bool:
        """Whether each user has a private copy of the rows."""
        return self.kind.per_user

    def owner(self, user: str) -> str:
        """The user whose copy a request of ``user`` touches: '' where there is one copy for all."""
        return user if self.kind is TableKind.USER else ""

    @property
    def system_columns(self) -> Mapping[str, TypeName]:
        """What SELECT shows behind the columns, where it is named or ``*`` means it too."""
        if self.is_stored:
            return _STORED_COLUMNS
        if self.is_stream:
            return _STREAM_COLUMNS
        if isinstance(self.options, SelectOptions | TemporaryOptions):
            return {}
        return BUCKET_COLUMNS if self.is_bucket else VIRTUAL_COLUMNS

    @property
    def is_foreign(self) -> bool:
        """Whether it reads a stream that others made."""
        return isinstance(self.options, ForeignOptions)

    @property
    def is_bucket(self) -> bool:
        """Whether it reads the present state of a key-value bucket that others made."""
        return isinstance(self.options, ForeignOptions) and self.options.over.bucket is not None

    @property
    def hidden_columns(self) -> frozenset[str]:
        """Those of them that ``*`` does not mean, and the hidden key of a view."""
        if self.is_stored:
            return frozenset((VIEW_KEY,)) & {column.name for column in self.columns}
        return frozenset(self.system_columns)

    @property
    def stream_options(self) -> StreamOptions:
        """The options of a STREAM table; a TypeError on any other kind."""
        if not isinstance(self.options, StreamOptions):
            raise TypeError(f"{self.name} is no STREAM table")
        return self.options

    @property
    def stored_options(self) -> StoredOptions:
        """The options of a SHARED or USER table; a TypeError on a STREAM table."""
        if not isinstance(self.options, StoredOptions):
            raise TypeError(f"{self.name} is a STREAM table")
        return self.options

    @property
    def foreign_options(self) -> ForeignOptions:
        """The options of a table over a foreign stream; a TypeError on any other kind."""
        if not isinstance(self.options, ForeignOptions):
            raise TypeError(f"{self.name} is not over a foreign stream")
        return self.options

    @property
    def is_view(self) -> bool:
        """Whether it is a materialized view."""
        return isinstance(self.options, ViewOptions)

    @property
    def is_temporary(self) -> bool:
        """Whether a session made it for itself."""
        return isinstance(self.options, TemporaryOptions)

    @property
    def is_ephemeral(self) -> bool:
        """Whether it is a materialized view that is kept in memory, and only while somebody listens."""
        return isinstance(self.options, ViewOptions) and self.options.ephemeral

    @property
    def view_options(self) -> ViewOptions:
        """The options of a materialized view; a TypeError on any other kind."""
        if not isinstance(self.options, ViewOptions):
            raise TypeError(f"{self.name} is no view")
        return self.options

    @property
    def payload_format(self) -> PayloadFormat:
        """How Kalam writes what it tells of the table."""
        return PayloadFormat.JSON if isinstance(self.options, ForeignOptions) else self.options.format

    @property
    def declared_columns(self) -> tuple[Column, ...]:
        """The columns that the user declared, which an INSERT without a column list means."""
        return tuple(column for column in self.columns if column.name not in (ROW_ID, VIEW_KEY))

    @property
    def shown_columns(self) -> tuple[Column, ...]:
        """The columns that are told to whoever does not name a hidden one: these stand before it."""
        hidden = self.hidden_columns if self.is_stored else frozenset()
        return tuple(column for column in self.columns if column.name not in hidden) if hidden else self.columns

    def column(self, name: str) -> Column | None:
        """The column of that name, or None."""
        return next((column for column in self.columns if column.name == name), None)


class Table(TableDefinition, frozen=True, kw_only=True):
    """A table as the catalogue holds it. ``table_id`` is new for every CREATE; ``schema_version`` counts from 1.

    ``key_columns``, their ``key_places`` in a row, and ``key_of``, which gives a row's key, follow from ``key``.
    ``row_security`` says that policies decide who sees which of its rows; ``home`` is the name of its folder where that
    is not the table's. A ``table_id`` below 0 is that of a view without a name.
    """

    table_id: int
    schema_version: int
    created_at: datetime
    row_security: bool = False
    home: str | None = None
    key_columns: tuple[Column, ...] = ()
    key_places: tuple[int, ...] = ()
    key_of: Callable[[Sequence[Any]], Key] = _no_key

    @classmethod
    def of_session(cls, on_commit: OnCommit, **parts: Any) -> Table:
        """A temporary table, whose other parts are those of any table."""
        options = TemporaryOptions(on_commit=on_commit)
        kind, created_at = TableKind.TEMPORARY, datetime.now(UTC)
        return Table(kind=kind, options=options, schema_version=1, created_at=created_at, **parts)

    def __post_init__(self) -> None:
        names = [column.name for column in self.columns]
        places = tuple(map(names.index, self.key))
        msgspec.structs.force_setattr(self, "key_places", places)
        msgspec.structs.force_setattr(self, "key_columns", tuple(self.columns[place] for place in places))
        msgspec.structs.force_setattr(self, "key_of", _key_getter(places))


@cache
def _key_getter(places: tuple[int, ...]) -> Callable[[Sequence[Any]], Key]:
    """One object for the same places, so that tables that are alike are equal."""
    return itemgetter(*places) if places else _no_key


def options_type(kind: TableKind) -> type[TableOptions]:
    """The class that holds the options of a table of this kind."""
    match kind:
        case TableKind.STREAM:
            return StreamOptions
        case TableKind.SHARED | TableKind.USER:
            return StoredOptions
        case TableKind.FOREIGN:
            return ForeignOptions
        case TableKind.VIEW:
            return ViewOptions
        case TableKind.QUERY:
            return SelectOptions
        case TableKind.TEMPORARY:
            return TemporaryOptions
        case other:
            assert_never(other)


def dump_key(key: tuple[str, ...]) -> str | None:
    """The names of the key's columns as the catalogue keeps them; names have no comma."""
    return ",".join(key) or None


def load_key(text: str | None) -> tuple[str, ...]:
    """The names that ``dump_key`` wrote."""
    return tuple(text.split(",")) if text else ()


def dump_columns(columns: tuple[Column, ...]) -> str:
    """The columns as the JSON text that the catalogue keeps."""
    return msgspec.json.encode(columns).decode()


def load_columns(text: str) -> tuple[Column, ...]:
    """The columns that ``dump_columns`` wrote."""
    return msgspec.json.decode(text, type=tuple[Column, ...])


def dump_options(options: TableOptions) -> str:
    """The options as the JSON text that the catalogue keeps."""
    return msgspec.json.encode(options).decode()


def load_options(kind: TableKind, text: str) -> TableOptions:
    """The options that ``dump_options`` wrote for a table of this kind."""
    return msgspec.json.decode(text, type=options_type(kind))
