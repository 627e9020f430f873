"""What a compaction merges: a decision of values, pure but for the key filters that it asks.

Small segments are merged with each other; a segment that holds rows which an override hides is written again. What is
large and clean stays as it is. Segments that lie near each other by key are merged together, some at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec
import numpy as np

from kalam.storage.log.copies import Key, Segment, View
from kalam.storage.segments.key_filter import KeyFilter, KeyHashes

INPUTS_MAX = 64
"""Segments that are merged in one step."""

Filters = Callable[[Segment], KeyFilter]


class Plan(msgspec.Struct, frozen=True):
    """The steps, each a list of segments to merge, and the overrides (key, seq) that can be forgotten after them."""

    steps: tuple[tuple[Segment, ...], ...] = ()
    forget: Mapping[Key, int] | None = None


def plan(view: View, filters: Filters, *, small_rows: int, overridden: bool) -> Plan:
    """What to merge of a view; blocking.

    Segments below ``small_rows`` rows are small; ``overridden`` asks that hidden rows be removed as well.
    """
    dirty = _dirty(view, filters) if overridden and view.overrides else set()
    steps: list[tuple[Segment, ...]] = []
    for deleted in (False, True):
        own = [segment for segment in view.segments if segment.deleted is deleted]
        steps += _steps(own, dirty, small_rows)
    forget = dict(view.overrides) if overridden and view.overrides else None
    return Plan(tuple(steps), forget)


def _steps(segments: Sequence[Segment], dirty: set[int], small_rows: int) -> list[tuple[Segment, ...]]:
    small = [segment for segment in segments if segment.row_count < small_rows]
    if len(small) < 2 and not any(segment.segment_id in dirty for segment in segments):
        return []
    chosen = [segment for segment in segments if segment.segment_id in dirty or segment.row_count < small_rows]
    chosen.sort(key=lambda segment: (segment.min_key, segment.max_key))
    return [tuple(chosen[first : first + INPUTS_MAX]) for first in range(0, len(chosen), INPUTS_MAX)]


def _dirty(view: View, filters: Filters) -> set[int]:
    """The ids of the segments that may hold a row which an override hides."""
    keys, seqs = list(view.overrides), np.fromiter(view.overrides.values(), np.int64, len(view.overrides))
    hashes = KeyHashes.of(keys)
    found: set[int] = set()
    for segment in view.segments:
        newer = seqs > segment.min_seq
        if not newer.any():
            continue
        maybe = np.flatnonzero(newer & filters(segment).may_contain(hashes)).tolist()
        if any(segment.min_key <= keys[place] <= segment.max_key for place in maybe):
            found.add(segment.segment_id)
    return found
