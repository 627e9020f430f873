"""An aggregate of a view as its groups know it."""

from __future__ import annotations

import msgspec
import pyarrow as pa

from kalam.views.groups.plain import is_kept
from kalam.views.shape.classified import AggregateKind


class KeptCall(msgspec.Struct, frozen=True):
    """An aggregate with the types of what it gathers (None for ``count(*)``) and of its value.

    ``column`` is the number of the aggregate whose argument is the same, None for its own: it is gathered once.
    """

    kind: AggregateKind
    argument: pa.DataType | None
    value: pa.DataType
    column: int | None = None

    @property
    def unkept(self) -> str | None:
        """The type that cannot be kept, or None."""
        kind = self.argument
        if kind is None or self.kind is AggregateKind.COUNT:
            return None
        if self.kind in (AggregateKind.SUM, AggregateKind.AVG):
            small = pa.types.is_integer(kind) and not pa.types.is_uint64(kind)
            known = small or pa.types.is_float32(kind) or pa.types.is_float64(kind) or pa.types.is_decimal128(kind)
        else:
            known = is_kept(kind)
        return None if known else str(kind)
