"""Judges the conditions of live queries by DataFusion itself, so that a WHERE means there what it means in SELECT.

Planning costs ten times what running costs, so conditions are planned once, ``GROUP_MAX`` together as the columns of
one query, over a source that hands out whichever batch is being judged. A condition that reads the clock is planned
anew each time, for the plan holds the time at which it was made. Where a group fails, each condition is judged alone:
a row on which one of them divides by zero ends that one and no other.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from datafusion import SessionConfig

from kalam.query.parameters import received
from kalam.query.wire import Bound, Check, Condition, Failure, Judge, Verdict
from kalam.query.worker.arrow_frames import arrow_frame
from kalam.query.worker.faults import explain
from kalam.query.worker.frames import Frame
from kalam.query.worker.planning import Planning, plan

GROUP_MAX = 128
PLANS_MAX = 1_024


class Batches(ds.InMemoryDataset):  # type: ignore[misc]  # pyarrow has no types
    """A data set of one fragment, whose rows are those of ``batch`` at the time of each run."""

    batch: pa.RecordBatch

    @classmethod
    def of(cls, schema: pa.Schema) -> Batches:
        """One that has no rows yet."""
        made = cls([no_rows(schema)])
        made.batch = no_rows(schema)
        return made

    def get_fragments(self, filter: Any = None) -> Any:  # noqa: A002 - pyarrow's name
        """The one fragment."""
        return iter([_Fragment(self)])


class _Fragment:
    def __init__(self, source: Batches) -> None:
        self._source = source

    def scanner(self, schema: Any = None, columns: Any = None, **_: Any) -> Any:
        batch = self._source.batch if columns is None else self._source.batch.select(columns)
        return ds.Scanner.from_batches([batch], schema=batch.schema)


class Judges:
    """Judges the conditions that it was told, over the rows of any table."""

    def __init__(self) -> None:
        self._planning = Planning.of(SessionConfig().with_target_partitions(1))
        self._conditions: dict[int, Condition] = {}
        self._sources: dict[tuple[str, str, bytes], Batches] = {}
        self._plans: dict[tuple[int, ...], Any] = {}

    def check(self, check: Check) -> None:
        """Raise what DataFusion has against a condition as a WHERE."""
        schema = pa.ipc.read_schema(pa.py_buffer(check.schema))
        name = f'"{check.namespace}"."{check.table}"'
        text = f'SELECT "{schema.names[0]}" FROM {name} WHERE ({check.text}\n)'  # noqa: S608 - the user's own text, read only
        # Not over a source: it would be asked to evaluate parts of the WHERE itself, in Python.
        nothing = Frame(arrow_frame(self._planning.ctx, schema.empty_table()), schema)
        bound = [(Bound(check.namespace, check.table, 0), nothing)]
        plan(self._planning, text, bound, received(check.parameters, None)).execution_plan()

    def judge(self, ask: Judge) -> list[Verdict]:
        """Judge conditions over rows."""
        for number in ask.forget:
            self._conditions.pop(number, None)
        self._conditions |= {condition.number: condition for condition in ask.told}
        table = pa.ipc.open_stream(ask.rows).read_all()
        source = self._source(ask, table.schema)
        source.batch = table.combine_chunks().to_batches()[0] if table.num_rows else no_rows(table.schema)
        verdicts: list[Verdict] = []
        for group in self._groups(ask.conditions):
            verdicts += self._judge_group(ask, source, group)
        source.batch = no_rows(table.schema)
        if len(self._plans) > PLANS_MAX:
            self._plans.clear()
        return verdicts

    def _source(self, ask: Judge, schema: pa.Schema) -> Batches:
        name = (ask.namespace, ask.table, schema.serialize().to_pybytes())
        if name not in self._sources:
            if len(self._sources) > PLANS_MAX:
                self._sources.clear()
                self._plans.clear()
            self._sources[name] = Batches.of(schema)
        return self._sources[name]

    def _groups(self, numbers: Sequence[int]) -> list[tuple[int, ...]]:
        alone = [number for number in numbers if self._conditions[number].alone]
        apart = set(alone)
        rest = [number for number in numbers if number not in apart]
        chunks = [tuple(rest[start : start + GROUP_MAX]) for start in range(0, len(rest), GROUP_MAX)]
        return [*chunks, *((number,) for number in alone)]

    def _judge_group(self, ask: Judge, source: Batches, group: tuple[int, ...]) -> list[Verdict]:
        try:
            batches = [batch.to_pyarrow() for batch in self._planning.ctx.execute(self._plan(ask, source, group), 0)]
        except BaseException as exc:  # noqa: BLE001 - DataFusion raises plain Exceptions, and panics that are none
            if len(group) == 1:
                error = explain(exc)
                return [Verdict(group[0], b"", Failure(error.code, error.detail, error.fields))]
            return [verdict for number in group for verdict in self._judge_group(ask, source, (number,))]
        table = pa.Table.from_batches(batches)
        return [
            Verdict(number, pc.indices_nonzero(table.column(place)).to_numpy().astype(np.int32).tobytes())
            for place, number in enumerate(group, 1)
        ]

    def _plan(self, ask: Judge, source: Batches, group: tuple[int, ...]) -> Any:
        known = self._plans.get(group)
        if known is not None:
            return known
        # The first column stands there only so that a row stays a row where no condition names a column.
        names, first = count(), self._conditions[group[0]]
        texts = [self._conditions[number].text for number in group]
        members = ", ".join(f"(({text}\n) IS TRUE) AS kalam_{next(names)}" for text in texts)
        name = f'"{ask.namespace}"."{ask.table}"'
        text = f'SELECT "{source.schema.names[0]}" AS kalam_first, {members} FROM {name}'  # noqa: S608 - as above
        frame = Frame(self._planning.ctx.read_table(source), source.schema)
        bound = [(Bound(ask.namespace, ask.table, 0), frame)]
        found = plan(self._planning, text, bound, received(first.parameters, None)).execution_plan()
        if not first.anew:
            self._plans[group] = found
        return found


def no_rows(schema: pa.Schema) -> pa.RecordBatch:
    """A batch without rows."""
    return pa.RecordBatch.from_pylist([], schema=schema)
