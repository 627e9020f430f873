"""What a default gives for an event that others published without that column: the same at every read.

An event of Kalam's own has every column. What others publish may lack some, and is read again after each restart, and
by live queries beside SELECT. So its generated values come from where and when the broker stored it, and from nothing
else.
"""

from __future__ import annotations

from datetime import timedelta
from hashlib import blake2b

from kalam.rows.ids import snowflake_of_event, uuid_v7_of_event
from kalam.rows.values import EPOCH
from kalam.schema import Column, DefaultKind

MADE = frozenset({DefaultKind.NOW, DefaultKind.SNOWFLAKE_ID, DefaultKind.UUID_V7})


def event_default(column: Column, table_id: int, seq: int, stored_us: int) -> object:
    """The value of a column whose default is made, for the event ``seq`` that was stored at that time."""
    assert column.default is not None
    match column.default.kind:
        case DefaultKind.NOW:
            return EPOCH + timedelta(microseconds=stored_us)
        case DefaultKind.SNOWFLAKE_ID:
            return snowflake_of_event(stored_us // 1_000, seq)
        case _:
            name = f"{table_id} {column.column_id} {seq} {stored_us}".encode()
            random = int.from_bytes(blake2b(name, digest_size=8).digest())
            return uuid_v7_of_event(stored_us // 1_000, seq, random)
