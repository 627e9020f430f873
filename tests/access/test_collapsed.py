"""What repeats is kept nine times, and then counted."""

from __future__ import annotations

from msgspec.structs import replace

from kalam.access.collapsed import MINUTE_US, Collapsed
from kalam.access.entry import Entry

REFUSED = Entry(at_us=0, user="ada", address="10.0.0.1", action="login", outcome="unauthenticated", detail="wrong")


def test_the_tenth_and_what_follows_are_one_with_a_count() -> None:
    collapsed = Collapsed()
    kept = [collapsed.take(replace(REFUSED, at_us=1_000 + number)) for number in range(250)]
    assert kept == [replace(REFUSED, at_us=1_000 + number) for number in range(9)] + [None] * 241
    assert list(collapsed.due(1_000 + MINUTE_US - 1)) == []
    assert list(collapsed.due(1_000 + MINUTE_US)) == [
        replace(REFUSED, at_us=1_249, detail="wrong, 241 times within a minute")
    ]
    assert list(collapsed.due(None)) == []


def test_ten_are_nine_and_one() -> None:
    collapsed = Collapsed()
    assert [collapsed.take(REFUSED) is None for _ in range(10)] == [False] * 9 + [True]
    assert [entry.detail for entry in collapsed.due(None)] == ["wrong, 1 time within a minute"]


def test_nine_are_kept_as_they_are() -> None:
    collapsed = Collapsed()
    assert all(collapsed.take(REFUSED) for _ in range(9))
    assert list(collapsed.due(None)) == []


def test_each_kind_counts_by_itself() -> None:
    collapsed = Collapsed()
    kinds = [
        REFUSED,
        replace(REFUSED, user=None),
        replace(REFUSED, address="10.0.0.2"),
        replace(REFUSED, action="SELECT"),
        replace(REFUSED, object="app.notes"),
        replace(REFUSED, outcome="too_busy"),
        replace(REFUSED, detail=""),
    ]
    assert all(collapsed.take(kind) for kind in kinds for _ in range(9))
    assert not any(collapsed.take(kind) for kind in kinds)
    assert len(list(collapsed.due(None))) == len(kinds)


def test_the_next_minute_begins_anew() -> None:
    collapsed = Collapsed()
    for _ in range(20):
        collapsed.take(REFUSED)
    list(collapsed.due(MINUTE_US))
    assert collapsed.take(REFUSED) is not None


def test_too_many_kinds_are_counted_together() -> None:
    collapsed = Collapsed(kinds_max=10)
    refused = [replace(REFUSED, at_us=1, address=f"10.0.0.{number}") for number in range(100)]
    assert sum(collapsed.take(entry) is not None for entry in refused) == 10
    assert list(collapsed.due(None)) == [
        replace(REFUSED, at_us=1, user=None, address="", detail="of several, 90 times within a minute")
    ]
