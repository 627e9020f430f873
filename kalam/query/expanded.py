"""Views in the text of a query: each mention becomes what the view's SELECT reads.

The law: a view runs with its owner's rights. The tables in its text are read as its owner may read them, under the
policies that hold for the owner, while ``CURRENT_USER()`` and the private copies of USER tables are those of who asks.
So a table that a query names itself, and through views of several owners, is as many relations, each under a name of
its own; a mention in a view says which table it is by its id, so that it follows a table that was renamed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec.structs import replace

from kalam.access.model import Privilege
from kalam.access.rights import Rights
from kalam.errors import PermissionDenied, TableNotFound, TooLarge
from kalam.names import SYSTEM_NAMESPACE, TableName
from kalam.query.composed import Pieces, compose
from kalam.query.handed import TemporaryRelation
from kalam.query.running import note_lent
from kalam.schema import SelectOptions, Table
from kalam.sql.queries.compared import columns_of, with_own_forms
from kalam.sql.text.replaced import with_session
from kalam.sql.text.statements import QueryText, TableRef, TableUse
from kalam.storage.log.catalogue import Catalogue
from kalam.storage.log.temporary import TemporarySpaces
from kalam.table_options import SelectUse

DEPTH_MAX: Final = 16
CHARACTERS_MAX: Final = 1 << 20
_READ_BY = "$view"


class Mention(msgspec.Struct, frozen=True):
    """A mention of a table in an expanded query: its name there, the table, and whose rights and policies count."""

    name: TableName
    table: TableName
    reader: str
    sees_deleted: bool


class Expansion:
    """Expands the views of one query, for somebody."""

    def __init__(self, catalogue: Catalogue, rights: Rights, user: str) -> None:
        self._catalogue, self._rights, self._user = catalogue, rights, user
        self.mentions: list[Mention] = []

    def query(self, query: QueryText, names: Sequence[TableName]) -> QueryText:
        """The query without views; ``names`` are those of its tables. Fills ``mentions``, one for each of its own."""
        expanded = compose(self._pieces(query, [(name, self._catalogue.tables.get(name), None) for name in names], 0))
        if len(expanded.text) > CHARACTERS_MAX:
            raise TooLarge(f"with the views that it reads the query has more than {CHARACTERS_MAX:,} characters")
        own = {name: getattr(query, name) for name in ("parameters", "names_key", "plain", "casts", "in_order")}
        return replace(expanded, **{**own, "names_key": expanded.names_key or query.names_key})

    def _pieces(
        self, query: QueryText, read: Sequence[tuple[TableName, Table | None, Table | None]], depth: int
    ) -> Pieces:
        """A text in pieces; ``read`` says of each of its mentions the name, the table, and the view that it is in."""
        pieces: Pieces = []
        end = 0
        for use, (name, table, view) in zip(query.tables, read, strict=True):
            before = query.text[end : use.start]
            end = use.end
            if table is not None and isinstance(table.options, SelectOptions):
                if view is not None:
                    self._check_right(view, table)
                pieces.append((before, None))
                pieces += self._view(table, table.options, depth + 1)
                pieces.append(("" if use.aliased else f' AS "{use.ref.table}"', None))
            else:
                pieces.append((before, self._mention(use, name, table, view)))
                if view is not None and not use.aliased:
                    pieces.append((f' AS "{use.ref.table}"', None))
        rest = QueryText(query.text[end:], (), query.parameters, query.names_key, virtual=query.virtual)
        return [*pieces, ("", rest)]

    def _mention(self, use: TableUse, name: TableName, table: Table | None, view: Table | None) -> QueryText:
        called, reader = name, self._user
        if view is not None:
            called, reader = TableName(name.namespace, f"{name.table}{_READ_BY}{view.table_id}"), view.owned_by
            if table is not None:
                self._check_right(view, table)
        self.mentions.append(Mention(called, name, reader, use.sees_deleted))
        aliased = use.aliased or view is not None
        ref = TableRef(called.namespace, called.table)
        return QueryText("x", (TableUse(ref, 0, 1, aliased, use.sees_deleted),))

    def _check_right(self, view: Table, table: Table) -> None:
        if not self._rights.may(view.owned_by, Privilege.SELECT, table):
            sees = self._rights.sees
            read = str(table.name) if sees(self._user, table) else "what it reads"
            called = f"view {view.name}" if sees(self._user, view) else "view"
            raise PermissionDenied(f"{view.owned_by}, whose {called} is read, may not SELECT on {read}")
        if self._rights.on:
            note_lent(view.owned_by, table.table_id)

    def _view(self, view: Table, options: SelectOptions, depth: int) -> Pieces:
        """``(SELECT the view's columns FROM (its text))``."""
        if depth > DEPTH_MAX:
            raise TooLarge(f"views are read through at most {DEPTH_MAX} views")
        shown = zip(options.given, view.columns, strict=True)
        columns = ", ".join(f'"{given.replace(chr(34), chr(34) * 2)}" AS "{column.name}"' for given, column in shown)
        behind = f') AS "{view.name.table}")'
        before = f"(SELECT {columns} FROM ("  # noqa: S608 - names of the catalogue
        return [(before, None), *self.body(view, options, depth), (behind, None)]

    def body(self, view: Table, options: SelectOptions, depth: int = 1) -> Pieces:
        """The text of a view as it reads for who asks, in pieces."""
        known = [self._known(view, use) for use in options.uses]
        uses = tuple(
            TableUse(TableRef(use.namespace, use.table), use.start, use.end, use.aliased, use.sees_deleted)
            for use in options.uses
        )
        text = QueryText(options.query, uses, names_key=options.names_key, virtual=options.virtual)
        text = with_session(text, self._user, self._rights.roles(self._user))
        columns = [{} if table is None else columns_of(table) for _, table in known]
        text, _ = with_own_forms(text, columns, (), {})
        return self._pieces(text, [(name, table, view) for name, table in known], depth)

    def _known(self, view: Table, use: SelectUse) -> tuple[TableName, Table | None]:
        """The name of a table that a view reads, as it is called now, and the table; None for a system table."""
        table_id, namespace = use.table_id, use.namespace
        if namespace == SYSTEM_NAMESPACE and not table_id:
            return TableName(namespace, use.table), None
        table = self._catalogue.by_id.get(table_id)
        if table is None:
            raise TableNotFound(f"a table that the view {view.name} reads was dropped")
        return table.name, table


class Expanded(msgspec.Struct, frozen=True):
    """A query without views, and its mentions of tables."""

    query: QueryText
    mentions: Sequence[Mention]

    @property
    def names(self) -> list[TableName]:
        """What its mentions are called, in their order."""
        return [mention.name for mention in self.mentions]


def temporary_relations(spaces: TemporarySpaces, found: Expanded) -> dict[tuple[TableName, bool], TemporaryRelation]:
    """What those of the mentions stand for that are of temporary tables."""
    states = ((each, spaces.get(each.table)) for each in found.mentions)
    return {(each.name, each.sees_deleted): TemporaryRelation(state) for each, state in states if state is not None}


def expanded(catalogue: Catalogue, rights: Rights, user: str, query: QueryText, names: Sequence[TableName]) -> Expanded:
    """A query with what its views read in their places; ``names`` are those of its tables."""
    known = catalogue.tables
    if not any(name in known and isinstance(known[name].options, SelectOptions) for name in names):
        uses = zip(query.tables, names, strict=True)
        return Expanded(query, [Mention(name, name, user, use.sees_deleted) for use, name in uses])
    expansion = Expansion(catalogue, rights, user)
    return Expanded(expansion.query(query, names), expansion.mentions)


def expanded_view(catalogue: Catalogue, rights: Rights, user: str, view: Table) -> Expanded:
    """The text of a view as a query for no rows."""
    assert isinstance(view.options, SelectOptions)
    expansion = Expansion(catalogue, rights, user)
    body = expansion.body(view, view.options)
    return Expanded(compose([("SELECT * FROM (", None), *body, (') AS "v" LIMIT 0', None)]), expansion.mentions)
