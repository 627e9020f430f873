"""Entries of the audit that repeat: from the tenth of a kind within a minute they are one entry with a count.

Pure: each call is told the time, in microseconds since 1970. Memory is bounded: where too many kinds come within a
minute, further ones count as one of nobody in particular.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec
from msgspec.structs import replace

from kalam.access.entry import Entry
from kalam.names import numbered

MINUTE_US: Final = 60_000_000
SINGLY_MAX: Final = 9
"""Entries of a kind within a minute that are kept by themselves."""
KINDS_MAX: Final = 10_000


class _Kind(msgspec.Struct):
    first_us: int
    last_us: int
    singly_max: int
    count: int = 0


class Collapsed:
    """Counts what repeats."""

    def __init__(self, kinds_max: int = KINDS_MAX) -> None:
        self._kinds: dict[Entry, _Kind] = {}
        self._kinds_max = kinds_max

    def take(self, entry: Entry) -> Entry | None:
        """The entry if it is to be kept by itself; None for one that counts among others."""
        key, singly_max = replace(entry, at_us=0), SINGLY_MAX
        if key not in self._kinds and len(self._kinds) >= self._kinds_max:
            key, singly_max = replace(key, user=None, acting_for=None, address="", object="", detail="of several"), 0
        kind = self._kinds.get(key)
        if kind is None:
            kind = self._kinds[key] = _Kind(entry.at_us, entry.at_us, singly_max)
        kind.count += 1
        kind.last_us = entry.at_us
        return entry if kind.count <= kind.singly_max else None

    def due(self, now_us: int | None) -> Iterator[Entry]:
        """An entry for each kind whose minute is over, or with None for each, that counts those not kept singly."""
        for key, kind in list(self._kinds.items()):
            if now_us is not None and now_us < kind.first_us + MINUTE_US:
                continue
            del self._kinds[key]
            more = kind.count - kind.singly_max
            if more > 0:
                times = f"{numbered(more, 'time')} within a minute"
                yield replace(key, at_us=kind.last_us, detail=f"{key.detail}, {times}" if key.detail else times)
