"""What differs between two versions of a row, as events tell it."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kalam.rows.codec import Codec
from kalam.rows.lone_values import timestamp_text
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


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC), "2023-11-14T22:13:20.000000Z"),
        (datetime(2023, 11, 14, 22, 13, 20, 1, UTC), "2023-11-14T22:13:20.000001Z"),
        (datetime(1969, 12, 31, 23, 59, 59, 120_000, UTC), "1969-12-31T23:59:59.120000Z"),
        (datetime(1, 1, 1, tzinfo=UTC), "0001-01-01T00:00:00.000000Z"),
        (datetime(9999, 12, 31, 23, 59, 59, 999_999, UTC), "9999-12-31T23:59:59.999999Z"),
    ],
)
def test_a_timestamp_has_six_fractional_digits(codec_of: Callable[[str], Codec], moment: datetime, text: str) -> None:
    codec = codec_of("CREATE SHARED TABLE t (id BIGINT PRIMARY KEY, at TIMESTAMP)")
    assert timestamp_text(moment) == text
    assert codec.events.each([(1, moment), (2, None)]) == [
        b'{"id":1,"at":"%b"}' % text.encode(),
        b'{"id":2,"at":null}',
    ]


@settings(deadline=None)
@given(st.datetimes(timezones=st.just(UTC)), st.booleans())
def test_every_timestamp_is_shown_as_python_shows_it(moment: datetime, whole: bool) -> None:
    moment = moment.replace(microsecond=0) if whole else moment
    assert timestamp_text(moment) == moment.isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


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


@given(st.lists(st.sampled_from([0, 1, 999_999]), max_size=30))
def test_every_whole_second_among_others_has_its_six_digits(
    codec_of: Callable[[str], Codec], fractions: list[int]
) -> None:
    codec = codec_of("CREATE SHARED TABLE t (id BIGINT PRIMARY KEY, at TIMESTAMP)")
    rows = [(7, datetime(2026, 1, 2, 3, 4, 5, micros, UTC)) for micros in fractions]
    shown = msgspec.json.decode(codec.changes.encode(codec.changes.maps(rows, ("now", False))))
    assert shown == [
        {"id": 7, "at": f"2026-01-02T03:04:05.{micros:06}Z", "_updated": "now", "_deleted": False}
        for micros in fractions
    ]
