"""GRANT and REVOKE of privileges, and who owns a table."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from kalam.access.book import Book
from kalam.access.identity import Identity
from kalam.access.model import ALL_PRIVILEGES, PUBLIC, Grant, Narrowed, Privilege
from kalam.engine.gate import Gate
from kalam.engine.session import Request
from kalam.errors import NotFound, PermissionDenied, Unsupported
from kalam.names import TableName
from kalam.query.results import Result, list_result
from kalam.schema import Table
from kalam.sql.access.statements import (
    GrantPrivileges,
    RevokePrivileges,
    SetOwner,
    ShowGrants,
)
from kalam.sql.text.statements import TableRef
from kalam.storage.log.catalogue import Catalogue

TEXT = pa.string()
GRANTS_FIELDS = (("grantee", TEXT), ("privilege", TEXT), ("namespace", TEXT), ("table_name", TEXT))
ALL = "ALL"


class Grants:
    """Carries them out. Whoever may do less by one is cut off before it is answered."""

    def __init__(self, book: Book, gate: Gate, catalogue: Catalogue) -> None:
        self._book, self._gate, self._catalogue = book, gate, catalogue

    # Privileges.

    async def grant(self, statement: GrantPrivileges, request: Request) -> Result:
        """GRANT of privileges on a table or a namespace."""
        async with self._book.changing:
            grants, named = self._grants(statement, request)
            check_grantees(self._book, statement.grantees)
            if any(grant.privilege is Privilege.JETSTREAM for grant in grants) and PUBLIC in statement.grantees:
                raise Unsupported("JETSTREAM is for a trusted service: grant it to a user or role")
            await self._book.grant(statement.grantees, grants)
        hint = "; connections that are open hear its subjects from their next login on" if self._gate.rights.on else ""
        return Result(message=f"{_words(grants)} on {named} granted to {', '.join(statement.grantees)}{hint}")

    async def revoke(self, statement: RevokePrivileges, request: Request) -> Result:
        """REVOKE of privileges on a table or a namespace."""
        async with self._book.changing:
            grants, named = self._grants(statement, request)
            check_grantees(self._book, statement.grantees)
            await self._book.revoke(statement.grantees, grants)
        tables = None if isinstance(statement.on, str) else frozenset(grant.table_id for grant in grants)
        await self._book.narrowed(Narrowed(users=self._users(statement.grantees), tables=tables))
        return Result(message=f"{_words(grants)} on {named} revoked from {', '.join(statement.grantees)}")

    def _grants(self, statement: GrantPrivileges | RevokePrivileges, request: Request) -> tuple[frozenset[Grant], str]:
        """What is given or taken, and on what, in words; raises what keeps the caller from it."""
        names = ALL_PRIVILEGES if statement.privileges == (ALL,) else frozenset(map(Privilege, statement.privileges))
        if isinstance(statement.on, str):
            return self._on_namespace(names, statement.on, request), f"namespace {statement.on}"
        table = self._owned(statement.on, request, "grant on it")
        if Privilege.CREATE in names:
            raise Unsupported("CREATE is granted on a namespace: GRANT CREATE ON NAMESPACE n TO …")
        if Privilege.JETSTREAM in names:
            self._check_jetstream(table, request.session.identity)
        return frozenset(Grant(name, table_id=table.table_id) for name in names), f"table {table.name}"

    def _on_namespace(self, names: frozenset[Privilege], namespace: str, request: Request) -> frozenset[Grant]:
        self._gate.namespace(namespace, request.session.identity)
        self._gate.administrator(request.session.identity, "what holds for a namespace is granted by administrators")
        if Privilege.JETSTREAM in names:
            raise Unsupported("JETSTREAM is granted on a STREAM table")
        return frozenset(Grant(name, namespace=namespace) for name in names)

    def _check_jetstream(self, table: Table, identity: Identity) -> None:
        self._gate.administrator(identity, "JETSTREAM is granted by administrators: who has it can forge events")
        if table.is_stored:
            raise Unsupported(f"JETSTREAM is for STREAM tables: {table.name} shares one stream with other tables")
        if table.row_security:
            raise Unsupported(f"JETSTREAM shows every row, and policies hide some of {table.name}")
        if not table.is_stream:
            raise Unsupported(f"JETSTREAM is for streams of Kalam's own: that of {table.name} is others'")

    def _users(self, grantees: Iterable[str]) -> frozenset[str] | None:
        """The users whom grantees mean; None for all."""
        if PUBLIC in grantees:
            return None
        return frozenset().union(*map(self._book.members_of, grantees))

    def _owned(self, ref: TableRef, request: Request, what: str) -> Table:
        return self._gate.owned(ref, request.session, what)

    # Owners.

    async def set_owner(self, statement: SetOwner, request: Request) -> Result:
        """ALTER TABLE … OWNER TO: to anybody by an administrator, to one's own role by an owner."""
        identity = request.session.identity
        async with self._book.changing:
            table = self._owned(statement.ref, request, "give it away")
            check_grantees(self._book, (statement.owner,))
            if statement.owner == PUBLIC:
                raise Unsupported("a table is owned by a user or a role")
            own = (identity.rights_of, *self._gate.rights.roles(identity.rights_of))
            if statement.owner not in own and not self._gate.administers(identity):
                raise PermissionDenied("an owner gives a table to a role of their own; administrators to anybody")
            before = table.owned_by
            await self._catalogue.set_access(table, owned_by=statement.owner, row_security=table.row_security)
        ended = Narrowed(users=self._book.members_of(before), tables=frozenset((table.table_id,)))
        await self._book.narrowed(ended)
        return Result(message=f"{table.name} is owned by {statement.owner}")

    # What there is.

    def show_grants(self, statement: ShowGrants, request: Request) -> Result:
        """SHOW GRANTS: all for administrators, else one's own and those on one's own tables."""
        identity = request.session.identity
        own = {identity.rights_of, *self._gate.rights.roles(identity.rights_of), PUBLIC}
        if statement.grantee is not None:
            check_grantees(self._book, (statement.grantee,))
        on = self._object(statement.on, request)
        rows: list[tuple[str, str, str | None, str | None]] = []
        for grantee, grants in sorted(self._book.grants.items()):
            if statement.grantee not in (None, grantee):
                continue
            for grant in sorted(grants):
                table = self._catalogue.by_id.get(grant.table_id)
                if not self._shown(identity, own, grantee, table):
                    continue
                name = TableName(grant.namespace, "") if table is None else table.name
                if on is None or (on == name if on.table else on.namespace == name.namespace):
                    rows.append((grantee, grant.privilege.value, name.namespace, name.table or None))
        return list_result(GRANTS_FIELDS, rows)

    def _shown(self, identity: Identity, own: set[str], grantee: str, table: Table | None) -> bool:
        if grantee in own or self._gate.administers(identity):
            return True
        return table is not None and self._gate.owns(identity, table)

    def _object(self, on: TableRef | str | None, request: Request) -> TableName | None:
        if isinstance(on, TableRef):
            return self._gate.table(on, request.session).name
        if isinstance(on, str):
            self._gate.namespace(on, request.session.identity)
            return TableName(on, "")
        return None


def check_grantees(book: Book, grantees: Iterable[str]) -> None:
    """Raise NotFound unless all of these are users and roles, or everybody."""
    for grantee in grantees:
        if grantee != PUBLIC and book.taken(grantee) is None:
            raise NotFound(f"there is no user or role {grantee}", hint="SHOW USERS and SHOW ROLES list them")


def _words(grants: Iterable[Grant]) -> str:
    return ", ".join(sorted(grant.privilege.value for grant in grants))
