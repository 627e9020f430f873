"""The pieces of a window: in the order of the sequences, whatever the clock did."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from kalam.tables.window_pieces import EVENT_SEQ, EVENT_TIME, Pieces

SCHEMA = pa.schema([("id", pa.int64()), (EVENT_SEQ, pa.int64()), (EVENT_TIME, pa.int64())])


def pieces_of(times: list[int], cut: int) -> Pieces:
    """Events 1, 2, … stored at these times, in pieces of ``cut`` events."""
    pieces = Pieces(SCHEMA)
    for start in range(0, len(times), cut):
        seqs = range(start + 1, start + 1 + len(times[start : start + cut]))
        columns = [pa.array(seqs), pa.array(seqs), pa.array(times[start : start + cut])]
        pieces.add(pa.record_batch(columns, schema=SCHEMA))
    return pieces


@pytest.mark.parametrize("cut", [1, 3, 1_000])
def test_after_a_step_back_of_the_clock_each_event_expires_by_its_own_time(cut: int) -> None:
    times = [*range(100, 200), *range(50, 150)]  # the clock was set back by 150 after a hundred events
    pieces = pieces_of(times, cut)
    for oldest_us in (0, 75, 99, 100, 149, 150, 198, 199):
        seen = pieces.visible(1, 200, oldest_us).column(EVENT_SEQ).to_pylist()
        assert seen == [seq for seq, time in enumerate(times, 1) if time > oldest_us]


@pytest.mark.parametrize("cut", [1, 3, 1_000])
def test_bounds_and_removals_hold_after_a_step_back_too(cut: int) -> None:
    pieces = pieces_of([*range(100, 200), *range(50, 150)], cut)
    pieces.remove(np.array([5, 150], np.int64))
    pieces.trim(90)
    seen = pieces.visible(90, 160, None).column(EVENT_SEQ).to_pylist()
    assert seen == [seq for seq in range(90, 161) if seq != 150]
    assert pieces.count(90, 160) == len(seen)
