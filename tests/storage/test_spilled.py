"""Rows that a session holds for itself, in memory or in a file without a name."""

from __future__ import annotations

import pyarrow as pa
import pytest

from kalam.query.handed import HandedPiece
from kalam.storage.log.spilled import INLINE_BYTES_MAX, Spill


@pytest.mark.parametrize("rows", [0, 10, INLINE_BYTES_MAX // 8 + 1, 100_000])
def test_a_piece_has_the_size_of_what_was_taken(rows: int) -> None:
    taken = pa.table({"n": pa.array(range(rows), pa.int64())})
    with Spill(taken.schema, lambda _: None, lambda: None) as spill:
        for start in range(0, rows, 1_000):
            spill.add(taken.slice(start, 1_000))
        piece = spill.piece()
    assert piece.table.equals(taken)
    assert piece.byte_count == HandedPiece.of(piece).byte_count == taken.nbytes
    assert (piece.file is not None) == (taken.nbytes > INLINE_BYTES_MAX)
