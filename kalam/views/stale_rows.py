"""Rows of the source that are gathered to make groups anew."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import pyarrow as pa

from kalam.views.groups import GroupTable
from kalam.views.groups.batch import Ints
from kalam.views.groups.plain import unified
from kalam.views.shape.classified import PLACE


class Gathers(Protocol):
    """Takes what rows bring to their groups."""

    def take(self, rows: pa.Table) -> object:
        """Take rows."""


class StaleRows:
    """Rows of the source that belong to groups that are stale; a Gathers."""

    def __init__(self, groups: GroupTable) -> None:
        self._groups = groups
        self._rows: list[pa.Table] = []
        self._weights: list[Ints] = []

    def take(self, rows: pa.Table, weights: Ints | None = None) -> None:
        """Take rows, each with its sign; without signs all are there."""
        weights = np.ones(rows.num_rows, np.int64) if weights is None else weights
        chosen = self._groups.is_stale(rows)
        kept = rows.filter(pa.array(chosen))
        self._rows.append(pa.table({name: unified(kept[name]) for name in kept.column_names if name != PLACE}))
        self._weights.append(weights[chosen])

    def remake(self) -> None:
        """Make the groups anew of these rows."""
        self._groups.remake(pa.concat_tables(self._rows), np.concatenate(self._weights))
