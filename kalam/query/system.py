"""The tables of the namespace ``system``: views over the catalogue, made when they are asked."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, assert_never

import pyarrow as pa

from kalam.access.rights import Rights
from kalam.names import SYSTEM_NAMESPACE, TableName
from kalam.query.running import SHOWN_CHARACTERS_MAX, RunningQuery
from kalam.rows.types import TIMESTAMP_ARROW
from kalam.sql.text.passwords import without_passwords
from kalam.storage.log.catalogue import Catalogue
from kalam.storage.log.database import Database

TEXT, COUNT, TRUTH = pa.string(), pa.int64(), pa.bool_()
Fields = Sequence[tuple[str, pa.DataType]]

NAMESPACES: Fields = (("namespace", TEXT), ("created_at", TIMESTAMP_ARROW))
TABLES: Fields = (
    ("namespace", TEXT),
    ("table_name", TEXT),
    ("table_type", TEXT),
    ("table_id", COUNT),
    ("options", TEXT),
    ("schema_version", COUNT),
    ("created_at", TIMESTAMP_ARROW),
    ("comment", TEXT),
)
COLUMNS: Fields = (
    ("namespace", TEXT),
    ("table_name", TEXT),
    ("column_name", TEXT),
    ("ordinal", COUNT),
    ("data_type", TEXT),
    ("is_nullable", TRUTH),
    ("column_default", TEXT),
    ("is_primary_key", TRUTH),
    ("key_ordinal", COUNT),
    ("comment", TEXT),
)
SCHEMAS: Fields = (
    ("namespace", TEXT),
    ("table_name", TEXT),
    ("schema_version", COUNT),
    ("columns", TEXT),
    ("created_at", TIMESTAMP_ARROW),
)
SEGMENTS: Fields = (
    ("namespace", TEXT),
    ("table_name", TEXT),
    ("user_id", TEXT),
    ("path", TEXT),
    ("rows", COUNT),
    ("bytes", COUNT),
    ("min_seq", COUNT),
    ("max_seq", COUNT),
    ("schema_version", COUNT),
    ("created_at", TIMESTAMP_ARROW),
)
JOBS: Fields = (
    ("job_id", TEXT),
    ("job_type", TEXT),
    ("namespace", TEXT),
    ("table_name", TEXT),
    ("status", TEXT),
    ("parameters", TEXT),
    ("result", TEXT),
    ("error", TEXT),
    ("created_at", TIMESTAMP_ARROW),
    ("started_at", TIMESTAMP_ARROW),
    ("finished_at", TIMESTAMP_ARROW),
)
LIVE_QUERIES: Fields = (
    ("id", TEXT),
    ("user", TEXT),
    ("table", TEXT),
    ("sql", TEXT),
    ("options", TEXT),
    ("created_at", TIMESTAMP_ARROW),
    ("delivered", COUNT),
    ("queued", COUNT),
    ("resyncs", COUNT),
    ("last_seq", COUNT),
    ("kept", TEXT),
)
QUERIES: Fields = (
    ("query_id", TEXT),
    ("user_id", TEXT),
    ("door", TEXT),
    ("sql", TEXT),
    ("started_at", TIMESTAMP_ARROW),
    ("rows", COUNT),
    ("memory_bytes", COUNT),
    ("state", TEXT),
)
SESSIONS: Fields = (
    ("session_id", TEXT),
    ("user", TEXT),
    ("token_id", TEXT),
    ("address", TEXT),
    ("created_at", TIMESTAMP_ARROW),
    ("used_at", TIMESTAMP_ARROW),
    ("ends_at", TIMESTAMP_ARROW),
)
AUDIT: Fields = (
    ("at", TIMESTAMP_ARROW),
    ("user", TEXT),
    ("acting_for", TEXT),
    ("door", TEXT),
    ("address", TEXT),
    ("action", TEXT),
    ("object", TEXT),
    ("outcome", TEXT),
    ("detail", TEXT),
)
VIEWS: Fields = (
    ("namespace", TEXT),
    ("view_name", TEXT),
    ("state", TEXT),
    ("reason", TEXT),
    ("how", TEXT),
    ("position", TEXT),
    ("lag_rows", COUNT),
    ("lag_s", pa.float64()),
    ("missed", COUNT),
    ("late", COUNT),
    ("failed", COUNT),
    ("refreshes", COUNT),
    ("cost_ms", COUNT),
)
STATS: Fields = (("name", TEXT), ("value", pa.float64()))


def build(fields: Fields, rows: Sequence[Sequence[Any]]) -> pa.Table:
    """An Arrow table of these rows; integers stand for times as microseconds since 1970."""
    columns = list(zip(*rows, strict=True)) if rows else [() for _ in fields]
    return pa.table(
        {name: pa.array(list(values), kind) for (name, kind), values in zip(fields, columns, strict=True)},
        schema=pa.schema(list(fields)),
    )


def _kept(made: pa.Table, names: Sequence[str], keep: Callable[[Any], bool]) -> pa.Table:
    """The rows whose values in these columns are to be kept."""
    rows = zip(*(made.column(name).to_pylist() for name in names), strict=True)
    return made.filter(pa.array([keep(row) for row in rows], pa.bool_()))


_OF_OWNERS = frozenset({"options", "reason", "how", "position"})
"""Columns of ``system.tables`` and ``system.views`` that may name a LOCATION, or what a view reads."""


def _without(made: pa.Table, called: str, column: str, owned: set[tuple[str, str]]) -> pa.Table:
    """The rows in which a column is shown for these tables only, whose names are in the column ``called`` so."""
    columns = (made.column(name).to_pylist() for name in ("namespace", called, column))
    shown = [text if (namespace, name) in owned else None for namespace, name, text in zip(*columns, strict=True)]
    place = made.column_names.index(column)
    return made.set_column(place, made.schema.field(place), pa.array(shown, pa.string()))


def running_rows(running: Iterable[RunningQuery]) -> list[tuple[Any, ...]]:
    """The rows of ``system.queries``."""
    return [
        (
            each.query_id,
            each.user,
            each.door,
            without_passwords(each.sql[:SHOWN_CHARACTERS_MAX]),
            each.started_us,
            each.rows,
            each.memory_bytes(),
            each.state,
        )
        for each in running
    ]


class Shown(enum.Enum):
    """Who is shown which rows of a system table, besides administrators, who are shown all."""

    VISIBLE = "those of the tables that one may see"
    OWNED = "those of the tables that one owns"
    NAMESPACES = "those of the namespaces that one may see"
    OWN = "one's own, and those on tables that one owns"
    NONE = "none"


class SystemTables:
    """Makes system tables; ``progress`` says of running jobs, by their id, how far they are. Blocking."""

    def __init__(
        self, database: Database, catalogue: Catalogue, rights: Rights, progress: Callable[[], Mapping[str, str]]
    ) -> None:
        self._database, self._rights = database, rights
        self._shown = {
            "namespaces": Shown.NAMESPACES,
            "tables": Shown.VISIBLE,
            "columns": Shown.VISIBLE,
            "table_schemas": Shown.VISIBLE,
            "segments": Shown.OWNED,
            "jobs": Shown.OWNED,
        }
        self._fields: dict[str, Fields] = {
            "namespaces": NAMESPACES,
            "tables": TABLES,
            "columns": COLUMNS,
            "table_schemas": SCHEMAS,
            "segments": SEGMENTS,
            "jobs": JOBS,
        }
        self._catalogue = catalogue
        self._progress = progress
        self._makers: dict[str, Callable[[], pa.Table]] = {
            "namespaces": lambda: self._query(NAMESPACES, "SELECT namespace, created_us FROM namespaces"),
            "tables": lambda: self._query(
                TABLES,
                "SELECT namespace, table_name, kind, table_id, options, schema_version, created_us, comment "
                "FROM tables LEFT JOIN (SELECT table_id, comment FROM comments WHERE column_id = 0) USING (table_id) "
                "WHERE instr(table_name, '.') = 0",
            ),
            "columns": self._columns,
            "table_schemas": lambda: self._query(
                SCHEMAS,
                "SELECT namespace, table_name, table_schemas.schema_version, columns, table_schemas.created_us "
                "FROM table_schemas JOIN tables USING (table_id) WHERE instr(table_name, '.') = 0",
            ),
            "segments": lambda: self._query(
                SEGMENTS,
                "SELECT namespace, table_name, user_id, path, row_count, byte_count, min_seq, max_seq, "
                "segments.schema_version, segments.created_us "
                "FROM segments JOIN copies USING (copy_id) JOIN tables USING (table_id) "
                "WHERE instr(table_name, '.') = 0",
            ),
            "jobs": self._jobs,
        }

    def add(self, name: str, fields: Fields, rows: Callable[[], Sequence[Sequence[Any]]], shown: Shown) -> None:
        """Have one more system table, whose rows somebody else knows."""
        self._makers[name] = lambda: build(fields, rows())
        self._fields[name], self._shown[name] = fields, shown

    def names(self) -> list[TableName]:
        """The system tables that there are."""
        return [TableName(SYSTEM_NAMESPACE, name) for name in self._makers]

    def fields(self) -> Mapping[str, Fields]:
        """Their columns, by their names."""
        return self._fields

    def has(self, name: TableName) -> bool:
        """Whether this is a system table."""
        return name.namespace == SYSTEM_NAMESPACE and name.table in self._makers

    def table(self, name: str, user: str) -> pa.Table:
        """The rows of ``system.<name>`` that a user is shown."""
        made = self._makers[name]()
        return made if self._rights.administers(user) else self.seen(made, self._shown[name], user)

    def seen(self, made: pa.Table, shown: Shown, user: str) -> pa.Table:
        """The rows that a user is shown who is no administrator; without options where a table is another's."""
        tables = list(self._catalogue.tables.values())  # this is a thread, and the loop goes on
        rights = self._rights
        match shown:
            case Shown.VISIBLE | Shown.OWNED:
                sees = rights.sees if shown is Shown.VISIBLE else rights.owns
                names = {(each.name.namespace, each.name.table) for each in tables if sees(user, each)}
                called = "view_name" if "view_name" in made.column_names else "table_name"
                kept = _kept(made, ("namespace", called), names.__contains__)
                owned = {(each.name.namespace, each.name.table) for each in tables if rights.owns(user, each)}
                for column in _OF_OWNERS.intersection(kept.column_names):
                    kept = _without(kept, called, column, owned)
                return kept
            case Shown.NAMESPACES:
                seen = {name for name in self._catalogue.namespaces if rights.sees_namespace(user, name, tables)}
                return _kept(made, ("namespace",), lambda row: row[0] in seen)
            case Shown.OWN:
                owned_names = {str(each.name) for each in tables if rights.owns(user, each)}
                users = "user" if "user" in made.column_names else "user_id"
                if "table" not in made.column_names:
                    return _kept(made, (users,), lambda row: row[0] == user)
                return _kept(made, (users, "table"), lambda row: row[0] == user or row[1] in owned_names)
            case Shown.NONE:
                return made.slice(0, 0)
            case other:
                assert_never(other)

    def _query(self, fields: Fields, sql: str) -> pa.Table:
        with self._database.reading() as conn:
            return build(fields, conn.execute(sql).fetchall())

    def _jobs(self) -> pa.Table:
        """The jobs; the result of one that runs says how far it is."""
        with self._database.reading() as conn:
            rows = conn.execute(
                "SELECT job_id, job_type, namespace, table_name, status, parameters, result, error, created_us, "
                "started_us, finished_us FROM jobs ORDER BY created_us"
            ).fetchall()
        progress = self._progress()
        shown = [(*row[:6], progress.get(row[0], row[6]), *row[7:]) for row in rows]
        return build(JOBS, shown)

    def _columns(self) -> pa.Table:
        rows = [
            (
                table.name.namespace,
                table.name.table,
                column.name,
                ordinal,
                str(column.type),
                column.nullable,
                None if column.default is None else str(column.default),
                column.name in table.key,
                table.key.index(column.name) + 1 if column.name in table.key else None,
                self._catalogue.comments.of(table, column.column_id),
            )
            for table in sorted(self._catalogue.tables.values(), key=lambda table: table.name)
            for ordinal, column in enumerate(table.shown_columns, 1)
        ]
        return build(COLUMNS, rows)
