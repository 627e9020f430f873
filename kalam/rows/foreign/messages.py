"""Messages of a foreign stream as the broker gives them, and what stands in their subjects and headers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from kalam.rows.values import EPOCH

Headers = dict[str, list[str]]
"""The values of each header, in their order."""

_NO_ROWS = re.compile(rb"\r\n(?:Nats-Marker-Reason:|Nats-Schedule:|KV-Operation:[ \t]*(?:DEL|PURGE)[ \t]*\r\n)")
"""Headers of messages that are no event: that something was removed, or that something is to be published later."""
_TTL = re.compile(rb"\r\nNats-TTL:[ \t]*([^\r\n]*)")
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_NANOSECONDS = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "μs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3_600 * 10**9,
}
OF_KEYS = b"$KV."
"""How the subjects of keys of buckets begin."""
NEVER = -1
BEFORE_KEY = 2
"""So many tokens of a subject stand before the key of a bucket."""


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

    def followed_by(self, others: ForeignMessages) -> ForeignMessages:
        """These, and then those."""
        return ForeignMessages(*([*getattr(self, name), *getattr(others, name)] for name in self.__struct_fields__))

    def only(self, places: Sequence[int]) -> ForeignMessages:
        """Those at these places."""
        return ForeignMessages(*([getattr(self, name)[place] for place in places] for name in self.__struct_fields__))


def is_no_event(block: bytes) -> bool:
    """Whether headers say that something was removed, or that a message is the broker's own note: nobody's event."""
    return _NO_ROWS.search(block) is not None


def ttl_ns(block: bytes) -> int | None:
    """After how many nanoseconds the broker removes a message with these headers; NEVER, and None for nothing said."""
    found = _TTL.search(block)
    if found is None:
        return None
    text = found[1].decode("utf-8", "replace").strip()
    if text == "never":
        return NEVER
    if text.isdecimal():
        return int(text) * 10**9 or None
    parts = list(_PART.finditer(text))
    if "".join(part[0] for part in parts) != text:
        return None
    return int(sum(float(part[1]) * _NANOSECONDS[part[2]] for part in parts)) or None


def key_of(subject: bytes) -> bytes:
    """The key of a bucket that a subject stands for, behind the name of the bucket in which it was put.

    That is another one than the bucket that is read, if this is a copy of it.
    """
    return subject.split(b".", BEFORE_KEY)[-1]


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
