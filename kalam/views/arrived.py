"""What changes of a source brought to the groups of a view, before these become rows."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import msgspec
import numpy as np

from kalam.views.groups.batch import Ints
from kalam.views.method import LeftOut


class Arrived(msgspec.Struct, frozen=True):
    """Rows of the source that came, by the slots of their groups and their places; one may come to many groups."""

    slots: Ints
    places: Ints

    def count(self, slots: Sequence[int]) -> int:
        """How many came to these groups."""
        chosen = np.isin(self.slots, slots)
        return len(np.unique(self.places[chosen]))


class Gathered(msgspec.Struct, frozen=True):
    """What so many ``versions`` of rows of the source brought: the groups they touched, and the rows that failed."""

    arrived: Arrived
    touched: Ints
    left_out: list[LeftOut]
    versions: int

    @classmethod
    def of(cls, pieces: Sequence[Gathered]) -> Gathered:
        """All of these, as if they had come at once."""
        if len(pieces) == 1:
            return pieces[0]
        *starts, versions = accumulate((piece.versions for piece in pieces), initial=0)
        return cls(
            Arrived(
                np.concatenate([piece.arrived.slots for piece in pieces]),
                np.concatenate([piece.arrived.places + start for piece, start in zip(pieces, starts, strict=True)]),
            ),
            np.unique(np.concatenate([piece.touched for piece in pieces])),
            [left_out for piece in pieces for left_out in piece.left_out],
            versions,
        )
