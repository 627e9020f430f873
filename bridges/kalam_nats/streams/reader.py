"""Reading a stream from some sequence on, with a consumer that lives for this read.

Events are pulled, some thousand at a time and bounded in bytes, so that the broker never has more on the way than its
limit for a slow client; the next pull is asked for before the last one is decoded. Messages are taken where they are
parsed (``GuardedClient.tap``): nats-py's queue and its message objects would cost more than all the rest.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np

from kalam.errors import BrokerUnavailable
from kalam.tables.ports import StoredEvents
from kalam.threads import Purpose, in_thread
from kalam_nats.broker.connection import BrokerConnection
from kalam_nats.broker.guarded_client import GuardedClient
from kalam_nats.broker.jetstream import JetStream

PULL_EVENTS = 10_000
PULL_BYTES = 8 << 20
READ_IDLE_S = 5.0
NANOSECONDS = 1_000_000_000
NUMBERS = 5
STREAM_SEQ, CONSUMER_SEQ, TIME_NS = 1, 2, 3
"""The numbers at the end of a delivered message's reply subject, and the places of those that count here."""
CONSUMER = {
    "deliver_policy": "by_start_sequence",
    "ack_policy": "none",
    "replay_policy": "instant",
    "inactive_threshold": 10 * NANOSECONDS,
    "mem_storage": True,
    "num_replicas": 1,
}


class Pull:
    """One request for the next events: what has come of it."""

    def __init__(self, count: int) -> None:
        self._count = count
        self.replies: list[bytes] = []
        self.payloads: list[bytes] = []
        self.done = asyncio.Event()

    @property
    def missing(self) -> int:
        """How many of the events that were asked for did not come."""
        return self._count - len(self.replies)

    def take(self, replies: Sequence[bytes], payloads: Sequence[bytes]) -> None:
        """Take events."""
        self.replies += replies
        self.payloads += payloads
        if len(self.replies) >= self._count:
            self.done.set()

    async def wait(self) -> None:
        """Wait for the end; raises BrokerUnavailable when nothing comes any more."""
        while not self.done.is_set():
            seen = len(self.replies)
            try:
                async with asyncio.timeout(READ_IDLE_S):
                    await self.done.wait()
            except TimeoutError as exc:
                if seen == len(self.replies):
                    raise BrokerUnavailable("the broker stopped in the middle of a read") from exc


class StreamReader:
    """Reads streams."""

    def __init__(self, connection: BrokerConnection, jetstream: JetStream) -> None:
        self._connection, self._jetstream = connection, jetstream

    async def seq_before(self, stream: str, moment: datetime) -> int:
        """The sequence of the last event that was stored before a time, kept or not; raises RefusedError.

        JetStream says it of a consumer that would begin there.
        """
        at = moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
        made = await self._make(stream, CONSUMER | {"deliver_policy": "by_start_time", "opt_start_time": at})
        await self._connection.client.publish(f"$JS.API.CONSUMER.DELETE.{stream}.{made['name']}")
        return int(made["delivered"]["stream_seq"])

    async def read(
        self, stream: str, after_seq: int, upto_seq: int | None, last_of: str | None = None
    ) -> AsyncIterator[StoredEvents]:
        """The events with ``after_seq < seq`` that are stored now, in order, a pull at a time; raises RefusedError.

        None is behind ``upto_seq`` if that is given. With ``last_of``, a pattern of subjects, the last of each alone.
        """
        client = self._connection.client
        if last_of is None:
            config = CONSUMER | {"opt_start_seq": after_seq + 1}
        else:
            config = CONSUMER | {"deliver_policy": "last_per_subject", "filter_subject": last_of}
        made = await self._make(stream, config)
        count = made["num_pending"] if upto_seq is None else min(made["num_pending"], upto_seq - after_seq)
        pulls = Pulls(client, stream, made["name"], count)
        try:
            await pulls.open()
            delivered = 0
            async for replies, payloads in pulls.each():
                events, delivered = await in_thread(Purpose.ROWS, _events, replies, payloads, delivered)
                if upto_seq is not None and events.seqs[-1] > upto_seq:  # some before it have gone
                    kept = bisect_right(events.seqs, upto_seq)
                    events = StoredEvents(events.seqs[:kept], events.stored_us[:kept], events.payloads[:kept])
                    if not kept:
                        return
                    yield events
                    return
                yield events
        finally:
            await pulls.close()

    async def _make(self, stream: str, config: Mapping[str, Any]) -> dict[str, Any]:
        return await self._jetstream.request(f"CONSUMER.CREATE.{stream}", {"stream_name": stream, "config": config})


