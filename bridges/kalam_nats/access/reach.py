"""What the book says of a user, as the broker is to know it."""

from __future__ import annotations

from collections.abc import Callable

from kalam.access.model import Command, Privilege
from kalam.access.rights import Rights
from kalam.schema import Table
from kalam.storage.log.catalogue import Catalogue
from kalam_nats.access.permissions import Reach, TableReach

KeysOf = Callable[[str, Table], tuple[str, ...] | None]
"""The tokens of the SUBJECT_KEY to which the policies of a table hold a user; None where they do not come to keys."""


class Reaches:
    """Looks up what users may; the same look-ups decide over their statements."""

    def __init__(self, rights: Rights, catalogue: Catalogue, keys_of: KeysOf) -> None:
        self._rights, self._catalogue, self._keys_of = rights, catalogue, keys_of

    def of(self, user: str) -> Reach:
        """What a user may at this moment."""
        rights = self._rights
        whole = frozenset(name for name in self._catalogue.namespaces if rights.reads_all_of(user, name))
        heard: list[TableReach] = []
        hidden: list[TableReach] = []
        trusted = []
        for table in self._catalogue.tables.values():
            if table.per_user or not (table.is_stored or table.is_stream) or not rights.sees(user, table):
                continue  # what is published of it is told to nobody else, or is others'
            if table.is_stream and rights.may(user, Privilege.JETSTREAM, table):
                trusted.append(table.name)
            if not rights.may(user, Privilege.SELECT, table):
                continue
            found = self._heard(user, table)
            if found is None:
                hidden.append(TableReach(table.name, table.is_stream))
            else:
                heard.append(found)
        return Reach(
            user=user,
            administers=rights.administers(user),
            namespaces=whole,
            tables=tuple(heard),
            hidden=tuple(hidden),
            jetstream=tuple(trusted),
        )

    def _heard(self, user: str, table: Table) -> TableReach | None:
        """How a table is heard whose rows the user may read; None where policies let the broker show nothing."""
        stream = table.is_stream
        policies = self._rights.policies(user, table, Command.SELECT)
        if policies is None:
            return TableReach(table.name, stream)
        keys = self._keys_of(user, table) if policies else None
        return None if keys is None else TableReach(table.name, stream, keys)
