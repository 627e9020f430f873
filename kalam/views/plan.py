"""From the SELECT of a view to what the view is: its sources, its columns, its key, and how it is kept up."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec
import pyarrow as pa
from msgspec.structs import replace

from kalam.errors import InvalidOption, TableInUse, Unsupported
from kalam.names import RESERVED_NAMESPACES, TableName
from kalam.query.executor import BoundQuery, Wanted
from kalam.query.queries import Queries, resolve
from kalam.query.selects import Told
from kalam.rows.column_types import TYPES
from kalam.schema import VIEW_KEY, Column, SelectOptions, Table, TypeName
from kalam.sql import StatementText, view_options
from kalam.sql.queries.compared import columns_of, with_own_forms
from kalam.sql.queries.readers import read_query
from kalam.sql.queries.views import ResultColumn, ViewShape, view_shape, with_columns
from kalam.sql.tables.spelling import full_name
from kalam.sql.text.cursor import Cursor
from kalam.sql.text.edits import Edits
from kalam.sql.text.spans import read_tree
from kalam.sql.text.statements import QueryText
from kalam.storage.log.catalogue import Catalogue
from kalam.table_options import How, Maintain, ViewOptions, ViewSource
from kalam.views.deciding import Decided, decided
from kalam.views.keys import key_column
from kalam.views.relation import Relation, key_of_rows
from kalam.views.result_types import data_type_of
from kalam.views.shape import refused

DEPTH_MAX = 4
_NEVER_NULL = frozenset({"_seq", "_time", "_subject"})


class Plan(msgspec.Struct, frozen=True):
    """What a view is. ``query`` names its tables in full and its columns one by one."""

    query: QueryText
    sources: tuple[Table, ...]
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    options: ViewOptions


class Planner:
    """Plans views."""

    def __init__(self, catalogue: Catalogue, queries: Queries) -> None:
        self._catalogue, self._queries = catalogue, queries

    async def plan(
        self,
        query: QueryText,
        namespace: str | None,
        raw: Mapping[str, Any],
        user: str,
        view: Table | None = None,
        *,
        ephemeral: bool = False,
        sighted: bool = False,
    ) -> Plan:
        """What a SELECT with these options comes to; ``view`` is the one that is altered.

        One that is ``sighted`` shows its sources as ``user`` sees them: USER tables and policies do not keep it from
        that.

        Raises Unsupported for a shape that cannot be kept, InvalidOption, InvalidName, and what a SELECT raises.
        """
        names = [resolve(use.ref, namespace) for use in query.tables]
        sources = tuple(self.source(name) for name in dict.fromkeys(names))
        self._check_sources(query, sources, sighted=sighted)
        if len(sources) == 1:
            query = with_columns(query, [column.name for column in sources[0].declared_columns])
        query = with_full_names(query, names)
        shape = view_shape(query.text)
        columns = await self._columns(query, shape, sources, user)
        if view is not None:
            columns = _same_ids(columns, view)
        current = None if view is None else view.view_options
        options = view_options(raw, columns, current=current, ephemeral=ephemeral)
        kept = await self._decided(query, shape, sources, options, user)
        _check_options(options, kept.how, columns)
        columns = tuple(
            replace(column, nullable=not _is_set(ResultColumn(column.name, kept.set_by[column.name]), sources))
            if column.name in kept.set_by
            else column
            for column in columns
        )
        columns, key = _keyed(columns, kept.key or None, view)
        if kept.how is How.RERUN:
            options = replace(options, key=kept.key or ())
        reads = tuple(ViewSource(source.table_id, _named(shape, source)) for source in sources)
        options = replace(options, query=query.text, how=kept.how, reads=reads)
        return Plan(query, sources, columns, key, options)

    async def _decided(
        self, query: QueryText, shape: ViewShape, sources: Sequence[Table], options: ViewOptions, user: str
    ) -> Decided:
        found = refused(read_tree(query.text).root)
        if found is not None:
            raise Unsupported(f"a materialized view cannot keep {found}")
        if shape.not_row_wise is None and len(sources) == 1:
            return Decided(How.ROW_WISE, _key_names(options, shape, sources))
        return await decided(query, shape, sources, options, self._queries, user)

    def source(self, name: TableName) -> Table:
        """The table of a name; raises Unsupported for one of whose changes nobody tells, and TableNotFound."""
        if name.namespace in RESERVED_NAMESPACES:
            raise Unsupported(f"a view cannot read {name}: nobody tells of its changes")
        return self._catalogue.table(name)

    def _check_sources(self, query: QueryText, sources: Sequence[Table], *, sighted: bool) -> None:
        for source in sources:
            if isinstance(source.options, SelectOptions):
                raise Unsupported(
                    f"a materialized view reads tables, and {source.name} is a view", hint="write its SELECT out"
                )
            if source.is_ephemeral:
                raise Unsupported(
                    f"a materialized view cannot read {source.name}, which is EPHEMERAL", hint="write its SELECT out"
                )
            if source.per_user and not sighted:
                raise Unsupported(f"a view cannot read the USER table {source.name}: everybody sees other rows there")
            if source.row_security and not sighted:
                raise Unsupported(
                    f"a view cannot read {source.name}: it has row level security, which the view would go round"
                )
            if source.is_stream and query.names_key:
                raise Unsupported(f"a view cannot read {VIEW_KEY} of the STREAM table {source.name}")
            if depth_of(source, self._catalogue) >= DEPTH_MAX and not sighted:
                raise Unsupported(f"{source.name} is a view over views over views over views; no more than that")

    async def _columns(
        self, query: QueryText, shape: ViewShape, sources: Sequence[Table], user: str
    ) -> tuple[Column, ...]:
        """The columns of the result, with the types that DataFusion gives them."""
        relations = {}
        for source in sources:
            every = (*(column.name for column in source.columns), *source.system_columns)
            nothing = Relation.of(source, every).schema.empty_table()
            relations[source.name, False] = self._queries.relation(None, user, nothing)
        by_name = {source.name: source for source in sources}
        names = [resolve(use.ref, None) for use in query.tables]
        formed, _ = with_own_forms(query, [columns_of(by_name[name]) for name in names])
        found: pa.Table = await self._queries.run(BoundQuery(formed, names, relations), Wanted(user=user))
        return tuple(
            Column(
                column_id=number,
                name=result.name,
                type=data_type_of(field.with_name(result.name)),
                nullable=not _is_set(result, sources),
            )
            for number, (result, field) in enumerate(zip(shape.results, found.schema, strict=True), 1)
        )


def with_full_names(query: QueryText, names: Sequence[TableName]) -> QueryText:
    """The query in which every table is named in full."""
    edits = Edits(query.text)
    for use, name in zip(query.tables, names, strict=True):
        edits.replace((use.start, use.end), full_name(name))
    return read_query(Cursor(StatementText(edits.whole)))


def depth_of(table: Table, catalogue: Catalogue) -> int:
    """How many views lie over one another there; 0 for a table."""
    if not isinstance(table.options, ViewOptions):
        return 0
    below = (catalogue.by_id.get(source.table_id) for source in table.options.reads)
    return 1 + max((depth_of(source, catalogue) for source in below if source is not None), default=0)


def _check_options(options: ViewOptions, how: How, columns: Sequence[Column]) -> None:
    if options.maintain is Maintain.RERUN and how is How.ROW_WISE:
        raise Unsupported("MAINTAIN = 'rerun': a row-wise view is kept by what changed alone")
    if (options.retention_s is None) is not (options.retention_on is None):
        raise InvalidOption("RETENTION and RETENTION_ON are given together: the time, and the column that it goes by")
    if options.retention_on is not None:
        [column] = [column for column in columns if column.name == options.retention_on]
        if column.type.name is not TypeName.TIMESTAMP:
            raise InvalidOption(f"RETENTION_ON = {column.name!r} is {column.type} and no TIMESTAMP")


def _key_names(options: ViewOptions, shape: ViewShape, sources: Sequence[Table]) -> tuple[str, ...] | None:
    """The columns of the result that are the key; None where it is no column."""
    if options.key:
        return options.key
    [source] = sources
    shown = {result.column: result.name for result in reversed(shape.results) if result.column is not None}
    key = key_of_rows(source)
    return tuple(shown[name] for name in key) if key and shown.keys() >= set(key) else None


def _keyed(
    columns: tuple[Column, ...], names: tuple[str, ...] | None, view: Table | None
) -> tuple[tuple[Column, ...], tuple[str, ...]]:
    """The columns, and the key: those columns where they can be one, else a hidden one behind them."""
    by_name = {column.name: column for column in columns}
    if names is not None and all(not by_name[name].nullable and _is_key(by_name[name]) for name in names):
        return columns, names
    former = None if view is None else view.column(VIEW_KEY)
    hidden = key_column(len(columns) + 1) if former is None else former
    return (*columns, hidden), (VIEW_KEY,)


def _is_key(column: Column) -> bool:
    return bool(TYPES[column.type.name].is_key)


def _same_ids(columns: Sequence[Column], view: Table) -> tuple[Column, ...]:
    """The columns with the ids that they have in a view, and new ones for those that it does not have."""
    last = max(column.column_id for column in view.columns)
    known = {column.name: column.column_id for column in view.columns}
    new = iter(range(last + 1, last + 1 + len(columns)))
    return tuple(
        replace(column, column_id=known[column.name] if column.name in known else next(new)) for column in columns
    )


def _named(shape: ViewShape, source: Table) -> tuple[str, ...]:
    return tuple(column.name for column in source.columns if column.name in shape.names)


def _is_set(result: ResultColumn, sources: Sequence[Table]) -> bool:
    """Whether a column of the result has a value in every row, as far as the source tells."""
    if len(sources) != 1:
        return False
    [source] = sources
    column = None if result.column is None else source.column(result.column)
    if column is None:
        return result.column in ({*_NEVER_NULL, *key_of_rows(source)} if source.is_foreign else ())
    return not column.nullable and not (source.is_foreign and source.foreign_options.invalid == "null")


def readers_of(table: Table, catalogue: Catalogue, column: str | None = None) -> list[Table]:
    """The views that read a table, or a column of it, by name."""
    return sorted(
        (
            view
            for view in catalogue.tables.values()
            if isinstance(view.options, ViewOptions)
            for source in view.options.reads
            if source.table_id == table.table_id and (column is None or column in source.columns)
        ),
        key=lambda view: view.name,
    )


def check_unread(
    table: Table, catalogue: Catalogue, told: Told, dropped: Collection[int] = (), column: str | None = None
) -> None:
    """Raise TableInUse while views read a table, or a column of it, other than those that are dropped with it.

    ``told`` says which they are to whoever asked.
    """
    reading = [view for view in readers_of(table, catalogue, column) if view.table_id not in dropped]
    if reading:
        what = f"table {table.name}" if column is None else f"column {column} of table {table.name}"
        raise TableInUse(
            f"{what} is read by {told('materialized view', reading)}", hint="DROP MATERIALIZED VIEW comes first"
        )
