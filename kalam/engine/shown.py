"""What there is for somebody, for a door that describes it all: namespaces, tables, system tables, users and roles.

It tells nothing that SHOW and DESCRIBE would not tell the same user.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import pyarrow as pa

from kalam.access.identity import Identity
from kalam.access.model import ADMIN, Policy
from kalam.engine.gate import Gate
from kalam.engine.session import Session
from kalam.query.queries import Queries
from kalam.query.selects import present_text
from kalam.schema import SelectOptions, Table, ViewOptions
from kalam.storage.log.catalogue import Catalogue

Fields = Sequence[tuple[str, pa.DataType]]


class ShownRole(msgspec.Struct, frozen=True):
    """A user or a role: ``member_of`` are the roles that it is in itself."""

    name: str
    admin: bool
    is_user: bool
    member_of: tuple[str, ...] = ()


class Shown(msgspec.Struct, frozen=True):
    """What exists for one user at one moment. Two are equal where nothing differs.

    ``definitions`` are the SELECTs of views, by their table's ids, for owner and administrators, and so are
    ``policies``; ``comments`` what is said of tables, by their ids, and there of columns, by theirs (0: of the table).
    """

    namespaces: tuple[str, ...]
    tables: tuple[Table, ...]
    definitions: Mapping[int, str]
    policies: Mapping[int, tuple[Policy, ...]]
    comments: Mapping[int, Mapping[int, str]]
    system: Mapping[str, Fields]
    roles: tuple[ShownRole, ...]


def shown(gate: Gate, catalogue: Catalogue, queries: Queries, session: Session) -> Shown:
    """What there is for a session: what exists for its user, and its own temporary tables."""
    identity = session.identity
    own = [] if session.temporary is None else [state.table for state in session.temporary.tables.values()]
    tables = gate.visible(identity, catalogue.tables.values())
    there, book = {table.table_id for table in tables}, gate.rights.book
    return Shown(
        tuple(sorted({*gate.namespaces(identity), *(table.name.namespace for table in own)})),
        (*tables, *own),
        {
            table.table_id: text
            for table in tables
            if gate.owns(identity, table) and (text := _definition(table, catalogue)) is not None
        },
        {table.table_id: book.policies[table.table_id] for table in tables if _told_of_policies(gate, table, identity)},
        {table_id: said for table_id, said in catalogue.comments.by_table().items() if table_id in there},
        queries.system_fields(),
        tuple(_roles(gate, tables, identity)),
    )


def _told_of_policies(gate: Gate, table: Table, identity: Identity) -> bool:
    return table.table_id in gate.rights.book.policies and gate.owns(identity, table)


def _definition(table: Table, catalogue: Catalogue) -> str | None:
    """The SELECT of a view."""
    if isinstance(table.options, SelectOptions):
        return present_text(table.options, catalogue)
    return table.options.query if isinstance(table.options, ViewOptions) else None


def _roles(gate: Gate, tables: Sequence[Table], identity: Identity) -> list[ShownRole]:
    """Everybody for administrators; for others themselves, their roles, and whom the tables that they see belong to."""
    book, me = gate.rights.book, identity.rights_of
    if not gate.rights.on:
        names = {ADMIN, me}
    elif gate.administers(identity):
        names = {*book.users, *book.roles}
    else:
        names = {me, *gate.rights.roles(me), *(table.owned_by for table in tables)}
    return [
        ShownRole(
            name,
            gate.rights.administers(name) if gate.rights.on else name in (ADMIN, me),
            name not in book.roles,
            tuple(sorted(role for role, members in book.members.items() if name in members and role in names)),
        )
        for name in sorted(names)
    ]
