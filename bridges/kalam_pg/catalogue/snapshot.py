"""The catalogue as one user sees it, in an SQLite database in memory.

Law: what is in it is what the user's ``Caller`` shows, and nothing else is ever put there. It is made for one user and
one name of a database, and brought up to date table by table before it is asked: a table that has changed is another
object, so telling that costs a comparison a table, and one that was created costs its own rows and not all.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, Final, NamedTuple

import msgspec

from kalam.access.model import Policy
from kalam.engine import Shown
from kalam.names import SYSTEM_NAMESPACE
from kalam.schema import SelectOptions, Table, ViewOptions
from kalam_pg.catalogue import dependencies, oids, relations, server_rows, standard_rows, table_rows
from kalam_pg.catalogue.described import Described, described_system, described_table
from kalam_pg.catalogue.relations import OF, SERVERS_OWN
from kalam_pg.catalogue.table_rows import Row

FIRST_ROLE_NAME: Final = "admin"
_NAMESPACES: Final = -1
_ROLES: Final = -2
_SYSTEM: Final = -3
_DATABASE: Final = -4
"""The ``_of`` of rows that tell of no table and may change."""
_TOLD: Final = frozenset(
    {
        *("pg_class", "pg_attribute", "pg_attrdef", "pg_description", "pg_index", "pg_constraint", "pg_views"),
        *("pg_depend", "pg_rewrite"),
        *("pg_matviews", "pg_tables", "pg_stat_all_tables", "pg_stat_user_tables", "pg_stat_all_indexes"),
        *(
            "pg_stat_user_indexes",
            "pg_indexes",
            "pg_policy",
            "pg_policies",
            "information_schema.tables",
            "information_schema.columns",
        ),
        *("information_schema.views", "information_schema.table_constraints", "information_schema.key_column_usage"),
        *("information_schema.columns", "information_schema.constraint_column_usage"),
    }
)
"""The relations that have rows of a table."""
_TOLD_OF_ROLES: Final = (
    *("pg_authid", "pg_roles", "pg_user", "pg_shadow", "pg_group", "pg_auth_members"),
    *("information_schema.enabled_roles", "information_schema.applicable_roles"),
)
_TOLD_OF_NAMESPACES: Final = ("pg_namespace", "information_schema.schemata")


class Told(NamedTuple):
    """What a table's rows are made of."""

    table: Table
    definition: str | None
    policies: Sequence[Policy]
    comments: Mapping[int, str]
    reads: Sequence[int]


class Names(msgspec.Struct):
    """What the functions look up: tables by OID and name, keys by the OIDs of index and constraint, roles."""

    tables: dict[int, Described]
    by_name: dict[tuple[str, str], Described]
    indexes: dict[int, Described]
    constraints: dict[int, Described]
    namespaces: dict[int, str]
    roles: dict[int, str]

    def add(self, table: Described) -> None:
        """Know a table."""
        self.tables[table.oid] = table
        self.by_name[table.schema, table.name] = table
        if table.key:
            self.indexes[table.part(oids.Part.INDEX)] = table
            self.constraints[table.part(oids.Part.CONSTRAINT)] = table

    def forget(self, table: Described) -> None:
        """Know a table no more."""
        self.tables.pop(table.oid, None)
        if self.by_name.get((table.schema, table.name)) is table:
            del self.by_name[table.schema, table.name]
        self.indexes.pop(table.part(oids.Part.INDEX), None)
        self.constraints.pop(table.part(oids.Part.CONSTRAINT), None)


def _reads(table: Table) -> Sequence[int]:
    """The tables that a view reads, by their ids."""
    match table.options:
        case SelectOptions():
            return sorted({use.table_id for use in table.options.uses if use.table_id})
        case ViewOptions():
            return sorted({source.table_id for source in table.options.reads if source.table_id})
    return ()


def _insert(conn: sqlite3.Connection, rows: Iterable[Row], of: int) -> None:
    known, made = relations.relations(), defaultdict(list)
    for stored_as, values in rows:
        made[stored_as].append(known[stored_as].row(values, of))
    for stored_as, tuples in made.items():
        places = ", ".join("?" * len(tuples[0]))
        conn.executemany(f'INSERT INTO "{stored_as}" VALUES ({places})', tuples)


@cache
def _template() -> sqlite3.Connection:
    """What every snapshot begins with, but for what names the database."""
    conn = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
    conn.executescript(relations.definition())
    conn.execute("BEGIN")
    _insert(conn, server_rows.rows(), SERVERS_OWN)
    for relation in server_rows.own_relations():
        _insert(conn, table_rows.rows(relation), SERVERS_OWN)
    for stored_as in _TOLD:
        conn.execute(f'CREATE INDEX "{stored_as} of" ON "{stored_as}" ({OF})')
    conn.execute("COMMIT")
    return conn


