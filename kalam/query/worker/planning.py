"""From a text and what its names stand for to a plan.

One function does it, ``Planner.plan``: what is to be done to every query's text or plan (a rewrite around a known wrong
answer, say) is done there, between the binding of its names and the plan that it returns.

Law: a query can name only what was bound to it. Relations are registered under their names, the text is planned, and
they are taken away again; a plan holds what it was made from. A worker plans one query at a time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import msgspec
import pyarrow as pa
from datafusion import DataFrame, RuntimeEnvBuilder, SessionConfig, SessionContext
from datafusion.catalog import Schema

from kalam.query.exact.parameters import described
from kalam.query.exact.rewrite import ExactQueries, exact_config
from kalam.query.exact.scopes import READ_ONLY
from kalam.query.parameters import received
from kalam.query.wire import Ask, Bound, Untyped
from kalam.query.worker.arrow_frames import arrow_frame
from kalam.query.worker.frames import SEGMENTS_SCHEMA, Frame, Frames
from kalam.query.worker.guarding import guarded, named_columns, set_aside
from kalam.query.worker.limits import Limits

_GATHERS = re.compile(r"\b(?:GROUP\s+BY|ORDER\s+BY|DISTINCT|COUNT\s*\(|MAX\s*\(|MIN\s*\()", re.IGNORECASE)

_JOINS = re.compile(r"\b(?:JOIN|WITH)\b", re.IGNORECASE)
"""By WITH a table that is mentioned once may be joined with itself."""


class Planning(msgspec.Struct, frozen=True):
    """A context, and what plans in it."""

    ctx: SessionContext
    exact: ExactQueries

    @classmethod
    def of(cls, config: SessionConfig, runtime: RuntimeEnvBuilder | None = None) -> Planning:
        """A new context, in which every query is planned by ``plan``."""
        config = config.with_information_schema(enabled=False)
        config = config.set("datafusion.execution.time_zone", "UTC")  # of now() and of what TIMESTAMPTZ makes
        config = config.set("datafusion.sql_parser.map_string_types_to_utf8view", "false")  # CAST AS TEXT gives TEXT
        ctx = SessionContext(exact_config(config), runtime)
        return cls(ctx, ExactQueries(ctx))


class Planned(msgspec.Struct, frozen=True):
    """A plan, and what it was made from."""

    frame: DataFrame
    relations: Sequence[tuple[Bound, Frame]]
    values: Mapping[str, pa.Scalar]


class Planner:
    """Plans queries in one of two contexts: that with one partition keeps the rows in their order."""

    def __init__(self, limits: Limits) -> None:
        # Half of the memory, because what DataFusion does not count is often as much as what it counts.
        pool = max(1 << 20, limits.memory_bytes // 2)
        self._plannings = {
            in_order: _planning(1 if in_order else limits.partitions, pool) for in_order in (False, True)
        }
        self.frames = Frames({in_order: planning.ctx for in_order, planning in self._plannings.items()})

    def plan(self, ask: Ask) -> Planned:
        """The plan of a query, which runs when it is read."""
        values, relations = received(ask.parameters, ask.typed), self._relations(ask)
        planning = self._plannings[ask.in_order]
        found = plan(planning, ask.text, relations, values)
        if ask.around is not None:
            rows = Bound(ask.around.namespace, ask.around.table, 0)
            with registered(planning, [(rows, Frame(found, found.schema()))]):
                found = planning.ctx.sql_with_options(ask.around.text, READ_ONLY)
        return Planned(found, relations, values)

    def describe(self, ask: Ask, untyped: Untyped) -> tuple[pa.Schema, DataFrame]:
        """The types that the parameters of a query take, under their numbers, and a plan with NULLs in their places."""
        planning, relations = self._plannings[ask.in_order], self._relations(ask)
        with registered(planning, relations):
            schemas = [frame.schema for _, frame in relations]
            plan = partial(planning.exact.plan, ask.text, schemas=schemas)
            return described(planning.ctx, ask.text, untyped, plan)

    def _relations(self, ask: Ask) -> list[tuple[Bound, Frame]]:
        planning = self._plannings[ask.in_order]
        return [(bound, self._relation(planning, bound, ask)) for bound in ask.bound]

    def _relation(self, planning: Planning, bound: Bound, ask: Ask) -> Frame:
        frame = self.frames.frame(bound.number, in_order=ask.in_order, views=_profits_from_views(ask))
        if bound.guard is None:
            return frame
        columns = named_columns(ask.text, frame.schema.names)
        found = set_aside(bound, lambda: plan(planning, guarded(bound, columns), [(bound, frame)], {}), frame, columns)
        return Frame(arrow_frame(planning.ctx, found), found.schema)


def _profits_from_views(ask: Ask) -> bool:
    """Whether the texts of segments are better read as views: where rows of one table are grouped, ordered or counted.

    Rows that are shown as they are would be copied once more for it, and a join counts what its views point into as
    often as it has batches of them, until there is no memory left.
    """
    if ask.in_order or len(ask.bound) != 1 or ask.bound[0].guard is not None:
        return False
    [bound] = ask.bound
    if ask.text.count(f'"{bound.namespace}"."{bound.table}"') != 1 or _JOINS.search(ask.text) is not None:
        return False
    return _GATHERS.search(ask.text) is not None


def plan(
    planning: Planning, text: str, relations: Sequence[tuple[Bound, Frame]], values: Mapping[str, pa.Scalar]
) -> DataFrame:
    """The plan of a text over these relations; raises what DataFusion says against it."""
    with registered(planning, relations):
        return planning.exact.plan(text, values, [frame.schema for _, frame in relations])


@contextmanager
def registered(planning: Planning, relations: Sequence[tuple[Bound, Frame]]) -> Iterator[None]:
    """Let the context know these relations by their names, for as long as a text is planned."""
    bound: list[tuple[Schema, str]] = []
    try:
        for name, frame in relations:
            schema = _schema(planning.ctx, name.namespace)
            bound.append((schema, name.table))
            schema.register_table(name.table, frame.frame.into_view())
        yield
    finally:
        for schema, table in bound:
            schema.deregister_table(table)


def _planning(partitions: int, pool_bytes: int) -> Planning:
    runtime = RuntimeEnvBuilder().with_disk_manager_os().with_fair_spill_pool(pool_bytes)
    planning = Planning.of(SessionConfig().with_target_partitions(partitions), runtime)
    planning.ctx.catalog().register_schema(SEGMENTS_SCHEMA, Schema.memory_schema())
    return planning


def _schema(ctx: SessionContext, name: str) -> Schema:
    catalog = ctx.catalog()
    if name not in catalog.schema_names():
        catalog.register_schema(name, Schema.memory_schema())
    return catalog.schema(name)
