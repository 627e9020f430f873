"""The bounds of live queries."""

from __future__ import annotations

import msgspec


class LiveBounds(msgspec.Struct, frozen=True):
    """The bounds of live queries, from the settings of the same names."""

    live_queries_max: int
    live_queries_per_user_max: int
    live_queue_bytes_max: int
    live_held_bytes_max: int
    row_bytes_max: int
