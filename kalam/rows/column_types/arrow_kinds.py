"""Which kind of values an Arrow type has."""

from __future__ import annotations

import pyarrow as pa

_types = pa.types


def is_text(kind: pa.DataType) -> bool:
    """Whether values are texts."""
    return bool(_types.is_string(kind) or _types.is_large_string(kind))


def is_bytes(kind: pa.DataType) -> bool:
    """Whether values are bytes."""
    return bool(_types.is_binary(kind) or _types.is_large_binary(kind) or _types.is_fixed_size_binary(kind))


def is_number(kind: pa.DataType) -> bool:
    """Whether values are numbers."""
    return bool(_types.is_integer(kind) or _types.is_floating(kind) or _types.is_decimal(kind))


def refuse_unless(fits: bool, what: str) -> None:
    """Raise ValueError of a column that holds something else."""
    if not fits:
        raise ValueError(f"it has no {what}")
