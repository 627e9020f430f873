"""What came and what went in a run of changes, as columns: each is made once, however many views read it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from threading import Lock

import numpy as np
import pyarrow as pa

from kalam.rows.types import Row
from kalam.tables.versions import ChangeBatch, Logged, batch_of
from kalam.views.groups.batch import Ints
from kalam.views.relation import Relation


class Signed:
    """Versions of rows: those that came, and behind them, where the source ``retracts``, those that went.

    ``weights`` are their signs. What makes something is blocking, and may be called from many threads.
    """

    def __init__(self, news: list[Row], olds: list[Row], versions: Callable[[], Signed] | None = None) -> None:
        self._columns: dict[tuple[int, pa.DataType], pa.Array] = {}
        self._making = Lock()
        self._rows, self._whole = news + olds, versions
        self.weights: Ints = np.ones(len(self._rows), np.int64)
        self.weights[len(news) :] = -1

    @classmethod
    def of(cls, batch: ChangeBatch, *, retracts: bool) -> Signed:
        """The versions of changes."""
        # The last column of a version says that it is deleted, where there are old versions at all.
        news = [row for row in batch.news if row is not None and not (retracts and row[-1] is True)]
        return cls(news, [row for row in batch.olds if row is not None] if retracts else [])

    @classmethod
    def of_logged(cls, logged: Sequence[Logged]) -> Signed:
        """Those of chunks of a source that retracts; the system columns are added to rows where a version is wanted."""
        news = [row for each in logged if each.chunk.op != "delete" for row in each.rows]
        gone = (each.rows if each.chunk.op == "delete" else each.old_rows or () for each in logged)
        return cls(news, [row for rows in gone for row in rows], lambda: cls.of(batch_of(logged), retracts=True))

    @property
    def versions(self) -> list[Row]:
        """The versions, in the order of the weights."""
        return self._rows if self._whole is None else self._whole().versions

    def rows(self, relation: Relation) -> pa.Table:
        """The versions, as far as a relation reads them; of a table it reads no system columns."""
        with self._making:
            arrays = [
                self._column(place, field.type) for place, field in zip(relation.places, relation.schema, strict=True)
            ]
        return pa.Table.from_arrays(arrays, schema=relation.schema)

    def _column(self, place: int, kind: pa.DataType) -> pa.Array:
        made = self._columns.get((place, kind))
        if made is None:
            made = self._columns[place, kind] = pa.array(list(map(itemgetter(place), self._rows)), kind)
        return made
