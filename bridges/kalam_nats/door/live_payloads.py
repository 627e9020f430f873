"""What the requests for live queries and replays say."""

from __future__ import annotations

from typing import Literal

import msgspec

from kalam.engine import Caller
from kalam.errors import InvalidValue
from kalam.live import LiveQuery, Sink
from kalam.names import NAME_PATTERN
from kalam.rows.judged import UNREADABLE
from kalam.rows.timestamp_text import read_utc_timestamp
from kalam.schema import PayloadFormat

KEYS_MAX = 1_000


class _Shown(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Where it begins, of which table, and how its messages are written; ``from_time`` is RFC 3339."""

    from_seq: int | None = None
    from_time: str | None = None
    table_id: int | None = None
    format: Literal["json", "msgpack"] = "json"
    integers: Literal["number", "text"] = "number"

    def __post_init__(self) -> None:
        if self.integers == "text" and self.format == "msgpack":
            raise ValueError("integers are shown as text in the format json only")
        if (self.from_seq or 0) < 0:
            raise ValueError("from_seq is counted from 0")
        if self.from_time is not None:
            try:
                read_utc_timestamp(self.from_time)
            except (ValueError, OverflowError):
                raise ValueError("from_time is a time like 2026-03-01T12:00:00Z") from None


class OpenRequest(_Shown, forbid_unknown_fields=True, kw_only=True):
    """The payload of ``kalam.api.<user>.live``."""

    sql: str
    last_rows: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.last_rows or 0) < 0:
            raise ValueError("last_rows is counted from 0")

    async def follow(self, caller: Caller, sink: Sink) -> LiveQuery:
        """Open what is asked for."""
        return await caller.follow(
            self.sql,
            sink,
            last_rows=self.last_rows,
            from_seq=self.from_seq,
            from_time=None if self.from_time is None else read_utc_timestamp(self.from_time),
            table_id=self.table_id,
            payload_format=PayloadFormat(self.format),
        )


class ReplayRequest(_Shown, forbid_unknown_fields=True, kw_only=True):
    """The payload of ``kalam.api.<user>.replay``: the events of a STREAM table from one on, or the last of each key.

    ``from_seq`` is the first event itself; ``keys`` are values of the SUBJECT_KEY.
    """

    table: str
    last_per_key: bool = False
    keys: list[str | int | bool] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        namespace, _, name = self.table.partition(".")
        if not (NAME_PATTERN.fullmatch(namespace) and NAME_PATTERN.fullmatch(name)):
            raise ValueError("table is namespace.table")
        if (self.from_seq is not None) + (self.from_time is not None) + self.last_per_key != 1:
            raise ValueError("a replay has one of from_seq, from_time and last_per_key")
        if self.from_seq == 0:
            raise ValueError("from_seq is the first event that is wanted, counted from 1")
        if self.keys is not None and not 0 < len(self.keys) <= KEYS_MAX:
            raise ValueError(f"keys are 1 to {KEYS_MAX:,} values of the SUBJECT_KEY")

    async def follow(self, caller: Caller, sink: Sink) -> LiveQuery:
        """Open what is asked for."""
        return await caller.follow(
            f"SELECT * FROM {self.table}",  # noqa: S608 - two names, checked
            sink,
            from_seq=None if self.from_seq is None else self.from_seq - 1,
            from_time=None if self.from_time is None else read_utc_timestamp(self.from_time),
            last_per_key=self.last_per_key,
            events_only=True,
            keys=self.keys,
            table_id=self.table_id,
            payload_format=PayloadFormat(self.format),
        )


_OPEN = msgspec.json.Decoder(OpenRequest)
_REPLAY = msgspec.json.Decoder(ReplayRequest)


def read_open(payload: bytes) -> OpenRequest:
    """The request for a live query; raises InvalidValue."""
    try:
        return _OPEN.decode(payload)
    except UNREADABLE as exc:
        raise InvalidValue(
            f'the payload is not {{"sql": "SELECT …", "last_rows": n, "from_seq": n, …}}: {exc}'
        ) from exc


def read_replay(payload: bytes) -> ReplayRequest:
    """The request for a replay; raises InvalidValue."""
    try:
        return _REPLAY.decode(payload)
    except UNREADABLE as exc:
        raise InvalidValue(f'the payload is not {{"table": "ns.t", "from_seq": n, "keys": […], …}}: {exc}') from exc
