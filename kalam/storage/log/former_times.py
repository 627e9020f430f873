"""``_updated`` of the versions before a change, as the log keeps it beside them.

Rows that are changed together were mostly written together too, so one time stands for all where they are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec

from kalam.storage.log.times import EPOCH

_DECODER = msgspec.msgpack.Decoder(list[int])


def pack_times(times_us: Sequence[int]) -> bytes:
    """Times in microseconds since 1970 as one blob."""
    return msgspec.msgpack.encode(times_us[:1] if len(set(times_us)) == 1 else times_us)


def unpack_times(blob: bytes, count: int) -> Sequence[int]:
    """The ``count`` times of a blob."""
    times_us = _DECODER.decode(blob)
    return times_us * count if len(times_us) == 1 else times_us


def to_us(time: datetime) -> int:
    """A UTC datetime as microseconds since 1970."""
    return (time - EPOCH) // timedelta(microseconds=1)
