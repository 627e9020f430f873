"""Functions of PostgreSQL that ask the catalogue or the session, for SQLite: who asks, what an OID is called, who may.

Each is registered as ``k_<name>``. They read the names of a ``Snapshot`` and what is told of the session, plain values
made before the query ran, because they run in a thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from kalam.errors import InvalidValue, NamespaceNotFound, NotFound, TableNotFound
from kalam.names import TEMPORARY_NAMESPACE
from kalam_pg.catalogue import pg_types
from kalam_pg.catalogue.arrays import dumped
from kalam_pg.catalogue.described import Described
from kalam_pg.catalogue.functions import now
from kalam_pg.catalogue.relations import PG_CATALOG
from kalam_pg.catalogue.snapshot import Names
from kalam_pg.catalogue.table_rows import index_definition, key_columns, key_names
from kalam_pg.catalogue.text_functions import name_parts, quote_ident
from kalam_pg.settings import VERSION, SessionSettings

STARTED: Final = now()
_WRITABLE: Final = 28
"""What ``pg_relation_is_updatable`` gives for what takes INSERT, UPDATE and DELETE."""


class Asked(msgspec.Struct):
    """A session as the functions see it; ``changed`` takes what ``set_config`` sets.

    ``temporary`` is the namespace of its temporary tables, if it has any. ``privileges`` has what the user may do by a
    table's id, ``creates`` the namespaces in which she may make tables.
    """

    user: str
    database: str
    backend_pid: int
    search_path: tuple[str, ...]
    temporary: str | None
    settings: SessionSettings
    privileges: Mapping[int, frozenset[str]]
    creates: frozenset[str]
    admin: bool
    address: str | None
    changed: list[tuple[str, str]]


class Asking:
    """The functions over one snapshot's names; ``asked`` is the session of the query that runs."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self.asked: Asked | None = None

    @property
    def _session(self) -> Asked:
        assert self.asked is not None
        return self.asked

    # Names and OIDs.

    def table(self, oid: Any) -> Described | None:
        """A table by its OID."""
        return self._names.tables.get(oid) if isinstance(oid, int) else None

    def _path(self) -> tuple[str, ...]:
        """Where names without a schema are looked for."""
        own = self._session.temporary
        return (*(() if own is None else (own,)), PG_CATALOG, *self._session.search_path)

    def reg(self, kind: str, value: Any) -> int:
        """The OID of what a text names; raises TableNotFound or NotFound."""
        if isinstance(value, int) or str(value).isdigit():
            return int(value)
        if str(value) == "-":
            return 0
        found = self._found(kind, str(value))
        if found is not None:
            return found
        if kind == "regclass":
            raise TableNotFound(f'relation "{value}" does not exist')
        if kind == "regnamespace":
            raise NamespaceNotFound(f'schema "{value}" does not exist')
        raise NotFound(f'{kind.removeprefix("reg")} "{value}" does not exist')

    def _found(self, kind: str, text: str) -> int | None:
        if kind == "regtype":
            known = pg_types.parsed(text)
            return pg_types.by_name()[known[0]].oid if known is not None else None
        parts = name_parts(text)
        if kind == "regclass":
            return self._relation(parts)
        listed = {"regnamespace": self._names.namespaces, "regrole": self._names.roles}.get(kind)
        if listed is not None:
            return next((oid for oid, name in listed.items() if name == parts[-1]), None)
        calls = (call for known in pg_types.by_name().values() for call in known.calls)
        return next((oid for oid, name in calls if name == parts[-1]), None)

    def _relation(self, parts: list[str]) -> int | None:
        schemas = self._path() if len(parts) == 1 else parts[-2:-1]
        if schemas == [TEMPORARY_NAMESPACE]:
            schemas = [self._session.temporary or TEMPORARY_NAMESPACE]
        for schema in schemas:
            table = self._names.by_name.get((schema, parts[-1]))
            if table is not None:
                return table.oid
            for oid, keyed in self._names.indexes.items():
                if keyed.schema == schema and keyed.key_name == parts[-1]:
                    return oid
        return None

    def reg_out(self, kind: str, oid: int) -> str:
        """What a value of one of the reg* types is shown as."""
        shown = self._shown(kind, oid)
        return shown if shown is not None else "-" if oid == 0 else str(oid)

    def _shown(self, kind: str, oid: int) -> str | None:
        if kind == "regtype":
            return pg_types.formatted(oid, None) if oid in pg_types.by_oid() else None
        if kind == "regclass":
            table, name = self.table(oid), None
            if table is not None:
                name = table.name
            elif (table := self._names.indexes.get(oid)) is not None:
                name = table.key_name
            if table is None or name is None:
                return None
            qualified = () if self._sees(table) else (table.schema,)
            return ".".join(quote_ident(part) for part in (*qualified, name))
        if kind == "regnamespace":
            name = self._names.namespaces.get(oid)
            return None if name is None else quote_ident(name)
        if kind == "regrole":
            return self._names.roles.get(oid)
        calls = (call for known in pg_types.by_name().values() for call in known.calls)
        return next((name for number, name in calls if number == oid and oid), None)

    def found(self, kind: str) -> Callable[[Any], int | None]:
        """``to_regclass`` and the like: NULL where there is nothing."""

        def look(text: Any) -> int | None:
            try:
                return self._found(kind, str(text))
            except InvalidValue:
                return None

        return look

    def _sees(self, table: Described) -> bool:
        """Whether a name without a schema means this table."""
        first = next((each for each in self._path() if (each, table.name) in self._names.by_name), None)
        return first == table.schema

    # What definitions look like.

    def table_is_visible(self, oid: int) -> int | None:
        """Whether a table or index needs no schema before its name."""
        table = self.table(oid) or self._names.indexes.get(oid)
        return None if table is None else int(table.schema in self._path())

    def constraint_definition(self, oid: int, pretty: int = 0) -> str | None:
        """``PRIMARY KEY (…)``."""
        table = self._names.constraints.get(oid)
        return None if table is None else f"PRIMARY KEY ({key_names(table)})"

    def index_definition(self, oid: int, place: int = 0, pretty: int = 0) -> str | None:
        """The whole of an index, or one of its columns."""
        table = self._names.indexes.get(oid)
        if table is None:
            return None
        if place == 0:
            return index_definition(table, qualified=not (pretty and self._sees(table)))
        columns = key_columns(table)
        return quote_ident(columns[place - 1].name) if 0 < place <= len(columns) else ""

    def view_definition(self, oid: int, pretty: int = 0) -> str | None:
        """What a view is made of."""
        table = self.table(oid)
        return table.definition if table is not None else None

    def description(self, oid: int, catalogue: str | None = None) -> str | None:
        """The comment of a table."""
        table = self.table(oid)
        return table.comment if table is not None and catalogue in (None, "pg_class") else None

    def column_description(self, oid: int, place: int) -> str | None:
        """The comment of a column."""
        table = self.table(oid)
        return table.columns[place - 1].comment if table is not None and 0 < place <= len(table.columns) else None

    def user_name(self, oid: int) -> str:
        """What ``pg_get_userbyid`` gives."""
        return self._names.roles.get(oid) or f"unknown (OID={oid})"

    def updatable(self, oid: Any, triggers: int = 0) -> int:
        """What may be done to a relation."""
        table = self.table(oid)
        return _WRITABLE if table is not None and table.writable else 0

    def column_updatable(self, oid: Any, place: int, triggers: int = 0) -> int:
        """Whether a column may be written."""
        table = self.table(oid)
        if table is None or not self.updatable(oid) or not 0 < place <= len(table.columns):
            return 0
        return int(not table.columns[place - 1].generated)

    # Who may.

    def _asks(self, arguments: tuple[Any, ...], count: int) -> tuple[bool, tuple[Any, ...]]:
        """Whether the session's own user is asked about, and the arguments without the user."""
        if len(arguments) <= count:
            return True, arguments
        who = arguments[0]
        name = self._names.roles.get(who) if isinstance(who, int) else str(who)
        return name in (self._session.user, "public"), arguments[1:]

    def has_table_privilege(self, *arguments: Any) -> int | None:
        """``has_table_privilege([user,] table, privilege)``; also with a column between."""
        own, (relation, *_, wanted) = self._asks(arguments, 2)
        return self._has(own, relation, str(wanted))

    def has_column_privilege(self, *arguments: Any) -> int | None:
        """``has_column_privilege([user,] table, column, privilege)``: there are no privileges on columns alone."""
        own, (relation, *_, wanted) = self._asks(arguments, 3)
        return self._has(own, relation, str(wanted))

    def _has(self, own: bool, relation: Any, wanted: str) -> int | None:
        table = self.table(relation if isinstance(relation, int) else self.reg("regclass", relation))
        if table is None:
            return None
        kinds = {each.strip().upper().removesuffix(" WITH GRANT OPTION") for each in wanted.split(",")}
        if not table.of:
            return int("SELECT" in kinds)
        held = self._session.privileges.get(table.of, frozenset())
        if not table.writable:
            held = held & {"SELECT"}
        return int((own or self._session.admin) and not kinds.isdisjoint(held))

    def has_schema_privilege(self, *arguments: Any) -> int | None:
        """``has_schema_privilege([user,] schema, privilege)``."""
        own, (schema, wanted) = self._asks(arguments, 2)
        oid = schema if isinstance(schema, int) else self.reg("regnamespace", schema)
        name = self._names.namespaces.get(oid)
        if name is None:
            return None
        kinds = {each.strip().upper() for each in str(wanted).split(",")}
        return int("USAGE" in kinds or (own and "CREATE" in kinds and name in self._session.creates))

    def has_database_privilege(self, *arguments: Any) -> int:
        """``has_database_privilege([user,] database, privilege)``: to connect, which one has done."""
        return int("CONNECT" in str(arguments[-1]).upper())

    def has_role(self, *arguments: Any) -> int:
        """``pg_has_role([user,] role, privilege)``."""
        _, (role, _) = self._asks(arguments, 2)
        name = self._names.roles.get(role) if isinstance(role, int) else str(role)
        return int(self._session.admin or name == self._session.user)

    # The session.

    def current_schema(self) -> str | None:
        """The first namespace of the search path that there is."""
        there = self._names.namespaces.values()
        return next((name for name in self._session.search_path if name in there), None)

    def current_schemas(self, implicit: int) -> str:
        """All of them."""
        there = set(self._names.namespaces.values())
        return dumped(name for name in (self._path() if implicit else self._session.search_path) if name in there)

    def current_setting(self, name: str, missing_ok: int = 0) -> str | None:
        """A setting's value; raises NotFound."""
        try:
            return self._session.settings.show(name)
        except NotFound:
            if missing_ok:
                return None
            raise

    def set_config(self, name: str, value: Any, local: int) -> str:
        """Set a setting, once the query has ended."""
        if not local:
            self._session.changed.append((name, str(value)))
        return str(value)

    def functions(self) -> Mapping[str, Callable[..., Any]]:
        """All of them, by their names; with NULL for an argument they give NULL."""
        never, nothing = (lambda *_: 0), (lambda *_: None)
        return {
            "reg": self.reg,
            "reg_out": self.reg_out,
            **{f"to_{kind}": self.found(kind) for kind in pg_types.NAMED},
            "pg_table_is_visible": self.table_is_visible,
            **dict.fromkeys(_VISIBLE, lambda oid: 1),
            "pg_get_constraintdef": self.constraint_definition,
            "pg_get_indexdef": self.index_definition,
            "pg_get_viewdef": lambda relation, *_: self.view_definition(self.reg("regclass", relation)),
            "pg_get_expr": lambda text, *_: text,
            "obj_description": self.description,
            "col_description": self.column_description,
            "pg_get_userbyid": self.user_name,
            "pg_relation_is_updatable": self.updatable,
            "pg_column_is_updatable": self.column_updatable,
            "has_table_privilege": self.has_table_privilege,
            "has_any_column_privilege": self.has_table_privilege,
            "has_column_privilege": self.has_column_privilege,
            "has_schema_privilege": self.has_schema_privilege,
            "has_database_privilege": self.has_database_privilege,
            **dict.fromkeys(_PERMITTED, lambda *_: 1),
            **dict.fromkeys(_FORBIDDEN, never),
            "pg_has_role": self.has_role,
            "current_schema": self.current_schema,
            "current_schemas": self.current_schemas,
            **dict.fromkeys(("current_database", "current_catalog"), lambda: self._session.database),
            **dict.fromkeys(_USERS, lambda: self._session.user),
            "current_setting": self.current_setting,
            "set_config": self.set_config,
            "version": lambda: VERSION,
            "pg_backend_pid": lambda: self._session.backend_pid,
            **dict.fromkeys(("pg_client_encoding", "getdatabaseencoding"), lambda: "UTF8"),
            **dict.fromkeys(("pg_postmaster_start_time", "pg_conf_load_time"), lambda: STARTED),
            "inet_client_addr": lambda: self._session.address,
            "pg_export_snapshot": lambda: "00000003-00000001-1",
            **dict.fromkeys(("txid_current", "pg_current_xact_id"), lambda: 1),
            **dict.fromkeys(("txid_current_snapshot", "pg_current_snapshot"), lambda: "1:1:"),
            "pg_relation_filenode": lambda oid: oid,
            "pg_describe_object": lambda classid, oid, part: None,
            "pg_tablespace_location": lambda oid: "",
            "pg_get_function_arguments": lambda oid: "",
            **dict.fromkeys(_ZERO, never),
            **dict.fromkeys(_NOTHING, nothing),
        }


