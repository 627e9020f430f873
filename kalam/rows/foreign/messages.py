"""Messages of a foreign stream as the broker gives them, and what stands in their subjects and headers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from kalam.rows.values import EPOCH

Headers = dict[str, list[str]]
"""The values of each header, in their order."""

_NO_ROWS = (b"\r\nNats-Marker-Reason:", b"\r\nNats-Schedule:")
"""Headers of messages that are no event: that something was removed, or that something is to be published later."""


class ForeignMessages(msgspec.Struct, frozen=True):
    """Messages in the order of the stream: subjects, sequences, times (ns since 1970), header blocks, payloads.

    A header block is as NATS writes it, from ``NATS/1.0`` to the empty line; it is empty where there is none.
    """

    subjects: Sequence[bytes]
    seqs: Sequence[int]
    times_ns: Sequence[int]
    headers: Sequence[bytes]
    payloads: Sequence[bytes]

    def __len__(self) -> int:
        return len(self.seqs)

    def part(self, start: int, stop: int) -> ForeignMessages:
        """Those from one place up to another."""
        return ForeignMessages(*(getattr(self, name)[start:stop] for name in self.__struct_fields__))

    def only(self, places: Sequence[int]) -> ForeignMessages:
        """Those at these places."""
        return ForeignMessages(*([getattr(self, name)[place] for place in places] for name in self.__struct_fields__))


def is_no_event(block: bytes) -> bool:
    """Whether the headers say that a message is the broker's own note and nobody's event."""
    return any(name in block for name in _NO_ROWS)


def read_headers(block: bytes) -> Headers:
    """The headers of a block; bytes that are no UTF-8 are replaced."""
    headers: Headers = {}
    for line in block.split(b"\r\n")[1:]:
        name, found, value = line.partition(b":")
        if found:
            headers.setdefault(name.decode("utf-8", "replace"), []).append(value.strip().decode("utf-8", "replace"))
    return headers


def tokens_of(subjects: Sequence[bytes]) -> dict[bytes, list[str]]:
    """The tokens of each subject."""
    return {subject: subject.decode("utf-8", "replace").split(".") for subject in dict.fromkeys(subjects)}


def nanoseconds(text: str) -> int:
    """Go's RFC 3339 text in UTC, which has up to nine fractional digits, as nanoseconds since 1970."""
    whole, _, fraction = text.removesuffix("Z").partition(".")
    seconds = (datetime.fromisoformat(whole).replace(tzinfo=UTC) - EPOCH).total_seconds()
    return int(seconds) * 1_000_000_000 + int((fraction or "0").ljust(9, "0"))
