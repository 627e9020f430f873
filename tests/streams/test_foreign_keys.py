"""Keys of a bucket, without a broker: what is known of them, and what messages mean for it."""

from __future__ import annotations

import random

import pytest

from kalam.rows.foreign.messages import NEVER, ForeignMessages, is_no_event, ttl_ns
from kalam.tables.foreign.keys import Change, Keys, Kinship
from kalam.tables.foreign.port import Lifetimes

SECOND = 10**9
DEL = b"NATS/1.0\r\nKV-Operation: DEL\r\n\r\n"


def messages(*found: tuple[str, int] | tuple[str, int, bytes], at: int = 0) -> ForeignMessages:
    """Messages under keys with their sequences, stored in as many seconds after a time, and maybe with headers."""
    blocks = [each[2] if len(each) > 2 else b"" for each in found]
    seqs = [each[1] for each in found]
    subjects = [f"$KV.b.{each[0]}".encode() for each in found]
    return ForeignMessages(subjects, seqs, [(at + seq) * SECOND for seq in seqs], blocks, [b"{}"] * len(found))


def keys(*found: tuple[str, int] | tuple[str, int, bytes], **lifetimes: object) -> Keys:
    known = Keys(Lifetimes(**{"history": 1} | lifetimes))
    known.take(messages(*found), 0)
    return known


def test_no_messages_change_nothing() -> None:
    known = keys(("a", 1))
    assert known.take(messages(), 0) == []
    assert keys().take(messages(), 0) == []
    assert known.row_count == 1


def test_the_last_message_of_a_key_is_what_it_is() -> None:
    known = keys(("a", 1), ("b", 2))
    assert known.take(messages(("a", 3), ("c", 4), ("a", 5), ("b", 6, DEL)), 0) == [
        Change(None, 4),
        Change(1, 5),
        Change(2, None),
    ]
    assert known.take(messages(("b", 7, DEL)), 0) == []
    assert known.row_count == 2


def test_what_is_due_is_gone_and_the_broker_may_count_it_a_while() -> None:
    known = keys(("a", 1), ("b", 2), ("c", 9), max_age_ns=10 * SECOND)
    assert known.expire(12 * SECOND) == [Change(1, None), Change(2, None)]
    assert known.agrees(3, 9, known.count)
    assert known.agrees(2, 9, known.count)
    assert known.agrees(1, 9, known.count)
    assert not known.agrees(0, 9, known.count)
    assert not known.agrees(2, 9, known.count)
    assert known.take(messages(("a", 13)), 13 * SECOND) == [Change(None, 13)]


def test_a_broker_that_counts_others_is_not_agreed_with_but_for_what_came_since() -> None:
    known = keys(("a", 1), ("b", 2))
    before = known.count
    known.take(messages(("c", 3), ("d", 4)), 0)
    assert known.agrees(2, 2, before)  # as of message 2
    assert known.agrees(3, 2, before)
    assert known.agrees(4, 4, before)
    assert not known.agrees(5, 4, before)
    assert not known.agrees(3, 4, before)


@pytest.mark.parametrize(
    ("found", "kinship"),
    [
        ([("c", 3), ("d", 4)], Kinship.SAME),
        ([("b", 2), ("c", 4)], Kinship.SAME),
        ([("b", 2)], Kinship.OTHER),  # c went without a word
        ([("a", 4), ("b", 5), ("c", 6)], Kinship.UNKNOWN),
        ([("b", 2), ("x", 3), ("c", 4)], Kinship.OTHER),  # 3 was another's
        ([], Kinship.OTHER),
    ],
)
def test_messages_go_on_from_what_is_known(found: list[tuple[str, int]], kinship: Kinship) -> None:
    known = keys(("a", 1), ("b", 2), ("c", 3))
    there = [each for each in found if each in (("a", 1), ("b", 2), ("c", 3))]
    others = [each for each in found if each not in there]
    assert known.kinship(messages(*there).followed_by(messages(*others, at=100)), 3)[0] is kinship


def test_changes_one_by_one_come_to_the_same_as_a_comparison() -> None:
    chance = random.Random(5)
    for _ in range(50):
        known, first, rows = keys(), keys(), dict[int, bool]()
        log = [
            (f"k{chance.randrange(6)}", seq, DEL) if chance.random() < 0.3 else (f"k{chance.randrange(6)}", seq)
            for seq in range(1, 30)
        ]
        first.take(messages(*log[:15]), 0)
        known.take(messages(*log[:15]), 0)
        for each in log[15:]:
            for change in known.take(messages(each), 0):
                rows[change.old or 0] = False
                rows[change.new or 0] = True
        compared = first.difference(known)
        assert {change.new for change in compared} - {None} == {seq for seq, there in rows.items() if there and seq}
        assert {change.old for change in compared} - {None} == {
            seq for seq, there in rows.items() if not there and 0 < seq <= 15
        }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5", 5 * SECOND),
        ("1m30s", 90 * SECOND),
        ("1.5h", 5_400 * SECOND),
        ("500ms", SECOND // 2),
        ("never", NEVER),
        ("0", None),
        ("soon", None),
        ("", None),
    ],
)
def test_a_ttl_is_read_as_the_broker_reads_it(text: str, expected: int | None) -> None:
    assert ttl_ns(f"NATS/1.0\r\nNats-TTL: {text}\r\n\r\n".encode()) == expected


@pytest.mark.parametrize(
    ("header", "nothing"),
    [
        ("KV-Operation: DEL", True),
        ("KV-Operation: PURGE", True),
        ("KV-Operation: PUT", False),
        ("Nats-Marker-Reason: MaxAge", True),
        ("Nats-Schedule: @every 1s", True),
        ("X-KV-Operation: DEL", False),
    ],
)
def test_deletions_and_notes_are_no_events(header: str, nothing: bool) -> None:
    assert is_no_event(f"NATS/1.0\r\n{header}\r\nNats-Rollup: sub\r\n\r\n".encode()) is nothing