_USERS: Final = ("current_user", "session_user", "current_role", "user")
_VISIBLE: Final = tuple(
    f"pg_{kind}_is_visible"
    for kind in (
        *("type", "function", "operator", "opclass", "opfamily", "collation", "conversion", "statistics_obj"),
        *("ts_config", "ts_dict", "ts_parser", "ts_template"),
    )
)
_PERMITTED: Final = ("has_function_privilege", "has_type_privilege", "has_language_privilege")
_FORBIDDEN: Final = (
    *("has_sequence_privilege", "has_tablespace_privilege", "has_foreign_data_wrapper_privilege"),
    *("has_server_privilege", "has_parameter_privilege"),
)
_ZERO: Final = (
    *("pg_is_in_recovery", "pg_is_wal_replay_paused", "pg_is_other_temp_schema", "pg_relation_is_publishable"),
    *("pg_jit_available", "row_security_active", "pg_in_recovery", "pg_my_temp_schema", "pg_stat_get_numscans"),
    *("pg_stat_get_live_tuples", "pg_stat_get_dead_tuples", "pg_stat_get_tuples_inserted"),
    *("pg_stat_get_tuples_returned", "pg_stat_get_tuples_fetched", "pg_stat_get_blocks_fetched"),
    *("pg_stat_get_blocks_hit", "random", "pg_get_replica_identity_index"),
)
_NOTHING: Final = (
    *("shobj_description", "pg_get_partkeydef", "pg_get_ruledef", "pg_get_serial_sequence"),
    *("pg_get_functiondef", "pg_get_function_identity_arguments", "pg_get_function_result", "pg_get_triggerdef"),
    *("pg_get_statisticsobjdef", "pg_get_statisticsobjdef_columns", "pg_get_partition_constraintdef"),
    *("pg_relation_size", "pg_table_size", "pg_total_relation_size", "pg_indexes_size", "pg_database_size"),
    *("pg_tablespace_size", "pg_relation_filepath", "pg_current_wal_lsn", "pg_last_wal_receive_lsn", "to_char"),
    *("pg_last_wal_replay_lsn", "pg_get_function_sqlbody", "pg_collation_for", "pg_current_logfile", "row_to_json"),
    *("inet_server_addr", "inet_server_port", "inet_client_port", "pg_current_xact_id_if_assigned"),
    *("pg_stat_get_last_autovacuum_time", "pg_last_xact_replay_timestamp", "pg_index_has_property"),
    *("pg_indexam_has_property", "pg_index_column_has_property", "pg_advisory_unlock_all", "pg_stat_clear_snapshot"),
)
"""What Kalam does not have or does not tell: NULL."""
