"""The options of tables by their kind, as frozen values."""

from __future__ import annotations

import enum
from typing import ClassVar

import msgspec


class PayloadFormat(enum.StrEnum):
    """How the payload of a table's events is written."""

    JSON = "json"
    MSGPACK = "msgpack"


class StreamStorage(enum.StrEnum):
    """Where JetStream keeps the events of a STREAM table."""

    FILE = "file"
    MEMORY = "memory"


class Compression(enum.StrEnum):
    """How the pages of a Parquet segment are compressed."""

    ZSTD = "zstd"
    SNAPPY = "snappy"
    NONE = "none"


class StreamOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of a STREAM table. ``retention_s`` is None for "kept until MAX_BUFFER"."""

    retention_s: int | None = None
    max_buffer_rows: int = 10_000
    ephemeral: bool = False
    subject_key: str | None = None
    storage: StreamStorage = StreamStorage.FILE
    replicas: int = 1
    format: PayloadFormat = PayloadFormat.JSON
    bigint_as_text: bool = False


class StoredOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of a SHARED or USER table.

    At least one of ``flush_rows`` and ``flush_interval_s`` is set. ``deleted_retention_s`` is None for "kept for ever";
    ``location`` is None for the folder under the data directory, ``iceberg`` for what the setting says.
    """

    flush_rows: int | None = 100_000
    flush_interval_s: int | None = 300
    location: str | None = None
    deleted_retention_s: int | None = 7 * 86_400
    compression: Compression = Compression.ZSTD
    subject_key: str | None = None
    format: PayloadFormat = PayloadFormat.JSON
    bigint_as_text: bool = False
    iceberg: bool | None = None


class How(enum.StrEnum):
    """How a materialized view is kept up."""

    ROW_WISE = "row-wise"
    AGGREGATING = "aggregating"
    RERUN = "re-run"

    @property
    def told(self) -> str:
        """The same, as an answer says it."""
        return {How.ROW_WISE: "row by row", How.AGGREGATING: "by its groups", How.RERUN: "by running it again"}[self]


class Maintain(enum.StrEnum):
    """How a view may be kept up: as it can be, by what changed alone, or by running its query again."""

    AUTO = "auto"
    INCREMENTAL = "incremental"
    RERUN = "rerun"


class OnRecreate(enum.StrEnum):
    """What becomes of a view whose stream is not the one any more that it has followed."""

    STOP = "stop"
    CONTINUE = "continue"


class ViewSource(msgspec.Struct, frozen=True):
    """A table that a view reads, by its id, and the columns of it that the query names."""

    table_id: int
    columns: tuple[str, ...]


class ViewOptions(StoredOptions, frozen=True, kw_only=True):
    """The options of a materialized view, and what it is: those of a SHARED table, and its own.

    ``query`` names its tables in full and its columns one by one. ``key`` are the columns that were given as unique.
    One that is ``ephemeral`` is kept in memory, while somebody listens.
    """

    query: str = ""
    how: How = How.ROW_WISE
    reads: tuple[ViewSource, ...] = ()
    refresh_ms: int = 250
    maintain: Maintain = Maintain.AUTO
    key: tuple[str, ...] = ()
    retention_s: int | None = None
    retention_on: str | None = None
    on_recreate: OnRecreate = OnRecreate.STOP
    ephemeral: bool = False


class SelectUse(msgspec.Struct, frozen=True):
    """A mention of a table in the text of a view: which one it is, whatever it is called by now, and where it stands.

    ``table_id`` is 0 for a system table.
    """

    table_id: int
    namespace: str
    table: str
    start: int
    end: int
    aliased: bool
    sees_deleted: bool


class OnCommit(enum.StrEnum):
    """What becomes of a temporary table's rows when a block ends."""

    PRESERVE_ROWS = "PRESERVE ROWS"
    DELETE_ROWS = "DELETE ROWS"
    DROP = "DROP"


class TemporaryOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a temporary table is besides its columns."""

    on_commit: OnCommit = OnCommit.PRESERVE_ROWS

    subject_key: ClassVar[str | None] = None
    bigint_as_text: ClassVar[bool] = False
    format: ClassVar[PayloadFormat] = PayloadFormat.JSON


class SelectOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a view is: a SELECT as it was written, with its mentions of tables.

    ``given`` are what the columns of its result are called, in the order of the view's; ``words`` what is named in it,
    columns among them.
    """

    query: str
    uses: tuple[SelectUse, ...] = ()
    given: tuple[str, ...] = ()
    words: frozenset[str] = frozenset()
    names_key: bool = False
    virtual: frozenset[str] = frozenset()

    subject_key: ClassVar[str | None] = None
    bigint_as_text: ClassVar[bool] = False
    format: ClassVar[PayloadFormat] = PayloadFormat.JSON
