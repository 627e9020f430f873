"""Judges conditions by DataFusion itself, so that a WHERE means here what it means in SELECT.

Planning costs ten times what running costs, so conditions are planned once, ``GROUP_MAX`` together as the columns of
one query, over a source that hands out whichever batch is being judged. A condition that reads the clock is planned
anew each time, for the plan holds the time at which it was made. Where a group fails, each condition is judged alone:
a row on which one of them divides by zero ends that one and no other.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from itertools import count
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
from datafusion import SessionConfig, SessionContext
from datafusion.catalog import Schema

from kalam.errors import KalamError
from kalam.live.predicate import Predicate
from kalam.names import TableName
from kalam.query.arrow_frames import arrow_frame
from kalam.query.exact.rewrite import ExactQueries, exact_config
from kalam.query.executor import explain
from kalam.rows.columns import arrow_schema, to_arrow
from kalam.rows.types import Row
from kalam.schema import Column

GROUP_MAX = 128
PLANS_MAX = 256
Verdicts = dict[Predicate, "list[int] | KalamError"]
"""For each predicate the places of the versions for which it holds, or why it cannot be said."""


class _Source(ds.InMemoryDataset):  # type: ignore[misc]  # pyarrow has no types
    """A data set of one fragment, whose rows are those of ``batch`` at the time of each run."""

    batch: pa.RecordBatch

    def get_fragments(self, filter: Any = None) -> Any:  # noqa: A002 - pyarrow's name
        return iter([_Fragment(self)])


class _Fragment:
    def __init__(self, source: _Source) -> None:
        self._source = source

    def scanner(self, schema: Any = None, columns: Any = None, **_: Any) -> Any:
        batch = self._source.batch if columns is None else self._source.batch.select(columns)
        return ds.Scanner.from_batches([batch], schema=batch.schema)


class Contexts:
    """The context in which conditions are planned, one for all tables."""

    def __init__(self) -> None:
        config = SessionConfig().with_target_partitions(1).with_information_schema(enabled=False)
        self.ctx = SessionContext(exact_config(config))
        self._exact = ExactQueries(self.ctx)
        self._catalog = self.ctx.catalog()
        self._planning = threading.Lock()

    def plan(self, name: TableName, source: Any, schema: pa.Schema, text: str, parameters: Sequence[object]) -> Any:
        """The physical plan of a query over ``source`` of that schema, which goes by the table's name in it."""
        values = {str(index): pa.scalar(value) for index, value in enumerate(parameters, 1)}
        with self._planning:
            if name.namespace not in self._catalog.schema_names():
                self._catalog.register_schema(name.namespace, Schema.memory_schema())
            namespace = self._catalog.schema(name.namespace)
            namespace.register_table(name.table, source)
            try:
                return self._exact.plan(text, values, [schema]).execution_plan()
            finally:
                namespace.deregister_table(name.table)


class Judge:
    """Judges the conditions of one table at one schema version."""

    def __init__(self, contexts: Contexts, name: TableName, columns: Sequence[Column]) -> None:
        self._contexts, self._name = contexts, name
        self._schema = arrow_schema(columns)
        self._source = _Source([to_arrow([], self._schema)])
        self._source.batch = to_arrow([], self._schema)
        self._plans: dict[tuple[Predicate, ...], Any] = {}
        self._judging = threading.Lock()

    def check(self, predicate: Predicate) -> None:
        """Raise the error that SELECT gives for a condition that cannot be planned as a WHERE."""
        text = f'SELECT "{self._schema.names[0]}" FROM {self._table} WHERE ({predicate.text}\n)'  # noqa: S608 - the user's own text, read only
        try:
            # Not over the source: it would be asked to evaluate parts of the WHERE itself, in Python.
            nothing = arrow_frame(self._contexts.ctx, to_arrow([], self._schema)).into_view()
            self._contexts.plan(self._name, nothing, self._schema, text, predicate.parameters)
        except KalamError:
            raise
        except Exception as exc:
            raise explain(exc) from exc

    @property
    def _table(self) -> str:
        return f'"{self._name.namespace}"."{self._name.table}"'

    def judge(self, predicates: Sequence[Predicate], versions: Sequence[Row]) -> Verdicts:
        """Judge every predicate over every version."""
        groups = self._groups(predicates)
        verdicts: Verdicts = {}
        with self._judging:
            self._source.batch = to_arrow(versions, self._schema)
            for group in groups:
                verdicts |= self._judge_group(group)
            self._source.batch = to_arrow([], self._schema)
            if len(self._plans) > PLANS_MAX:
                self._plans = {group: plan for group, plan in self._plans.items() if group in set(groups)}
        return verdicts

    def _groups(self, predicates: Sequence[Predicate]) -> list[tuple[Predicate, ...]]:
        alone = [p for p in predicates if p.parameters or (p.condition and p.condition.reads_clock)]
        apart = set(alone)
        rest = [predicate for predicate in predicates if predicate not in apart]
        chunks = [tuple(rest[start : start + GROUP_MAX]) for start in range(0, len(rest), GROUP_MAX)]
        return [*chunks, *((predicate,) for predicate in alone)]

    def _judge_group(self, group: tuple[Predicate, ...]) -> Verdicts:
        try:
            batches = [batch.to_pyarrow() for batch in self._contexts.ctx.execute(self._plan(group), 0)]
        except Exception as exc:  # noqa: BLE001 - DataFusion raises plain Exceptions
            if len(group) == 1:
                return {group[0]: explain(exc)}
            verdicts: Verdicts = {}
            for predicate in group:
                verdicts |= self._judge_group((predicate,))
            return verdicts
        table = pa.Table.from_batches(batches)
        return {
            predicate: pa.compute.indices_nonzero(table.column(number)).to_pylist()
            for number, predicate in enumerate(group, 1)
        }

    def _plan(self, group: tuple[Predicate, ...]) -> Any:
        plan = self._plans.get(group)
        if plan is not None:
            return plan
        # The first column stands there only so that a row stays a row where no condition names a column.
        names = count()
        members = ", ".join(f"(({predicate.text}\n) IS TRUE) AS kalam_{next(names)}" for predicate in group)
        text = f'SELECT "{self._schema.names[0]}" AS kalam_first, {members} FROM {self._table}'  # noqa: S608 - as above
        source = self._contexts.ctx.read_table(self._source)
        plan = self._contexts.plan(self._name, source, self._schema, text, group[0].parameters)
        if not (group[0].condition and group[0].condition.reads_clock):
            self._plans[group] = plan
        return plan