class Snapshot:
    """One user's catalogue. All of it is blocking, and for one thread at a time."""

    def __init__(self, database: str) -> None:
        self._database = database
        self.conn = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
        _template().backup(self.conn)
        self._held: dict[int, tuple[Told, Described]] = {}
        self._shown: Shown | None = None
        self.names = Names({}, {}, {}, {}, {}, {})
        for relation in server_rows.own_relations():
            self.names.add(relation)
            _insert(self.conn, standard_rows.rows(relation, database), SERVERS_OWN)
        self._fill_database()

    def update(self, shown: Shown) -> None:
        """Bring it up to what the user is shown now."""
        if self._shown is not None and shown == self._shown:
            return
        self.conn.execute("BEGIN")
        before = self._shown
        if before is None or before.roles != shown.roles:
            self._replace(_ROLES, self._roles(shown), _TOLD_OF_ROLES)
        if before is None or before.namespaces != shown.namespaces:
            self._replace(_NAMESPACES, self._namespaces(shown), _TOLD_OF_NAMESPACES)
        if before is None or before.system != shown.system:
            self._replace(_SYSTEM, self._system(shown), _TOLD)
        self._update_tables(shown)
        self.conn.execute("COMMIT")
        self._shown = shown

    def _update_tables(self, shown: Shown) -> None:
        visible = {table.table_id for table in shown.tables}
        there = {
            table.table_id: Told(
                table,
                shown.definitions.get(table.table_id),
                shown.policies.get(table.table_id, ()),
                shown.comments.get(table.table_id, {}),
                [each for each in _reads(table) if each in visible],
            )
            for table in shown.tables
        }
        for table_id, (told, described) in list(self._held.items()):
            if there.get(table_id) == told:
                del there[table_id]
                continue
            for stored_as in _TOLD:
                self.conn.execute(f'DELETE FROM "{stored_as}" WHERE {OF} = ?', (table_id,))
            self.names.forget(described)
            del self._held[table_id]
        for table_id, told in there.items():
            described = described_table(told.table, told.definition, told.policies, told.comments, told.reads)
            self._add(described, table_id)
            self._held[table_id] = told, described

    def _add(self, table: Described, of: int) -> None:
        self.names.add(table)
        _insert(self.conn, table_rows.rows(table), of)
        _insert(self.conn, dependencies.rows(table), of)
        _insert(self.conn, standard_rows.rows(table, self._database), of)

    def refill(self, stored_as: str, rows: Sequence[dict[str, Any]]) -> None:
        """Give a relation of which every session sees other rows those of one."""
        self.conn.execute(f'DELETE FROM "{stored_as}"')
        _insert(self.conn, ((stored_as, row) for row in rows), SERVERS_OWN)

    def _replace(self, of: int, rows: Iterable[Row], told: Iterable[str]) -> None:
        """Put rows in the place of those of which ``of`` is told, in the relations that have such."""
        for stored_as in told:
            self.conn.execute(f'DELETE FROM "{stored_as}" WHERE {OF} = ?', (of,))
        _insert(self.conn, rows, of)

    def _namespaces(self, shown: Shown) -> Iterable[Row]:
        self.names.namespaces = {}
        for name in (*relations.SCHEMAS, SYSTEM_NAMESPACE, *shown.namespaces):
            oid = oids.of_name("namespace", name)
            self.names.namespaces[oid] = name
            if name not in relations.SCHEMAS:
                yield "pg_namespace", {"oid": oid, "nspname": name, "nspowner": oids.FIRST_ROLE}
            yield (
                "information_schema.schemata",
                {"catalog_name": self._database, "schema_name": name, "schema_owner": FIRST_ROLE_NAME},
            )

    def _system(self, shown: Shown) -> Iterable[Row]:
        for name, fields in shown.system.items():
            table = described_system(name, fields)
            self.names.add(table)
            yield from table_rows.rows(table)
            yield from standard_rows.rows(table, self._database)

    def _roles(self, shown: Shown) -> Iterable[Row]:
        self.names.roles = {}
        numbers = {role.name: table_rows.owner_oid(role.name) for role in shown.roles}
        for role in shown.roles:
            oid = numbers[role.name]
            self.names.roles[oid] = role.name
            told = {
                "oid": oid,
                "rolname": role.name,
                "rolsuper": int(role.admin),
                "rolinherit": 1,
                "rolcreaterole": int(role.admin),
                "rolcreatedb": 0,
                "rolcanlogin": int(role.is_user),
                "rolreplication": 0,
                "rolconnlimit": -1,
                "rolbypassrls": int(role.admin),
            }
            yield "pg_authid", told
            yield "pg_roles", told
            yield "information_schema.enabled_roles", {"role_name": role.name}
            if role.is_user:
                user = {"usename": role.name, "usesysid": oid, "usecreatedb": 0, "usesuper": int(role.admin)}
                for view in ("pg_user", "pg_shadow"):
                    yield view, {**user, "userepl": 0, "usebypassrls": int(role.admin)}
            else:
                yield "pg_group", {"groname": role.name, "grosysid": oid, "grolist": "[]"}
            for other in role.member_of:
                if other in numbers:
                    told = {"roleid": numbers[other], "member": oid, "grantor": oids.FIRST_ROLE, "admin_option": 0}
                    yield "pg_auth_members", told
                    named = {"grantee": role.name, "role_name": other, "is_grantable": "NO"}
                    yield "information_schema.applicable_roles", named

    def _fill_database(self) -> None:
        row = {
            "oid": oids.DATABASE,
            "datname": self._database,
            "datdba": oids.FIRST_ROLE,
            "encoding": 6,
            "datlocprovider": "c",
            "datistemplate": 0,
            "datallowconn": 1,
            "datconnlimit": -1,
            "datfrozenxid": 0,
            "datminmxid": 0,
            "dattablespace": 1663,
            "datcollate": "C",
            "datctype": "C",
        }
        named = {"catalog_name": self._database}
        listed: list[Row] = [("pg_database", row), ("information_schema.information_schema_catalog_name", named)]
        listed.append(("pg_stat_database", {"datid": oids.DATABASE, "datname": self._database, "numbackends": 1}))
        _insert(self.conn, listed, _DATABASE)

    def close(self) -> None:
        """Give its memory back."""
        self.conn.close()
