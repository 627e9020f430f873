"""The catalogue: namespaces, tables and their schema versions, in memory and in ``kalam.db``.

What is in memory is what has been committed: it is changed by the loop's thread after the commit, so a statement sees
a table either wholly or not at all. Reading it costs a dictionary look-up.
"""

from __future__ import annotations

import difflib
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime
from itertools import count
from typing import Any

from msgspec.structs import replace

from kalam.errors import AlreadyExists, NamespaceNotFound, TableInUse, TableNotFound
from kalam.names import UNFINISHED, TableName
from kalam.rows.versions import History
from kalam.schema import (
    Column,
    Table,
    TableDefinition,
    TableOptions,
    dump_columns,
    dump_key,
    dump_options,
    load_columns,
)
from kalam.storage.log.comments import Comments
from kalam.storage.log.database import Database, now_us
from kalam.storage.log.drop_notes import note_drop
from kalam.storage.log.table_rows import delete_table, insert_table, read_tables
from kalam.storage.log.temporary import TemporarySpaces
from kalam.storage.log.times import from_us

Sql = tuple[str, Sequence[Any]]
"""A statement of SQLite and its values."""


class Catalogue:
    """The namespaces and tables of one database.

    ``changed_at`` has since when, on the monotonic clock, a table's segments or columns are others than they were; who
    follows them takes the entries out. ``changes`` counts the definitions that came, changed and went since the start.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.namespaces: dict[str, datetime] = {}
        self.tables: dict[TableName, Table] = {}
        self.by_id: dict[int, Table] = {}
        self.comments = Comments(database)
        self.temporary = TemporarySpaces()
        self.histories: dict[int, dict[int, tuple[Column, ...]]] = {}
        self.altered: dict[int, int] = {}
        self.changed_at: dict[int, float] = {}
        self.changes = 0
        self._dropped: set[TableName] = set()
        self._on_used_again: list[Callable[[TableName], Awaitable[None]]] = []

    def on_used_again(self, listener: Callable[[TableName], Awaitable[None]]) -> None:
        """Have ``listener`` awaited when a name means another table than before: it gets one, or has lost its own."""
        self._on_used_again.append(listener)

    def note_changed(self, table_id: int) -> None:
        """What other engines read of a table changed: its segments, or what its columns are; from any thread."""
        self.changed_at.setdefault(table_id, time.monotonic())

    def load(self) -> None:
        """Read everything; blocking, for the start."""
        with self._database.reading() as conn:
            rows = conn.execute("SELECT namespace, created_us FROM namespaces").fetchall()
            self.namespaces = {name: from_us(created) for name, created in rows}
            schemas = conn.execute("SELECT table_id, schema_version, columns FROM table_schemas")
            for table_id, version, columns in schemas:
                self.histories.setdefault(table_id, {})[version] = load_columns(columns)
            for table in read_tables(conn):
                self._remember(table)
            self.comments.load(conn)

    def _remember(self, table: Table) -> None:
        self.changes += 1
        self.histories.setdefault(table.table_id, {})[table.schema_version] = table.columns
        if not table.name.is_unfinished:
            self.tables[table.name] = table
        self.by_id[table.table_id] = table

    def unfinished(self) -> list[Table]:
        """The tables that are being filled and that nobody sees; at the start those that a crash left."""
        return [table for table in self.by_id.values() if table.name.is_unfinished]

    def table(self, name: TableName) -> Table:
        """The table of that name; raises NamespaceNotFound or TableNotFound, with a near name as a hint."""
        table = self.tables.get(name)
        if table is not None:
            return table
        if name.namespace not in self.namespaces:
            raise NamespaceNotFound(
                f"there is no namespace {name.namespace!r}", hint=_near(name.namespace, self.namespaces)
            )
        names = [str(other) for other in self.tables if other.namespace == name.namespace]
        raise TableNotFound(f"there is no table {name}", hint=_near(str(name), names))

    def find(self, name: TableName) -> Table | None:
        """What a statement's name means: a table, or a temporary one, which only statements of its session name."""
        table = self.tables.get(name)
        if table is None and (state := self.temporary.get(name)) is not None:
            return state.table
        return table

    def named(self, name: TableName) -> Table:
        """The same; raises as ``table``."""
        return self.find(name) or self.table(name)

    def newest(self, table: Table) -> Table:
        """The table as it is by now; raises TableNotFound if it was dropped, also where another one has its name."""
        newest = self.by_id.get(table.table_id)
        if newest is None:
            raise TableNotFound(f"table {table.name} was dropped meanwhile")
        return newest

    def is_newest(self, table: Table) -> bool:
        """Whether no ALTER came after this state of the table; for the writer's thread, which knows it first."""
        return self.altered.get(table.table_id, table.schema_version) == table.schema_version

    def tables_in(self, namespace: str) -> list[Table]:
        """The tables of a namespace by name."""
        return sorted(
            (table for table in self.tables.values() if table.name.namespace == namespace), key=lambda table: table.name
        )

    def stored(self) -> list[Table]:
        """The tables whose rows are stored: the SHARED and USER tables."""
        return [table for table in self.tables.values() if table.is_stored]

    def streams(self) -> list[Table]:
        """The STREAM tables."""
        return [table for table in self.tables.values() if table.is_stream]

    def history(self, table: Table) -> History:
        """The columns of every schema version of a table; it grows with each ALTER."""
        return self.histories.get(table.table_id) or {table.schema_version: table.columns}

    def at_version(self, table: Table, schema_version: int) -> Table:
        """The table with the columns and names that it had at a schema version, and its present options."""
        if schema_version == table.schema_version:
            return table
        columns = self.history(table)[schema_version]
        options = table.options
        if options.subject_key is not None:
            options = replace(options, subject_key=_renamed(table, options.subject_key, columns))
        key = tuple(_renamed(table, name, columns) for name in table.key)
        return replace(table, columns=columns, key=key, options=options, schema_version=schema_version)

    async def alter_table(
        self,
        table: Table,
        columns: tuple[Column, ...],
        key: tuple[str, ...],
        options: TableOptions,
        also: Sequence[Sql] = (),
    ) -> Table:
        """Store a new schema version of a table; the caller holds what keeps the table from changing meanwhile.

        ``also`` is what changes with it, in the same transaction.
        """
        version = table.schema_version + 1
        altered = replace(table, columns=columns, key=key, options=options, schema_version=version)
        await self._database.submit(Alteration(self.altered, altered, also))
        newest = self.by_id.get(table.table_id, altered)  # who owns it may have changed meanwhile
        altered = replace(altered, owned_by=newest.owned_by, row_security=newest.row_security)
        self._remember(altered)
        self.note_changed(altered.table_id)
        return altered

    async def set_access(self, table: Table, *, owned_by: str, row_security: bool) -> Table:
        """Change who owns a table, and whether policies hide its rows; its schema version stays.

        Raises TableNotFound where the table was dropped meanwhile.
        """

        def update(conn: sqlite3.Connection) -> None:
            conn.execute(
                "UPDATE tables SET owner = ?, row_security = ? WHERE table_id = ?",
                (owned_by, row_security, table.table_id),
            )

        await self._database.write(update)
        changed = replace(self.newest(table), owned_by=owned_by, row_security=row_security)  # an ALTER may have come
        self._remember(changed)
        self.note_changed(changed.table_id)
        return changed

    async def create_namespace(self, name: str) -> None:
        """Add a namespace; raises AlreadyExists."""
        created = now_us()

        def insert(conn: sqlite3.Connection) -> None:
            try:
                conn.execute("INSERT INTO namespaces VALUES (?, ?)", (name, created))
            except sqlite3.IntegrityError as exc:
                raise AlreadyExists(f"namespace {name} exists already") from exc

        await self._database.write(insert)
        self.namespaces[name] = from_us(created)
        self.changes += 1

    async def drop_namespace(self, name: str) -> None:
        """Remove an empty namespace; raises TableInUse when it is not."""

        def delete(conn: sqlite3.Connection) -> None:
            try:
                conn.execute("DELETE FROM namespaces WHERE namespace = ?", (name,))
                conn.execute("DELETE FROM grants WHERE table_id = 0 AND namespace = ?", (name,))
            except sqlite3.IntegrityError as exc:
                raise TableInUse(f"namespace {name} is not empty") from exc

        await self._database.write(delete)
        self.namespaces.pop(name, None)
        self.changes += 1

    async def create_table(self, definition: TableDefinition, *, unfinished: bool = False) -> Table:
        """Add a table, or one that gets its name when it is complete; raises NamespaceNotFound or AlreadyExists."""
        created, home = now_us(), self._free_home(definition)
        if unfinished:
            name, home = definition.name, home or definition.name.table
            definition = replace(definition, name=TableName(name.namespace, f"{name.table}{UNFINISHED}"))
        await self._use_again(definition.name)

        def insert(conn: sqlite3.Connection) -> int:
            return insert_table(conn, definition, created, home)

        table_id = await self._database.write(insert)
        table = Table(
            name=definition.name,
            kind=definition.kind,
            columns=definition.columns,
            key=definition.key,
            options=definition.options,
            owned_by=definition.owned_by,
            table_id=table_id,
            schema_version=1,
            created_at=from_us(created),
            home=home,
        )
        self._remember(table)
        return table

    async def _use_again(self, name: TableName) -> None:
        if name in self._dropped:
            await self._tell_used_again(name)

    async def _tell_used_again(self, name: TableName) -> None:
        for listener in self._on_used_again:
            await listener(name)

    def _free_home(self, definition: TableDefinition) -> str | None:
        """What the folder of a new table is called; None for its name, which one that was renamed may have left."""
        name, per_user = definition.name, definition.per_user
        near = [table for table in self.by_id.values() if table.name.namespace == name.namespace]
        alike = [table for table in near if table.is_stored and table.per_user == per_user]
        taken = {table.home or table.name.table for table in alike}
        if name.table not in taken or not definition.is_stored:
            return None
        return next(home for number in count(2) if (home := f"{name.table}.{number}") not in taken)

    async def rename_table(self, table: Table, name: TableName, also: Sequence[Sql]) -> Table:
        """Give a table another name in its namespace; its folder stays. Raises AlreadyExists.

        ``also`` is what changes with it, in the same transaction.
        """
        await self._use_again(name)
        home = (table.home or table.name.table) if table.is_stored else None

        def update(conn: sqlite3.Connection) -> None:
            try:
                conn.execute(
                    "UPDATE tables SET table_name = ?, home = ? WHERE table_id = ?",
                    (name.table, None if home == name.table else home, table.table_id),
                )
            except sqlite3.IntegrityError as exc:
                raise AlreadyExists(f"table {name} exists already") from exc
            for text, parameters in also:
                conn.execute(text, parameters)

        await self._database.write(update)
        renamed = replace(self.newest(table), name=name, home=None if home == name.table else home)
        self.tables.pop(table.name, None)
        self._remember(renamed)
        self.note_changed(renamed.table_id)
        if not table.name.is_unfinished:
            await self._tell_used_again(table.name)  # whoever may hear it by this name is to come for the new one
        return renamed

    async def undo_create(self, table: Table) -> None:
        """Remove a table that could not be completed and that nobody has seen."""

        def delete(conn: sqlite3.Connection) -> None:
            delete_table(conn, table.table_id)
            note_drop(conn, table)

        await self._database.write(delete)
        self.forget(table)

    def forget(self, table: Table) -> None:
        """Drop from memory a table that the database does not have any more."""
        self.changes += 1
        if self.tables.get(table.name) is table:
            del self.tables[table.name]
        self._dropped.add(table.name)
        self.by_id.pop(table.table_id, None)
        self.comments.forget(table.table_id)
        self.altered.pop(table.table_id, None)
        self.changed_at.pop(table.table_id, None)
        self.histories.pop(table.table_id, None)


