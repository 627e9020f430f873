"""Which message is the present one of each key of a bucket, and when it goes. Pure.

A key is what its last message says, however many are kept: a value, or that it was removed, which the broker keeps as
a message, too. What nobody tells of is reckoned here: a message expires after the bucket's ``max_age`` or its own TTL,
by the broker's clock, and leaves no word where no markers are left. Then the broker's count of subjects says whether
all is known: it lags a little behind the clock, so of what is due the oldest are gone first.
"""

from __future__ import annotations

import enum
import heapq
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, repeat

import msgspec

from kalam.rows.foreign.messages import NEVER, OF_KEYS, ForeignMessages, is_no_event, ttl_ns
from kalam.tables.foreign.port import Lifetimes


class Held(msgspec.Struct, frozen=True, gc=False):
    """The last message of a key; ``is_row`` if it is a value."""

    seq: int
    time_ns: int
    is_row: bool


class Change(msgspec.Struct, frozen=True, gc=False):
    """A key whose value was in one message and is in another; None for no value."""

    old: int | None
    new: int | None


class Kinship(enum.Enum):
    """Whether messages go on from what is held."""

    SAME = enum.auto()
    OTHER = enum.auto()
    UNKNOWN = enum.auto()


class Keys:
    """The keys of a bucket, in the order of their last messages."""

    def __init__(self, lifetimes: Lifetimes) -> None:
        self.lifetimes = lifetimes
        self._held: dict[bytes, Held] = {}
        self._expiring: list[tuple[int, int, bytes]] = []
        self._due: dict[bytes, int] = {}
        self._last_seq = 0
        self.is_stale = False
        """Whether a message is due whose key may have an older one, which only the broker knows."""

    @property
    def row_count(self) -> int:
        """How many keys have a value."""
        return sum(held.is_row for held in self._held.values())

    def take(self, messages: ForeignMessages, now_ns: int) -> list[Change]:
        """Take in messages that follow, in their order: what changes, which is in their order, too."""
        last = {subject: place for place, subject in enumerate(messages.subjects)}
        self._last_seq = max(self._last_seq, *messages.seqs[-1:], 0)
        lasting = self.lifetimes.max_age_ns is None
        if lasting and self._are_new(messages, last):
            held = map(Held, messages.seqs, messages.times_ns, repeat(True))
            self._held.update(zip(messages.subjects, held, strict=True))
            return list(map(Change, repeat(None), messages.seqs))
        changes: list[Change] = []
        for place in sorted(last.values()):
            subject, seq, time_ns = messages.subjects[place], messages.seqs[place], messages.times_ns[place]
            block = messages.headers[place]
            before = self._held.pop(subject, None)
            if before is not None and (before.seq, before.time_ns) == (seq, time_ns):
                self._held[subject] = before
                continue
            if self._due:
                self._due.pop(subject, None)
            is_row = not (block and is_no_event(block)) and subject.startswith(OF_KEYS)
            if lasting and not block:
                self._held[subject] = Held(seq, time_ns, is_row)
            else:
                is_row = self._keep(subject, Held(seq, time_ns, is_row), block, now_ns)
            old = before.seq if before is not None and before.is_row else None
            if old is not None or is_row:
                changes.append(Change(old, seq if is_row else None))
        return changes

    def _are_new(self, messages: ForeignMessages, last: Mapping[bytes, int]) -> bool:
        """Whether messages are plain values of keys that are not known."""
        if len(last) < len(messages) or any(messages.headers) or self._due:
            return False
        return self._held.keys().isdisjoint(last) and all(each.startswith(OF_KEYS) for each in messages.subjects)

    def _keep(self, subject: bytes, held: Held, block: bytes, now_ns: int) -> bool:
        """Hold a message, if it is not due; whether the key has a value by it."""
        expires_ns = self._expiry(held, block)
        if expires_ns is None or (held.is_row and self.lifetimes.leaves_markers):
            self._held[subject] = held
        elif expires_ns > now_ns or self._may_revive(held):
            self._held[subject] = held
            heapq.heappush(self._expiring, (expires_ns, held.seq, subject))
        else:
            self._due[subject] = held.seq
            return False
        return held.is_row

    def _expiry(self, held: Held, block: bytes) -> int | None:
        """When the broker removes a message; None for never."""
        own = ttl_ns(block) if block and self.lifetimes.by_message else None
        if own == NEVER:
            return None
        ages = [age for age in (self.lifetimes.max_age_ns, own) if age is not None]
        return held.time_ns + min(ages) if ages else None

    def _may_revive(self, held: Held) -> bool:
        """Whether an older message of the key outlives this one."""
        return held.is_row and self.lifetimes.by_message and self.lifetimes.history != 1

    def has_due(self, now_ns: int) -> bool:
        """Whether ``expire`` would let go of something."""
        return bool(self._expiring) and self._expiring[0][0] <= now_ns

    def expire(self, now_ns: int) -> list[Change]:
        """Let go of what is due."""
        changes: list[Change] = []
        while self._expiring and self._expiring[0][0] <= now_ns:
            _, seq, subject = self._expiring[0]
            held = self._held.get(subject)
            if held is not None and held.seq == seq:
                if self._may_revive(held):
                    self.is_stale = True
                    return changes
                del self._held[subject]
                self._due[subject] = seq
                if held.is_row:
                    changes.append(Change(seq, None))
            heapq.heappop(self._expiring)
        return changes

    def agrees(self, subject_count: int, after_seq: int, before: int) -> bool:
        """Whether the broker's count of subjects, at the time of its message ``after_seq``, is that of the keys.

        ``before`` were known then. What came later may, or may not, be of keys that it counted.
        """
        known = len(self._held) + len(self._due)
        newer = sum(1 for _ in self._newer(after_seq)) if known > before else 0
        gone = known - min(newer, known - before) - subject_count
        if subject_count > known or gone > len(self._due):
            return False
        for subject in list(islice(self._due, max(0, gone))):  # the broker is done with these
            del self._due[subject]
        return True

    def _newer(self, after_seq: int) -> Iterator[Held]:
        for held in reversed(self._held.values()):
            if held.seq <= after_seq:
                return
            yield held

    @property
    def count(self) -> int:
        """How many keys the broker may hold a message of."""
        return len(self._held) + len(self._due)

    def oldest_of_newest(self, count: int) -> int:
        """The sequence of the oldest of the ``count`` newest messages; 1 if there are none."""
        return min((held.seq for held in islice(reversed(self._held.values()), count)), default=1)

    def kinship(self, messages: ForeignMessages, count: int) -> tuple[Kinship, int]:
        """Whether messages, which are all from the ``count``-th newest on, go on from what is held.

        They do if one of those is among them and each later one was followed by another of its key. Then what comes
        behind the sequence that is given is to be taken in. A broker that has lost its tail gives sequences anew.
        """
        times = dict(zip(messages.seqs, messages.times_ns, strict=True))
        newest = dict(zip(messages.subjects, messages.seqs, strict=True))
        for subject, held in islice(reversed(self._held.items()), count):
            if held.seq in times:
                same = times[held.seq] == held.time_ns and not self._given_twice(newest, times, held.seq)
                return (Kinship.SAME if same else Kinship.OTHER), held.seq
            if newest.get(subject, 0) < held.seq:
                return Kinship.OTHER, 0
        return Kinship.UNKNOWN, 0

    def _given_twice(self, newest: Mapping[bytes, int], times: Mapping[int, int], after_seq: int) -> bool:
        """Whether a sequence that was passed is the last one of a key that was not known by it."""
        for subject, seq in newest.items():
            if after_seq < seq <= self._last_seq and self._due.get(subject) != seq:
                held = self._held.get(subject)
                if held is None or (held.seq, held.time_ns) != (seq, times[seq]):
                    return True
        return False

    def difference(self, newer: Keys) -> list[Change]:
        """What has changed from these keys to those: first what is gone, then what came, in its order."""
        changes = [
            Change(held.seq, None) for subject, held in self._held.items() if held.is_row and subject not in newer._held
        ]
        for subject, held in newer._held.items():
            before = self._held.get(subject)
            old = before.seq if before is not None and before.is_row else None
            if before != held and (held.is_row or old is not None):
                changes.append(Change(old, held.seq if held.is_row else None))
        return changes


def removed(changes: Sequence[Change]) -> list[int]:
    """The messages that are no values any more."""
    return [change.old for change in changes if change.old is not None]
