"""What a query needs at most of the messages of a foreign stream (``bounds`` reads it)."""

from __future__ import annotations

from typing import Final

import msgspec


class ScanBounds(msgspec.Struct, frozen=True):
    """Which messages can be rows of an answer.

    ``after_seq < seq <= upto_seq``; stored from a time on and up to another, in microseconds since 1970; with these
    texts as tokens of the subject, by their numbers from 1; under this key of a bucket. None is no bound.
    """

    after_seq: int = 0
    upto_seq: int | None = None
    from_us: int | None = None
    upto_us: int | None = None
    tokens: tuple[tuple[int, str], ...] = ()
    key: str | None = None


NO_BOUNDS: Final = ScanBounds()
