"""SHOW and DESCRIBE: what namespaces and tables are, as far as somebody may see it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, assert_never

import pyarrow as pa
from msgspec.structs import replace

from kalam.engine.gate import Gate
from kalam.engine.session import Session
from kalam.errors import NamespaceNotFound
from kalam.foreign import ForeignOptions
from kalam.names import SYSTEM_NAMESPACE
from kalam.query.queries import Queries, resolve
from kalam.query.results import Result, list_result
from kalam.query.selects import present_text
from kalam.rows.keys import named_key
from kalam.rows.types import TIMESTAMP_ARROW
from kalam.schema import Column, SelectOptions, StoredOptions, Table, ViewOptions, load_columns
from kalam.sql import create_table_sql, describe_options
from kalam.sql.text import statements as sql
from kalam.sql.text.statements import DescribeTable, TableRef
from kalam.storage.log.catalogue import Catalogue
from kalam.storage.log.database import Database
from kalam.storage.log.times import from_us
from kalam.storage.log.troubles import Troubles
from kalam.tables.kinds import Tables, Upkeep
from kalam.threads import Purpose, in_thread

TEXT = pa.string()
NAMESPACES_FIELDS = (("namespace", TEXT), ("created_at", TIMESTAMP_ARROW))
TABLES_FIELDS = (("namespace", TEXT), ("table_name", TEXT), ("table_type", TEXT), ("created_at", TIMESTAMP_ARROW))
DESCRIBED_FIELDS = (("section", TEXT), ("name", TEXT), ("value", TEXT), ("description", TEXT))
HISTORY_FIELDS = (("schema_version", pa.int64()), ("columns", TEXT), ("created_at", TIMESTAMP_ARROW))
STATS_FIELDS = (("name", TEXT), ("value", TEXT))
CREATED_FIELDS = (("statement", TEXT),)
COLUMN_FIELDS = (
    ("column_name", pa.string()),
    ("data_type", pa.string()),
    ("is_nullable", pa.bool_()),
    ("column_default", pa.string()),
    ("is_primary_key", pa.bool_()),
    ("comment", pa.string()),
)


class Descriptions:
    """Answers the statements that show namespaces and tables."""

    def __init__(
        self,
        database: Database,
        catalogue: Catalogue,
        upkeep: Tables[Upkeep],
        queries: Queries,
        troubles: Troubles,
        gate: Gate,
    ) -> None:
        self._database, self._catalogue, self._upkeep = database, catalogue, upkeep
        self._queries, self._troubles, self._gate = queries, troubles, gate

    async def answer(self, statement: sql.ShowingTables, session: Session) -> Result:
        """What one of these statements shows."""
        match statement:
            case sql.ShowNamespaces():
                return self.show_namespaces(session)
            case sql.ShowTables(namespace):
                return self.show_tables(namespace or self._default(session), session)
            case sql.DescribeTable():
                return await self.describe(statement, session)
            case sql.ShowColumns(ref):
                return self.show_columns(ref, session)
            case sql.ShowStats(ref):
                return await self.show_stats(ref, session)
            case sql.ShowCreateTable(ref):
                return self.show_create_table(ref, session)
            case other:
                assert_never(other)

    def show_namespaces(self, session: Session) -> Result:
        """SHOW NAMESPACES."""
        namespaces = self._catalogue.namespaces
        return list_result(
            NAMESPACES_FIELDS, [(name, namespaces[name]) for name in sorted(self._gate.namespaces(session.identity))]
        )

    def _default(self, session: Session) -> str | None:
        """Of which namespace a SHOW TABLES without one tells; one that is not there is none, as psql's ``public``."""
        there = (SYSTEM_NAMESPACE, *self._gate.namespaces(session.identity))
        return session.namespace if session.namespace in there else None

    def show_tables(self, namespace: str | None, session: Session) -> Result:
        """SHOW TABLES, of one namespace or of all."""
        rows: list[tuple[str, str, str, datetime | None]]
        if namespace == SYSTEM_NAMESPACE:
            rows = [(name.namespace, name.table, "SYSTEM", None) for name in sorted(self._queries.system_names())]
        elif namespace is not None and namespace not in self._catalogue.namespaces:
            raise NamespaceNotFound(f"there is no namespace {namespace!r}")
        else:
            rows = [
                (table.name.namespace, table.name.table, table.kind.value, table.created_at)
                for table in sorted(self._visible(session), key=lambda table: table.name)
                if namespace in (None, table.name.namespace)
            ]
        return list_result(TABLES_FIELDS, rows)

    def _visible(self, session: Session) -> list[Table]:
        return self._gate.visible(session.identity, self._catalogue.tables.values())

    async def describe(self, statement: DescribeTable, session: Session) -> Result:
        """DESCRIBE TABLE: columns, options, and what is stored."""
        table = self._catalogue.table(resolve(statement.ref, session.namespace))
        if statement.history:
            return await in_thread(Purpose.CATALOGUE, self._history, table)
        rows: list[tuple[str, str, str | None]] = [("table", "name", str(table.name)), ("table", "kind", table.kind)]
        rows += [("column", column.name, _column_text(column, table.key)) for column in table.shown_columns]
        owns = self._gate.owns(session.identity, table)
        if isinstance(table.options, ForeignOptions):
            rows.append(("table", "over", str(table.options.over)))
        options = [("option", name, value) for name, value in describe_options(table.options)]
        rows += [option for option in options if owns or option[1] != "location"]
        if isinstance(table.options, ViewOptions):
            rows += [("view", name, str(getattr(table.options, name)) if owns else None) for name in ("query", "how")]
        if isinstance(table.options, SelectOptions):
            rows.append(("view", "query", present_text(table.options, self._catalogue) if owns else None))
        if self._gate.rights.on:
            rows.append(("table", "owner", table.owned_by))
            rows += [("table", "row_level_security", "enabled")] if table.row_security else []
        rows += self._comments(table)
        rows.append(("table", "schema_version", str(table.schema_version)))
        rows.append(("table", "table_id", str(table.table_id)))
        rows += [("state", name, str(value) if owns else None) for name, value in await self.state(table)]
        described = [
            (section, name, value, f"{name} = {'NULL' if value is None else value}") for section, name, value in rows
        ]
        return list_result(DESCRIBED_FIELDS, described)

    def _comments(self, table: Table) -> list[tuple[str, str, str | None]]:
        """What is said of the table and its columns."""
        comments = self._catalogue.comments
        said = [("comment", column.name, comments.of(table, column.column_id)) for column in table.columns]
        return [each for each in (("table", "comment", comments.of(table)), *said) if each[2] is not None]

    def _history(self, table: Table) -> Result:
        with self._database.reading() as conn:
            rows = conn.execute(
                "SELECT schema_version, columns, created_us FROM table_schemas WHERE table_id = ? ORDER BY 1",
                (table.table_id,),
            ).fetchall()
        shown = [(version, _shown_columns(load_columns(text)), from_us(created)) for version, text, created in rows]
        return list_result(HISTORY_FIELDS, shown)

    async def state(self, table: Table) -> Sequence[tuple[str, Any]]:
        """What is stored of a table, by name."""
        troubles = [(f"trouble_{what}", reason) for what, reason in self._troubles.of(table.table_id)]
        return [*await self._upkeep.of(table).state(table), *troubles]

    async def show_stats(self, ref: TableRef, session: Session) -> Result:
        """SHOW STATS FOR TABLE."""
        table = self._catalogue.table(resolve(ref, session.namespace))
        owns = self._gate.owns(session.identity, table)  # how much others have is not told
        rows = [(name, str(value) if owns else None) for name, value in await self.state(table)]
        return list_result(STATS_FIELDS, rows)

    def show_create_table(self, ref: TableRef, session: Session) -> Result:
        """SHOW CREATE TABLE."""
        table = self._catalogue.table(resolve(ref, session.namespace))
        options, owns = table.options, self._gate.owns(session.identity, table)
        if not owns and (table.is_view or isinstance(options, SelectOptions)):
            return list_result(CREATED_FIELDS, [(None,)])  # what it reads is its owner's business
        if isinstance(options, SelectOptions):
            table = replace(table, options=replace(options, query=present_text(options, self._catalogue)))
        if not owns and isinstance(options, StoredOptions):
            table = replace(table, options=replace(options, location=None))  # where files lie is its owner's business
        return list_result(CREATED_FIELDS, [(create_table_sql(table),)])

    def show_columns(self, ref: TableRef, session: Session) -> Result:
        """SHOW COLUMNS FROM a table: those that it was declared with."""
        table = self._catalogue.table(resolve(ref, session.namespace))
        rows = [
            (
                column.name,
                column.type.declaration,
                column.nullable,
                None if column.default is None else str(column.default),
                column.name in table.key,
                self._catalogue.comments.of(table, column.column_id),
            )
            for column in table.declared_columns
        ]
        return list_result(COLUMN_FIELDS, rows)


def _column_text(column: Column, key: Sequence[str] = ()) -> str:
    """A column as DESCRIBE shows it; of a key of several columns each of them shows the whole."""
    text = column.type.declaration
    if not column.nullable:
        text += " NOT NULL"
    if column.default is not None:
        text += f" DEFAULT {column.default}"
    if column.source is not None:
        text += f" {column.source}"
    if column.name not in key:
        return text
    return f"{text} PRIMARY KEY" if len(key) == 1 else f"{text} PRIMARY KEY {named_key(key)}"


def _shown_columns(columns: Sequence[Column]) -> str:
    return ", ".join(f"{column.name} {_column_text(column)}" for column in columns)