class Pulls:
    """The pulls of one read, one after another: the broker serves pulls that are open together by turns."""

    def __init__(self, client: GuardedClient, stream: str, consumer: str, count: int) -> None:
        self._client, self._stream, self._consumer = client, stream, consumer
        self._left = count
        self._inbox = client.new_inbox()
        self._pull, self._subject = Pull(0), b""
        self._bytes = max(PULL_BYTES, client.max_payload + (64 << 10))
        self._number = 0
        self._subscription: Any = None

    async def open(self) -> None:
        """Listen for events."""
        self._subscription = await self._client.tap_headed(f"{self._inbox}.*", self._take)

    def _take(self, subjects: list[bytes], replies: list[bytes], _: list[bytes], payloads: list[bytes]) -> None:
        """Take events, and a status of the open pull, which has no reply subject: the broker has no more for it."""
        while b"" in replies:
            place = replies.index(b"")
            self._pull.take(replies[:place], payloads[:place])
            if subjects[place] == self._subject:  # one of an earlier pull says nothing new
                self._pull.done.set()
            subjects, replies, payloads = subjects[place + 1 :], replies[place + 1 :], payloads[place + 1 :]
        self._pull.take(replies, payloads)

    async def each(self) -> AsyncIterator[tuple[list[bytes], list[bytes]]]:
        """The reply subjects and payloads of each pull."""
        pull = await self._ask()
        while pull is not None:
            await pull.wait()
            self._left += pull.missing
            following = await self._ask() if pull.replies else None  # nothing came: evicted since it was counted
            if pull.replies:
                yield pull.replies, pull.payloads
            pull = following

    async def _ask(self) -> Pull | None:
        if self._left <= 0:
            return None
        count = min(self._left, PULL_EVENTS)
        self._left -= count
        self._number += 1
        subject = f"{self._inbox}.{self._number}"
        self._pull, self._subject = Pull(count), subject.encode()
        request = {"batch": count, "max_bytes": self._bytes, "no_wait": True}
        api = f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._consumer}"
        await self._client.publish(api, msgspec.json.encode(request), reply=subject)
        return self._pull

    async def close(self) -> None:
        """Listen no more, and let the consumer go."""
        if self._subscription is not None and self._client.is_connected:
            await self._subscription.unsubscribe()
        if self._client.is_connected:
            await self._client.publish(f"$JS.API.CONSUMER.DELETE.{self._stream}.{self._consumer}")


def _events(replies: list[bytes], payloads: list[bytes], delivered: int) -> tuple[StoredEvents, int]:
    """The events, and the consumer's number of the last; raises BrokerUnavailable if one was lost on the way."""
    numbers = reply_numbers(replies)
    last = int(numbers[-1, CONSUMER_SEQ])
    if last != delivered + len(replies):
        raise BrokerUnavailable("events were lost on their way from the broker; ask again")
    return StoredEvents(numbers[:, STREAM_SEQ].tolist(), (numbers[:, TIME_NS] // 1_000).tolist(), payloads), last


def reply_numbers(replies: Sequence[bytes]) -> np.ndarray:
    """The numbers in reply subjects, a row for each.

    A reply subject is ``$JS.ACK.<stream>.<consumer>.<times>.<stream seq>.<consumer seq>.<time in ns>.<pending>``; newer
    brokers put domain and account before the stream, and a random token behind.
    """
    tokens = replies[0].split(b".")
    place = 4 if len(tokens) == 9 else 6
    names = sum(len(token) + 1 for token in tokens[:place])  # all before the numbers is the same in each
    tails = [reply[names:] for reply in replies]
    if len(tokens) > place + NUMBERS:
        tails = [b".".join(tail.split(b".")[:NUMBERS]) for tail in tails]
    return np.fromstring(b".".join(tails).replace(b".", b" "), np.int64, sep=" ").reshape(-1, NUMBERS)
