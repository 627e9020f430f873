"""How a view is kept up, and what tells its rows from one another: by its SELECT, its sources and its options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import pyarrow as pa

from kalam.errors import InvalidOption, Unsupported
from kalam.names import TableName
from kalam.query.executor import BoundQuery, Wanted
from kalam.query.queries import Queries
from kalam.schema import Table
from kalam.sql.queries.views import ViewShape
from kalam.sql.text.statements import QueryText
from kalam.table_options import How, Maintain, ViewOptions
from kalam.views.group_queries import GroupTypes, never_empty
from kalam.views.relation import Relation, bound_text
from kalam.views.shape import Grouped, Rerun, classified
from kalam.views.shape.classified import RELATION_NAMESPACE, AggregateKind
from kalam.views.shape.result_key import result_key, strictly_of


class Decided(msgspec.Struct, frozen=True):
    """How a view is kept.

    ``key`` are the columns of the result that are unique together, () for a result of one row, None where no columns
    tell the rows apart. ``set_by`` gives for columns of the result the source's column of which they are NULL with it.
    """

    how: How
    key: tuple[str, ...] | None = None
    set_by: Mapping[str, str] = {}


def grouped_select(query: QueryText, source: Table) -> Grouped | Rerun:
    """What a SELECT over one source is, where it is not row-wise."""
    return classified(bound_text(query, [source]), _columns_of(source))


def _columns_of(source: Table) -> tuple[str, ...]:
    return (*(column.name for column in source.columns), *source.system_columns)


async def decided(
    query: QueryText, shape: ViewShape, sources: Sequence[Table], options: ViewOptions, queries: Queries, user: str
) -> Decided:
    """How a view is kept whose SELECT is not row-wise; raises Unsupported and InvalidOption."""
    kept: Grouped | Rerun = Rerun("a query of several tables")
    if len(sources) == len(query.tables) == 1:
        kept = grouped_select(query, sources[0])
    if isinstance(kept, Grouped):
        reason = await _unkept(kept, shape, sources[0], options, queries, user)
    else:
        reason = kept.reason
    if reason is None and isinstance(kept, Grouped) and options.maintain is not Maintain.RERUN:
        return _aggregating(kept, shape)
    if options.maintain is Maintain.INCREMENTAL:
        raise Unsupported(f"MAINTAIN = 'incremental': {reason} cannot be kept by what changed alone")
    return _rerun(query, shape, sources, options, reason)


async def _unkept(
    grouped: Grouped, shape: ViewShape, source: Table, options: ViewOptions, queries: Queries, user: str
) -> str | None:
    """What of a GROUP BY cannot be kept by its groups, for its types or its options."""
    nothing = Relation.of(source, _columns_of(source)).schema.empty_table()

    async def asked(text: str, name: TableName, empty: pa.Table) -> pa.Table:
        relations = {(name, False): queries.relation(None, user, empty)}
        return await queries.run(BoundQuery(QueryText(text), [], relations), Wanted(user=user))

    rows = never_empty((await asked(grouped.rows_text(with_place=False), source.name, nothing)).schema)
    values = await asked(grouped.types_text(), TableName(RELATION_NAMESPACE, "rows"), rows.empty_table())
    reason = GroupTypes.of(grouped, rows, values.schema).unkept
    extremes = [call for call in grouped.calls if call.kind in (AggregateKind.MIN, AggregateKind.MAX)]
    if reason is None and source.is_bucket and extremes:
        reason = f"{extremes[0].kind}() over a bucket, whose former keys cannot be asked again,"
    if reason is None and options.key and set(options.key) != set(_key_of(grouped, shape) or ()):
        reason = f"KEY = '{', '.join(options.key)}', which is not the GROUP BY list,"
    return reason


def _key_of(grouped: Grouped, shape: ViewShape) -> tuple[str, ...] | None:
    places = [place for place in grouped.key_places if place is not None]
    if len(places) < len(grouped.key_places):
        return None
    return tuple(shape.results[place].name for place in places)


def _aggregating(grouped: Grouped, shape: ViewShape) -> Decided:
    set_by = {
        shape.results[place].name: column
        for key, place in zip(grouped.keys, grouped.key_places, strict=True)
        if place is not None and (column := strictly_of(key)) is not None
    }
    return Decided(How.AGGREGATING, _key_of(grouped, shape), set_by)


def _rerun(
    query: QueryText, shape: ViewShape, sources: Sequence[Table], options: ViewOptions, reason: str | None
) -> Decided:
    what = "" if reason is None else f" with {reason}"
    for source in sources:
        if not source.is_stored:
            raise Unsupported(
                f"a materialized view{what} is kept by running its SELECT again, and {source.name} keeps no rows",
                hint="keep its events in a row-wise view, and read that",
            )
    if options.key:
        return Decided(How.RERUN, options.key)
    source_key = sources[0].key if len(sources) == len(query.tables) == 1 else ()
    columns = [name for source in sources for name in _columns_of(source)]
    places = result_key(query.text, source_key, columns)
    if places is None:
        raise InvalidOption(
            f"a materialized view{what} is kept by running its SELECT again, and needs a key to tell its rows apart",
            hint="WITH (key = 'a, b') names the columns of the result that are unique together",
        )
    return Decided(How.RERUN, tuple(shape.results[place].name for place in places))
