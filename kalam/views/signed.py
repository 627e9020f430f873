"""What came and what went in a run of changes, as columns: each is made once, however many views read it."""

from __future__ import annotations

from threading import Lock

import numpy as np
import pyarrow as pa

from kalam.rows.types import Row
from kalam.tables.versions import ChangeBatch
from kalam.views.groups.batch import Ints
from kalam.views.relation import Relation


class Signed:
    """Versions of rows: those that came, and behind them, where the source ``retracts``, those that went.

    ``weights`` are their signs. What makes something is blocking, and may be called from many threads.
    """

    def __init__(self, batch: ChangeBatch, *, retracts: bool) -> None:
        self._columns: dict[tuple[int, pa.DataType], pa.Array] = {}
        self._making = Lock()
        # The last column of a version says that it is deleted, where there are old versions at all.
        news = [row for row in batch.news if row is not None and not (retracts and row[-1] is True)]
        olds = [row for row in batch.olds if row is not None] if retracts else []
        self.versions: list[Row] = news + olds
        self.weights: Ints = np.ones(len(self.versions), np.int64)
        self.weights[len(news) :] = -1

    def rows(self, relation: Relation) -> pa.Table:
        """The versions, as far as a relation reads them."""
        with self._making:
            arrays = [
                self._column(place, field.type) for place, field in zip(relation.places, relation.schema, strict=True)
            ]
        return pa.Table.from_arrays(arrays, schema=relation.schema)

    def _column(self, place: int, kind: pa.DataType) -> pa.Array:
        made = self._columns.get((place, kind))
        if made is None:
            made = self._columns[place, kind] = pa.array([version[place] for version in self.versions], kind)
        return made
