"""What differs between two versions of a row, as events tell it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kalam.rows.codec import Codec
from kalam.rows.shown import differs

NAN = math.nan
FLOATS = st.sampled_from([None, 0.0, -0.0, 1.5, NAN, -NAN, math.inf]) | st.floats()
VALUES = st.tuples(FLOATS, st.sampled_from([None, "", "a", "b"]))


@pytest.mark.parametrize(
    ("a", "b", "different"),
    [
        (0.0, -0.0, True),
        (-0.0, -0.0, False),
        (NAN, float("nan"), False),
        (NAN, 1.0, True),
        (math.inf, -math.inf, True),
        (1.5, 1.5, False),
        (1, True, True),
        (1, 1.0, True),
        (None, 0, True),
        ("a", "a", False),
        ({"a": 1}, {"a": 2}, True),
    ],
)
def test_values_differ_to_the_bit(a: Any, b: Any, different: bool) -> None:
    assert differs(a, b) is different
    assert differs(b, a) is different


@settings(deadline=None)
@given(st.lists(st.tuples(VALUES, VALUES), max_size=20))
def test_the_former_values_of_a_row_are_those_that_differ(
    codec_of: Callable[[str], Codec], pairs: list[tuple[tuple[Any, Any], tuple[Any, Any]]]
) -> None:
    codec = codec_of("CREATE SHARED TABLE t (id BIGINT PRIMARY KEY, a DOUBLE, b TEXT)")
    olds, news = [(1, *old) for old, _ in pairs], [(1, *new) for _, new in pairs]
    found = codec.events.changed(olds, news)
    shown = [msgspec.json.decode(each) for each in codec.events.each(olds)]
    assert msgspec.json.decode(codec.events.encode(found)) == [
        {name: row[name] for name, a, b in zip(("id", "a", "b"), old, new, strict=True) if differs(a, b)}
        for old, new, row in zip(olds, news, shown, strict=True)
    ]
