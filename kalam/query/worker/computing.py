"""Computes queries that are asked of batch after batch, each over the rows of one table: the views that are kept so.

A query is planned once, over a source that hands out whichever batch is at hand: running a plan again costs a fifth
of planning anew. Only what looks at each row by itself may be asked so, for a plan that gathers rows may keep some of
them. A LIMIT that no table reaches stands between the source and the query: pyarrow would be asked to judge its WHERE
otherwise, and means something else by it.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from datafusion import SessionConfig

from kalam.query.arrow_streams import stream_bytes
from kalam.query.results import widely_known
from kalam.query.wire import Bound, Compute, Computed
from kalam.query.worker.frames import Frame
from kalam.query.worker.judging import Batches, no_rows
from kalam.query.worker.planning import Planning, plan

NO_LIMIT = (1 << 63) - 2


class Computers:
    """Computes the queries that it was told."""

    def __init__(self) -> None:
        self._planning = Planning.of(SessionConfig().with_target_partitions(1))
        self._plans: dict[int, tuple[Batches, Any, pa.Schema]] = {}

    def compute(self, ask: Compute) -> bytes:
        """The result, as an Arrow stream; raises what DataFusion says."""
        for number in ask.forget:
            self._plans.pop(number, None)
        if ask.told is not None:
            self._plans[ask.number] = self._planned(ask.told)
        source, planned, schema = self._plans[ask.number]
        rows = pa.ipc.open_stream(ask.rows).read_all()
        source.batch = rows.combine_chunks().to_batches()[0] if rows.num_rows else no_rows(rows.schema)
        try:
            found = [batch.to_pyarrow() for batch in self._planning.ctx.execute(planned, 0)]
        finally:
            source.batch = no_rows(rows.schema)
        result = pa.Table.from_batches(found) if found else schema.empty_table()
        return bytes(stream_bytes(widely_known(result)).to_pybytes())

    def _planned(self, told: Computed) -> tuple[Batches, Any, pa.Schema]:
        schema = pa.ipc.read_schema(pa.py_buffer(told.schema))
        source = Batches.of(schema)
        frame = Frame(self._planning.ctx.read_table(source).limit(NO_LIMIT), schema)
        made = plan(self._planning, told.text, [(Bound(told.namespace, told.table, 0), frame)], {})
        return source, made.execution_plan(), made.schema()
