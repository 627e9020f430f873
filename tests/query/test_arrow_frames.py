"""Frames of Arrow tables keep their rows, and their context keeps nothing."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
from datafusion import SessionContext

import kalam
from kalam.query.worker.arrow_frames import arrow_frame


def test_a_frame_keeps_its_rows_and_lets_go_of_them_with_itself() -> None:
    ctx, before = SessionContext(), pa.total_allocated_bytes()
    frames = [arrow_frame(ctx, pa.table({"a": pa.array(range(100_000)), "b": [number] * 100_000})) for number in (1, 2)]
    assert ctx.catalog().schema("public").names() == set()
    assert frames[0].join(frames[1], on="a").count() == 100_000
    assert frames[1].limit(1).to_pydict() == {"a": [0], "b": [2]}
    del frames
    assert pa.total_allocated_bytes() == before


def test_no_other_way_is_taken_which_would_keep_each_table_for_good() -> None:
    """``ctx.from_arrow`` and its like register what they are given under a name that nobody takes away."""
    found = [
        f"{path.name}: {call}"
        for path in Path(kalam.__file__).parent.rglob("*.py")
        for call in re.findall(r"ctx\.(?:from_\w+|create_dataframe)\(", path.read_text())
        if path.name != "arrow_frames.py"
    ]
    assert found == [], "use kalam.query.worker.arrow_frames.arrow_frame"
