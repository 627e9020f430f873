"""The statements on materialized views."""

from __future__ import annotations

from typing import cast

from msgspec.structs import replace

from kalam.access.model import Privilege
from kalam.engine.definitions import Definitions
from kalam.engine.gate import Gate
from kalam.engine.session import Request, Session
from kalam.errors import AlreadyExists, PermissionDenied, TableNotFound, Unsupported
from kalam.query.queries import resolve
from kalam.query.results import Result
from kalam.schema import Column, Table, TableDefinition
from kalam.sql import StatementText, view_options
from kalam.sql.queries.readers import read_query, read_view_query
from kalam.sql.queries.views import with_result
from kalam.sql.text import view_statements as sql
from kalam.sql.text.alterations import SetOptions
from kalam.sql.text.cursor import Cursor
from kalam.sql.text.statements import OnView, TableRef
from kalam.storage.log.catalogue import Catalogue
from kalam.table_options import How, SelectOptions, ViewOptions
from kalam.tables.foreign.tables import ForeignTables
from kalam.views.foreign_source import check_all_kept
from kalam.views.plan import Plan, Planner
from kalam.views.views import Views


class ViewStatements:
    """Carries them out; SHOW VIEWS is a query."""

    def __init__(
        self,
        catalogue: Catalogue,
        definitions: Definitions,
        planner: Planner,
        views: Views,
        foreign: ForeignTables,
        gate: Gate,
    ) -> None:
        self._catalogue, self._definitions, self._planner = catalogue, definitions, planner
        self._views, self._foreign, self._gate = views, foreign, gate

    async def execute(self, asked: OnView, request: Request) -> Result:
        """Carry out a statement."""
        match statement := cast("sql.ViewStatement", asked):
            case sql.CreateView():
                return await self._create(statement, request.session)
            case sql.DropView():
                return await self._drop(statement, request.session)
            case sql.AlterView():
                return await self._alter(statement, request.session)
            case sql.RefreshView():
                view = self._view(statement.ref, request.session)
                await self._views.refresh(view)
                return Result(message=f"materialized view {view.name} filled anew")
            case sql.ShowViews():
                raise AssertionError("a query of system.views")

    async def _create(self, statement: sql.CreateView, session: Session) -> Result:
        name = resolve(statement.ref, session.namespace)
        existing = self._catalogue.tables.get(name)
        if existing is not None:
            return _existing(existing, statement)
        while True:
            asked = statement.query, session.namespace, statement.options, session.user
            plan = await self._planner.plan(*asked, ephemeral=statement.ephemeral)
            await check_all_kept(plan.sources, self._foreign)
            owner = self._definitions.owner(session)
            self._check_owner(owner, plan)
            definition = TableDefinition.of_view(name, plan.columns, plan.key, plan.options, owner)
            made = await self._definitions.make(definition, plan.sources)
            if made is None:
                continue  # a source has changed meanwhile
            table, is_new = made
            if not is_new:
                return _existing(table, statement)
            await self._views.start(table)
            await self._views.wait_begun(table)
            awake = " while somebody listens" if statement.ephemeral else ""
            return Result(message=f"materialized view {name} created; it is kept {plan.options.how.told}{awake}")

    def _check_owner(self, owner: str, plan: Plan) -> None:
        """Raise PermissionDenied where whoever the view is made for may not read what it reads."""
        for source in plan.sources:
            if not self._gate.rights.may(owner, Privilege.SELECT, source):
                raise PermissionDenied(
                    f"{owner}, with whose rights the view would run, may not SELECT on {source.name}",
                    hint=f"GRANT SELECT ON TABLE {source.name} TO {owner}",
                )

    async def _drop(self, statement: sql.DropView, session: Session) -> Result:
        name = resolve(statement.ref, session.namespace)
        table = self._catalogue.tables.get(name)
        if statement.if_exists and not self._gate.sees(session.identity, table):
            return Result(message=f"skipped: there is no materialized view {name}")
        view = self._view(statement.ref, session)
        await self._definitions.drop(view, session, cascade=statement.cascade)
        return Result(message=f"materialized view {name} dropped")

    def _view(self, ref: TableRef, session: Session) -> Table:
        table = self._catalogue.table(resolve(ref, session.namespace))
        if not table.is_view:
            is_select = isinstance(table.options, SelectOptions)
            what = "view, whose SELECT is run when it is read," if is_select else f"{table.kind.written} table"
            raise TableNotFound(f"{table.name} is a {what} and no materialized view")
        return table

    async def _alter(self, statement: sql.AlterView, session: Session) -> Result:
        view = self._view(statement.ref, session)
        options = view.view_options
        match statement.action:
            case SetOptions(raw):
                _check_set(options, view_options(raw, view.columns, current=options))
                query, done = options.query, f"{', '.join(name.upper() for name in raw)} set"
            case sql.AddExpression(name, value):
                if options.how is not How.ROW_WISE:
                    raise Unsupported(f"ADD COLUMN is for row-wise views, and {view.name} is {options.how}")
                if view.column(name) is not None:
                    raise AlreadyExists(f"view {view.name} has a column {name} already")
                former = read_query(Cursor(StatementText(options.query)))
                raw, query, done = {}, with_result(former, value.text, name).text, f"column {name} added"
        planned = await self._planner.plan(read_view_query(Cursor(StatementText(query))), None, raw, session.user, view)
        if planned.key != view.key:
            raise Unsupported(f"the key of {view.name} stays as it is")
        columns = tuple(_fillable(column, view) for column in planned.columns)
        await self._views.stop(view)
        try:
            altered = await self._definitions.alter_view(view, columns, planned.options)
        except BaseException:
            await self._views.start(view)
            raise
        await self._views.resume(altered)
        return Result(message=f"{view.name}: {done}, schema version {altered.schema_version}")


def _check_set(before: ViewOptions, after: ViewOptions) -> None:
    """Raise Unsupported for what stays as it is."""
    for name in ("key", "maintain"):
        if getattr(before, name) != getattr(after, name):
            raise Unsupported(f"{name.upper()} cannot be altered; drop the view and create it anew")
    if before.location != after.location:
        raise Unsupported("LOCATION cannot be altered; drop the view and create it anew")
    if before.subject_key != after.subject_key:
        raise Unsupported("SUBJECT_KEY cannot be altered: the changes that are kept for replay have their subjects")


def _fillable(column: Column, view: Table) -> Column:
    """A new column has NULL in older rows."""
    return column if view.column(column.name) is not None else replace(column, nullable=True)


def _existing(existing: Table, statement: sql.CreateView) -> Result:
    if not statement.if_not_exists or not existing.is_view:
        what = "materialized view" if existing.is_view else f"{existing.kind.written} table"
        raise AlreadyExists(f"{existing.name} exists already, as a {what}")
    return Result(message=f"skipped: materialized view {existing.name} exists already")
