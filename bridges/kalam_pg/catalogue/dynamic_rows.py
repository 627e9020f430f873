"""Relations of which every session sees other rows: its settings, itself, and what its user may do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from kalam_pg.catalogue import oids
from kalam_pg.catalogue.asking import STARTED, Asked
from kalam_pg.catalogue.functions import now
from kalam_pg.catalogue.snapshot import Names
from kalam_pg.settings import KNOWN

Rows = list[dict[str, Any]]
_KINDS: Final = {"duration": "integer", "bool": "bool"}


def _settings(asked: Asked, names: Names) -> Rows:
    return [
        {
            "name": known.name,
            "setting": value,
            "unit": "ms" if known.kind == "duration" else None,
            "category": "Kalam",
            "short_desc": described,
            "context": "internal" if known.fixed else "user",
            "vartype": _KINDS.get(known.kind, "string"),
            "source": "default" if value == known.default else "session",
            "boot_val": known.default,
            "reset_val": known.default,
            "pending_restart": 0,
        }
        for name, value, described in asked.settings.all()
        for known in (KNOWN[name.lower()],)
    ]


def _activity(asked: Asked, names: Names) -> Rows:
    return [
        {
            "datid": oids.DATABASE,
            "datname": asked.database,
            "pid": asked.backend_pid,
            "usename": asked.user,
            "application_name": asked.settings.show("application_name"),
            "client_addr": asked.address,
            "backend_start": STARTED,
            "query_start": now(),
            "state": "active",
            "backend_type": "client backend",
        }
    ]


def _privileges(asked: Asked, names: Names) -> Rows:
    return [
        {
            "grantor": table.owner,
            "grantee": asked.user,
            "table_catalog": asked.database,
            "table_schema": table.schema,
            "table_name": table.name,
            "privilege_type": privilege,
            "is_grantable": "NO",
            "with_hierarchy": "YES" if privilege == "SELECT" else "NO",
        }
        for table in names.tables.values()
        for privilege in sorted(asked.privileges.get(table.of, ()))
        if table.of
    ]


DYNAMIC: Final[Mapping[str, Callable[[Asked, Names], Rows]]] = {
    "pg_settings": _settings,
    "pg_stat_activity": _activity,
    "information_schema.table_privileges": _privileges,
    "information_schema.role_table_grants": _privileges,
}
"""What makes their rows."""
