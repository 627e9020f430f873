"""What a user may do: look-ups in the book, kept for each user until it changes.

Law: nothing is allowed until it is granted. An owner has ALL on a table, an administrator everything but JETSTREAM;
what one may not see does not exist. While authentication is off everybody may do everything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from kalam.access.book import Book
from kalam.access.model import PUBLIC, Command, Policy, Privilege
from kalam.schema import Table

_NONE: frozenset[Privilege] = frozenset()


class Standing(msgspec.Struct, frozen=True):
    """What follows from the book for one user. ``names`` are the user, the user's roles, and PUBLIC."""

    admin: bool
    names: frozenset[str]
    roles: tuple[str, ...]
    tables: Mapping[int, frozenset[Privilege]]
    namespaces: Mapping[str, frozenset[Privilege]]

    def privileges(self, table: Table) -> frozenset[Privilege]:
        """What was granted on a table, or on its namespace."""
        own = self.tables.get(table.table_id, _NONE)
        return own | self.namespaces[table.name.namespace] if table.name.namespace in self.namespaces else own


class Rights:
    """Answers what users may do, by their names."""

    def __init__(self, book: Book, *, on: bool) -> None:
        self.book, self.on = book, on
        self._standings: dict[str, Standing] = {}
        self._generation = -1

    def administers(self, user: str) -> bool:
        """Whether a user is an administrator."""
        return not self.on or self._standing(user).admin

    def roles(self, user: str) -> tuple[str, ...]:
        """The roles of a user, directly and through others, by name."""
        return self._standing(user).roles

    def may(self, user: str, privilege: Privilege, table: Table) -> bool:
        """Whether a user has a privilege on a table."""
        if not self.on:
            return True
        standing = self._standing(user)
        if privilege in standing.tables.get(table.table_id, _NONE):  # as nearly always
            return True
        if privilege is not Privilege.JETSTREAM and (standing.admin or table.owned_by in standing.names):
            return True
        return privilege in standing.namespaces.get(table.name.namespace, _NONE)

    def sees(self, user: str, table: Table) -> bool:
        """Whether a table exists for a user: who has any privilege on it sees that it is there."""
        if self.owns(user, table):
            return True
        return bool(self._standing(user).privileges(table) - {Privilege.CREATE})

    def owns(self, user: str, table: Table) -> bool:
        """Whether a user may alter, drop and grant a table: its owner, who belongs to it, and administrators."""
        if not self.on:
            return True
        standing = self._standing(user)
        return standing.admin or table.owned_by in standing.names

    def may_create(self, user: str, namespace: str) -> bool:
        """Whether a user may make tables in a namespace."""
        if not self.on:
            return True
        standing = self._standing(user)
        return standing.admin or Privilege.CREATE in standing.namespaces.get(namespace, _NONE)

    def reads_all_of(self, user: str, namespace: str) -> bool:
        """Whether a user may read each table of a namespace, those to come too (policies aside)."""
        if not self.on:
            return True
        standing = self._standing(user)
        return standing.admin or Privilege.SELECT in standing.namespaces.get(namespace, _NONE)

    def sees_namespace(self, user: str, namespace: str, tables: Iterable[Table]) -> bool:
        """Whether a namespace exists for a user: something in it or on it was granted. ``tables`` are all there are."""
        if not self.on:
            return True
        standing = self._standing(user)
        if standing.admin or namespace in standing.namespaces:
            return True
        return any(table.name.namespace == namespace and self.sees(user, table) for table in tables)

    def policies(self, user: str, table: Table, command: Command) -> tuple[Policy, ...] | None:
        """The policies that decide for a user over a table's rows; None where none is asked, () where all is hidden."""
        if not self.on or not table.row_security:
            return None
        names = self._standing(user).names
        return tuple(
            policy
            for policy in self.book.policies.get(table.table_id, ())
            if policy.is_for(command) and not names.isdisjoint(policy.grantees)
        )

    def _standing(self, user: str) -> Standing:
        if self._generation != self.book.generation:
            self._standings.clear()
            self._generation = self.book.generation
        standing = self._standings.get(user)
        if standing is None:
            standing = self._standings[user] = self._found(user)
        return standing

    def _found(self, user: str) -> Standing:
        book = self.book
        roles = book.roles_of(user)
        names = roles | {user, PUBLIC}
        tables: dict[int, frozenset[Privilege]] = {}
        namespaces: dict[str, frozenset[Privilege]] = {}
        for name in names:
            for grant in book.grants.get(name, ()):
                if grant.table_id:
                    tables[grant.table_id] = tables.get(grant.table_id, _NONE) | {grant.privilege}
                else:
                    namespaces[grant.namespace] = namespaces.get(grant.namespace, _NONE) | {grant.privilege}
        known = book.users.get(user)
        return Standing(known is not None and known.admin, names, tuple(sorted(roles)), tables, namespaces)
