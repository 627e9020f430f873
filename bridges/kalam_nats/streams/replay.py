"""The change feeds read from a change on: where it lies in the stream, and what follows.

A stream has one sequence over all copies and a copy's changes are numbered for themselves, so the place of a change is
searched: JetStream answers which message of a copy is the next at or behind a sequence, and that message says which
changes it carries. Halving the range asks some twenty questions of 0.2 ms and needs no index that would have to be
kept true.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
from nats import errors as nats_errors
from nats.aio.msg import Msg

from kalam.errors import BrokerUnavailable
from kalam.rows.judged import UNREADABLE
from kalam.schema import Table
from kalam.storage.log.copies import Op
from kalam.tables.ports import FeedRun
from kalam.tasks import heeding
from kalam_nats.broker.connection import BrokerConnection
from kalam_nats.broker.jetstream import JetStream
from kalam_nats.streams.feed import TABLE_HEADER
from kalam_nats.subjects import Subjects

ANSWER_S = 5.0
READ_MESSAGES_MAX, READ_BYTES_MAX = 200, 4 << 20


class Body(msgspec.Struct):
    """A feed message: a run of changes, the first numbered ``seq``."""

    op: Op
    seq: int
    rows: list[dict[str, Any]]
    old: list[dict[str, Any]] | None = None


_JSON = msgspec.json.Decoder(Body)
_MSGPACK = msgspec.msgpack.Decoder(Body)


class FeedReplay:
    """Reads the change feeds; a ReplayPort."""

    def __init__(self, connection: BrokerConnection, jetstream: JetStream, subjects: Subjects) -> None:
        self._connection, self._jetstream, self._subjects = connection, jetstream, subjects

    def _stream(self, owner: str) -> str:
        return self._subjects.changes_stream_of(owner)

    def _question(self, table: Table, owner: str, place: int) -> dict[str, Any]:
        pattern = self._subjects.copy_subjects(owner, table.name.namespace, table.name.table)
        return {"seq": max(1, place), "next_by_subj": pattern}

    async def find(self, table: Table, owner: str, seq: int) -> int | None:
        """The stream's sequence of the message that holds change ``seq``."""
        state = (await self._jetstream.request(f"STREAM.INFO.{self._stream(owner)}"))["state"]
        low, high = state["first_seq"], state["last_seq"]
        found: int | None = None
        while low <= high:
            middle = (low + high) // 2
            message = await self._next(table, owner, middle)
            if message is None or message[0] > high:
                high = middle - 1
                continue
            place, run = message
            if run is None or run.seq + len(run.rows) - 1 < seq:  # of an older table of this name, or too early
                low = place + 1
            elif run.seq > seq:
                high = middle - 1
            else:
                found = place
                break
        return found

    async def read(self, table: Table, owner: str, place: int) -> AsyncIterator[FeedRun]:
        """The messages of a copy from a place on, as far as the feed goes."""
        while messages := await self._several(table, owner, place):
            for msg in messages:
                place, run = _read(table, msg)
                if run is not None:
                    yield FeedRun(run.op, run.seq, run.rows, None if run.op != "update" else run.old)
            place += 1

    async def _several(self, table: Table, owner: str, place: int) -> list[Msg]:
        """The next messages at or behind a place, with one question."""
        question = self._question(table, owner, place) | {"batch": READ_MESSAGES_MAX, "max_bytes": READ_BYTES_MAX}
        messages: list[Msg] = []
        try:
            client = self._connection.client
            inbox = client.new_inbox()
            subscription = await client.subscribe(inbox)
            try:
                await client.publish(
                    f"$JS.API.DIRECT.GET.{self._stream(owner)}",
                    msgspec.json.encode(question),
                    reply=inbox,
                )
                while True:
                    msg = await heeding(subscription.next_msg(ANSWER_S))
                    if "Nats-Sequence" not in (msg.headers or {}):
                        _check_end(msg)
                        return messages
                    messages.append(msg)
            finally:
                if client.is_connected:
                    await subscription.unsubscribe()
        except (nats_errors.Error, TimeoutError, OSError) as exc:
            raise BrokerUnavailable(f"the change feed does not answer: {exc or type(exc).__name__}") from exc

    async def _next(self, table: Table, owner: str, place: int) -> tuple[int, Body | None] | None:
        """The next message at or behind a place; its body is None if it belongs to another table of this name."""
        question = msgspec.json.encode(self._question(table, owner, place))
        try:
            msg = await self._connection.client.request(
                f"$JS.API.DIRECT.GET.{self._stream(owner)}", question, timeout=ANSWER_S
            )
        except (nats_errors.Error, TimeoutError, OSError) as exc:
            raise BrokerUnavailable(f"the change feed does not answer: {exc or type(exc).__name__}") from exc
        if "Nats-Sequence" not in (msg.headers or {}):
            _check_end(msg)
            return None
        return _read(table, msg)


def _check_end(msg: Msg) -> None:
    """Raise BrokerUnavailable unless a message without a sequence says that there are no more."""
    headers = msg.headers or {}
    if headers.get("Status") not in ("204", "404"):
        raise BrokerUnavailable(f"the change feed answered {headers.get('Description', headers)}")


def _read(table: Table, msg: Msg) -> tuple[int, Body | None]:
    """A message's place and its body, None if it belongs to another table of this name."""
    headers = msg.headers or {}
    found = int(headers["Nats-Sequence"])
    if headers.get(TABLE_HEADER) != str(table.table_id):
        return found, None
    try:  # its format is its own: an ALTER may have set another since
        return found, (_JSON if msg.data[:1] == b"{" else _MSGPACK).decode(msg.data)
    except UNREADABLE:
        return found, None  # somebody else published there