class Alteration:
    """The transaction that stores a new schema version; what is written behind it is told by ``altered``."""

    cost = 1

    def __init__(self, altered: dict[int, int], table: Table, also: Sequence[Sql]) -> None:
        self._altered, self._table, self._also = altered, table, also

    def apply(self, conn: sqlite3.Connection) -> None:
        """Change the table, and add its columns to the versions."""
        table = self._table
        conn.execute(
            "UPDATE tables SET key = ?, options = ?, schema_version = ? WHERE table_id = ?",
            (dump_key(table.key), dump_options(table.options), table.schema_version, table.table_id),
        )
        values = (table.table_id, table.schema_version, dump_columns(table.columns), now_us())
        conn.execute("INSERT INTO table_schemas VALUES (?, ?, ?, ?)", values)
        for text, parameters in self._also:
            conn.execute(text, parameters)
        self._altered[table.table_id] = table.schema_version

    def committed(self) -> None:
        """Nothing more: the loop's thread changes what is read."""

    def rolled_back(self) -> None:
        """The version before it counts."""
        self._altered[self._table.table_id] = self._table.schema_version - 1

    def announcements(self) -> list[Any]:
        """Nothing: whoever alters a table tells of it."""
        return []


def _renamed(table: Table, name: str, columns: Iterable[Column]) -> str:
    """What a column of the table is called among the columns of another version."""
    column = table.column(name)
    assert column is not None
    return next(other.name for other in columns if other.column_id == column.column_id)


def _near(name: str, names: Iterable[str]) -> str | None:
    near = difflib.get_close_matches(name, list(names), n=1)
    return f"did you mean {near[0]}?" if near else None
