"""CREATE VIEW and DROP VIEW: a SELECT under a name, with the rights of its owner."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from msgspec.structs import replace

from kalam.engine.definitions import Definitions
from kalam.engine.result_columns import kept_places, result_columns
from kalam.engine.session import Request, Session
from kalam.errors import AlreadyExists, Unsupported
from kalam.names import SYSTEM_NAMESPACE
from kalam.query.queries import Queries, resolve
from kalam.query.results import Result
from kalam.schema import Column, SelectOptions, Table, TableDefinition
from kalam.sql.queries.readers import postgresql_names
from kalam.sql.tables.stored_select import KIND
from kalam.sql.text.lexer import StatementText, read_tokens
from kalam.sql.text.statements import CreateSelect, DropSelect
from kalam.storage.log.catalogue import Catalogue
from kalam.table_options import SelectUse
from kalam.threads import reading


class SelectStatements:
    """Carries them out; who may has been asked."""

    def __init__(self, catalogue: Catalogue, definitions: Definitions, queries: Queries) -> None:
        self._catalogue, self._definitions, self._queries = catalogue, definitions, queries

    async def create(self, statement: CreateSelect, request: Request) -> Result:
        """CREATE [OR REPLACE] VIEW; what is wrong with the SELECT is told now."""
        session = request.session
        name = resolve(statement.ref, session.namespace)
        existing = self._catalogue.tables.get(name)
        if existing is not None and not isinstance(existing.options, SelectOptions):
            raise AlreadyExists(f"{name} exists already, as a {existing.kind.written} table")
        if existing is not None and not statement.or_replace:
            if statement.if_not_exists:
                return Result(message=f"skipped: view {name} exists already")
            raise AlreadyExists(f"view {name} exists already", hint="CREATE OR REPLACE VIEW")
        options = self._options(statement, session)
        if existing is not None:
            self._check_no_circle(existing, options)
        owner = self._definitions.owner(session) if existing is None else existing.owned_by
        view = Table(
            name=name,
            kind=KIND,
            columns=(),
            key=(),
            options=options,
            owned_by=owner,
            table_id=0 if existing is None else existing.table_id,
            schema_version=1,
            created_at=datetime.now(UTC),
        )
        columns, given = await self._columns(view, statement, session.user)
        options = replace(options, given=given)
        if existing is not None:
            _check_kept(existing, columns)
            return await self._definitions.replace_select(existing, columns, options)
        definition = TableDefinition(name=name, kind=KIND, columns=columns, key=(), options=options, owned_by=owner)
        return await self._definitions.create_select(definition)

    def _options(self, statement: CreateSelect, session: Session) -> SelectOptions:
        query = statement.query
        uses: list[SelectUse] = []
        for use in query.tables:
            name = resolve(use.ref, session.namespace)
            table_id = 0 if name.namespace == SYSTEM_NAMESPACE else self._catalogue.table(name).table_id
            place = (use.start, use.end, use.aliased, use.sees_deleted)
            uses.append(SelectUse(table_id, name.namespace, name.table, *place))
        words = frozenset(token.name for token in read_tokens(StatementText(query.text)) if token.name)
        return SelectOptions(
            query=query.text, uses=tuple(uses), words=words, names_key=query.names_key, virtual=query.virtual
        )

    async def _columns(
        self, view: Table, statement: CreateSelect, user: str
    ) -> tuple[tuple[Column, ...], tuple[str, ...]]:
        """The columns of a view, and what they are called in its text's own result."""
        schema = await self._queries.schema_of_select(view, user)
        query = statement.query
        names = await reading(query.text, postgresql_names, query, schema.names)
        columns = result_columns(schema, names, statement.names)
        return tuple(columns), tuple(schema.names[place] for place in kept_places(names))

    def _check_no_circle(self, view: Table, options: SelectOptions) -> None:
        ahead = [use.table_id for use in options.uses]
        while ahead:
            table = self._catalogue.by_id.get(ahead.pop())
            if table is not None and table.table_id == view.table_id:
                raise Unsupported(f"view {view.name} would read itself")
            if table is not None and isinstance(table.options, SelectOptions):
                ahead += [use.table_id for use in table.options.uses]

    async def drop(self, statement: DropSelect, session: Session) -> Result:
        """DROP VIEW, with the views that read it where CASCADE says so."""
        name = resolve(statement.ref, session.namespace)
        table = self._catalogue.tables.get(name)
        if statement.if_exists and not self._definitions.sees(session, table):
            return Result(message=f"skipped: there is no view {name}")
        table = self._catalogue.table(name)
        if not isinstance(table.options, SelectOptions):
            what = "MATERIALIZED VIEW" if table.is_view else "TABLE"
            raise Unsupported(f"{name} is no view that is a stored SELECT", hint=f"DROP {what} {name}")
        await self._definitions.drop(table, session, cascade=statement.cascade)
        return Result(message=f"view {name} dropped")


def _check_kept(view: Table, columns: Sequence[Column]) -> None:
    """Raise Unsupported unless a view keeps the columns that others may name."""
    kept = [(column.name, column.type) for column in columns][: len(view.columns)]
    if kept != [(column.name, column.type) for column in view.columns]:
        raise Unsupported(
            f"CREATE OR REPLACE keeps the columns of view {view.name}, with their types, and may add others behind",
            hint=f"DROP VIEW {view.name}, and create it again",
        )
