"""Events that wait for others before them: each comes out once and in order, whatever the order in which it came."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kalam.live.held_events import HeldEvents, of_acks
from kalam.tables.ports import StoredEvents


def payload(seq: int) -> bytes:
    return f"event {seq}".encode()


batches = st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=8, unique=True), max_size=12)


@given(batches, st.integers(0, 10), st.none() | st.integers(1, 30))
def test_what_follows_comes_out_once_and_in_order(
    batches: list[list[int]], after_seq: int, upto_seq: int | None
) -> None:
    held = HeldEvents()
    for number, seqs in enumerate(batches):
        payloads = list(map(payload, seqs))
        held.add(of_acks(seqs, payloads) if number % 2 else StoredEvents(seqs, [7] * len(seqs), payloads))
    there = {seq for seqs in batches for seq in seqs}
    taken = list(held.take(after_seq, upto_seq))
    last = after_seq
    while last + 1 in there and (upto_seq is None or last < upto_seq):
        last += 1
    assert [seq for events in taken for seq in events.seqs] == list(range(after_seq + 1, last + 1))
    for events in taken:
        assert events.payloads == [payload(seq) for seq in events.seqs]
        assert len(events.seqs) == len(events.stored_us)
    rest = [seq for events in held.take(last, None) for seq in events.seqs]
    while last + 1 in there:
        last += 1
    assert rest == list(range(last + 1 - len(rest), last + 1))
    if not held:
        assert held.byte_count == 0


def test_those_whose_times_are_known_come_before_those_of_acks() -> None:
    held = HeldEvents()
    held.add(of_acks(range(5, 8), list(map(payload, range(5, 8)))))
    held.add(StoredEvents([5, 6, 7], [1, 2, 3], list(map(payload, range(5, 8)))))
    assert [list(events.stored_us) for events in held.take(4)] == [[1, 2, 3]]
