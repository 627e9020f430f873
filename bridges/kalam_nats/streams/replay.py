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

from kalam.schema import Table
from kalam.tables.ports import FeedRun
from kalam.tasks import heeding
from kalam_nats.broker.connection import BrokerConnection
from kalam_nats.broker.jetstream import JetStream
from kalam_nats.streams.feed_messages import (
    ANSWER_S,
    Body,
    FeedMessage,
    Run,
    answering,
    direct_get,
    message_of,
    one_message,
)
from kalam_nats.subjects import Subjects

READ_MESSAGES_MAX, READ_BYTES_MAX = 200, 4 << 20


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
            with answering():
                message = await one_message(
                    self._connection.client, self._stream(owner), self._question(table, owner, middle)
                )
            if message is None or message.place > high:
                high = middle - 1
                continue
            run = message.read(Run) if message.table_id == table.table_id else None
            if run is None or run.last_seq < seq:  # of an older table of this name, or too early
                low = message.place + 1
            elif run.seq > seq:
                high = middle - 1
            else:
                found = message.place
                break
        return found

    async def read(self, table: Table, owner: str, place: int) -> AsyncIterator[FeedRun]:
        """The messages of a copy from a place on, as far as the feed goes."""
        while messages := await self._several(table, owner, place):
            for message in messages:
                body = message.read(Body) if message.table_id == table.table_id else None
                if body is not None:
                    yield FeedRun(body.op, body.seq, body.rows, None if body.op != "update" else body.old)
            place = messages[-1].place + 1

    async def _several(self, table: Table, owner: str, place: int) -> list[FeedMessage]:
        """The next messages at or behind a place, with one question."""
        question = self._question(table, owner, place) | {"batch": READ_MESSAGES_MAX, "max_bytes": READ_BYTES_MAX}
        messages: list[FeedMessage] = []
        with answering():
            client = self._connection.client
            inbox = client.new_inbox()
            subscription = await client.subscribe(inbox)
            try:
                await client.publish(direct_get(self._stream(owner)), msgspec.json.encode(question), reply=inbox)
                while message := message_of(await heeding(subscription.next_msg(ANSWER_S))):
                    messages.append(message)
                return messages
            finally:
                if client.is_connected:
                    await subscription.unsubscribe()
