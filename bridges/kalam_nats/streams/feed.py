"""The change feeds of SHARED and USER tables on JetStream.

Every publish is fenced: it carries the sequence of the last message on the copy's subjects, and JetStream stores it
only if that is still so. So whatever a dead publisher left on its way arrives at a place that has been taken, and is
refused. Of several messages that go together the first is fenced; what holds the others to it depends on their size:

- Large ones are a *chain*: each has an id, and expects that the stream's last message is the one before it. The ack of
  the last one then proves them all, and what comes between from elsewhere breaks the chain there, so that no hole can
  be. What was refused, and why, a chain does not tell: after a broken one the next try is an atomic batch.
- Small ones are an *atomic batch*, of which JetStream stores all or nothing. It stores it twice, and makes a store for
  it, which costs large messages half of the broker's time.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any

import structlog
from nats import errors as nats_errors

from kalam.errors import BrokerUnavailable, Unavailable
from kalam.names import TableName
from kalam.schema import Table
from kalam.tables.ports import ChangeMessage, FeedPosition, OutOfPlace
from kalam.tables.stream_ends import StreamEnds
from kalam_nats.broker.connection import BrokerConnection
from kalam_nats.broker.guarded_client import header_block, with_trace
from kalam_nats.broker.jetstream import (
    NOT_FOUND_CODES,
    WRONG_LAST_SEQUENCE_CODES,
    JetStream,
    NoStreamError,
    RefusedError,
    unavailable,
)
from kalam_nats.streams.feed_messages import TABLE_HEADER, FeedMessage, Run, answering, one_message
from kalam_nats.streams.streams import NANOSECONDS
from kalam_nats.streams.takeover import DATA_ID, GENERATION
from kalam_nats.subjects import Subjects

log = structlog.get_logger(__name__)

BATCH_MESSAGES_MAX = 1_000
CHAINED_BYTES_MIN = 16 << 10
"""Messages of so many bytes each go as a chain."""
FOREIGN_MESSAGES_MAX = 1_000
"""Messages of other publishers that are removed from the end of a copy's feed in one go."""
NO_MESSAGE_CODES = frozenset({10037, 10043, 10057})
"""JetStream's codes for a message that is not there any more."""
BYTES_MIN = 1 << 20
"""The least size of a change feed."""
NO_ROOM_CODES = frozenset({10028, 10047})
"""JetStream's codes for a stream whose ``max_bytes`` it cannot reserve."""
HEADER_BYTES = 4 << 10
"""Room for headers, which count against the broker's ``max_payload``."""
_TRACE = attrgetter("trace")


class Feeds:
    """The change feeds; a FeedPort."""

    def __init__(
        self,
        connection: BrokerConnection,
        jetstream: JetStream,
        subjects: Subjects,
        data_id: str,
        ends: StreamEnds,
        *,
        bytes_max: int,
        age_s: int,
        replicas: int,
        generation: int,
    ) -> None:
        self._generation, self._ends = generation, ends
        self._connection, self._jetstream, self._subjects, self._data_id = connection, jetstream, subjects, data_id
        self._bytes_max, self._age_s, self._replicas = bytes_max, age_s, replicas
        self._broken: set[str] = set()
        self._unseen: set[str] = set()
        """The streams to look at before the next publish: the broker was away."""
        connection.on_connected(self._look_again)

    def _look_again(self) -> None:
        self._unseen = {self._subjects.changes_stream, self._subjects.user_changes_stream}

    @property
    def payload_bytes_max(self) -> int:
        """The largest payload of a feed message."""
        return self._connection.client.max_payload - HEADER_BYTES

    def subject(self, table: Table) -> str:
        """The subject to subscribe to for a table's changes; ``<user>`` stands for a user id."""
        return self._pattern(table.name, table.owner("<user>"))

    def _pattern(self, name: TableName, owner: str) -> str:
        return self._subjects.copy_subjects(owner, name.namespace, name.table)

    async def open(self) -> None:
        """Make the two streams, or take over those that an earlier run made."""
        account = await self._jetstream.request("INFO")
        limit = account.get("limits", {}).get("max_storage", -1)
        bytes_max = self._bytes_max if limit <= 0 else min(self._bytes_max, limit // 4)
        for name, subjects in (
            (self._subjects.changes_stream, self._subjects.changes_subjects),
            (self._subjects.user_changes_stream, self._subjects.user_changes_subjects),
        ):
            bytes_max = await self._open_stream(name, subjects, bytes_max)

    async def forget(self) -> None:
        """Remove the two streams, so that they begin anew: they tell changes that an older catalogue has lost."""
        for name in (self._subjects.changes_stream, self._subjects.user_changes_stream):
            if await self._existing(name) is not None:
                await self._jetstream.request(f"STREAM.DELETE.{name}")
            self._ends.forget(name)

    def _configuration(self, name: str, subjects: Sequence[str], bytes_max: int) -> dict[str, Any]:
        return {
            "name": name,
            "subjects": list(subjects),
            "retention": "limits",
            "discard": "old",
            "max_msgs": -1,
            "max_bytes": bytes_max,
            "max_age": self._age_s * NANOSECONDS,
            "max_consumers": -1,
            "storage": "file",
            "num_replicas": self._replicas,
            "duplicate_window": min(120, self._age_s) * NANOSECONDS,
            "allow_direct": True,
            "allow_atomic": True,
            "metadata": {DATA_ID: self._data_id, GENERATION: str(self._generation)},
        }

    async def _open_stream(self, name: str, subjects: Sequence[str], bytes_max: int) -> int:
        """Make a stream or take it over; the bytes that the next one may have."""
        existing = await self._existing(name)
        if existing is None:
            return await self._create(name, subjects, bytes_max)
        config = self._configuration(name, subjects, bytes_max)
        try:
            await self._jetstream.request(f"STREAM.UPDATE.{name}", config)
        except RefusedError as exc:
            if exc.error.err_code not in NO_ROOM_CODES:
                raise unavailable(exc, f"the stream {name}") from exc
            await self._call("STREAM.UPDATE", config | {"max_bytes": existing["max_bytes"]})
        return bytes_max

    async def _existing(self, name: str) -> dict[str, Any] | None:
        """The configuration of a stream that an earlier run made; raises Unavailable if another made it."""
        known = self._ends.of(name)
        try:
            info = await self._jetstream.request(f"STREAM.INFO.{name}")
        except RefusedError as exc:
            if exc.error.err_code not in NOT_FOUND_CODES:
                raise unavailable(exc, f"the stream {name}") from exc
            return None
        config: dict[str, Any] = info["config"]
        owner = (config.get("metadata") or {}).get(DATA_ID)
        if owner != self._data_id:
            whose = f"belongs to the data directory {owner}" if owner else "was not made by Kalam"
            raise Unavailable(
                f"the JetStream stream {name} {whose}; two servers cannot share one prefix on one broker",
                hint="set another subject_prefix, or remove the stream",
            )
        self._ends.compare(name, known, info)
        return config

    async def _create(self, name: str, subjects: Sequence[str], bytes_max: int) -> int:
        """Make a stream. A broker with less room says only that it has less, so its limit is found by halving.

        The two feeds together then take at most half of it.
        """
        size, known = bytes_max, self._ends.of(name)
        while True:
            try:
                made = await self._jetstream.request(f"STREAM.CREATE.{name}", self._configuration(name, subjects, size))
                self._ends.compare(name, known, made)
                break
            except RefusedError as exc:
                if exc.error.err_code not in NO_ROOM_CODES or size <= BYTES_MIN:
                    raise unavailable(exc, f"the stream {name}") from exc
                size //= 2
        if size < bytes_max:
            size = max(size // 4, BYTES_MIN)
            await self._call("STREAM.UPDATE", self._configuration(name, subjects, size))
            log.warning("the broker has little room for the change feed", stream=name, bytes=size, wanted=bytes_max)
        return size

    async def _call(self, what: str, config: Mapping[str, Any]) -> None:
        try:
            await self._jetstream.request(f"{what}.{config['name']}", config)
        except RefusedError as exc:
            raise unavailable(exc, f"the stream {config['name']}") from exc

    async def position(self, table: Table, user: str) -> FeedPosition:
        """Where the feed of a copy stands."""
        pattern, stream = self._pattern(table.name, user), self._subjects.changes_stream_of(user)
        if stream in self._unseen:
            await self._existing(stream)
            self._unseen.discard(stream)
        for _ in range(FOREIGN_MESSAGES_MAX):
            last = await self._last(stream, pattern)
            if last is None:
                return FeedPosition(0, 0)
            run = last.read(Run)
            if run is not None and last.table_id == table.table_id:
                return FeedPosition(run.last_seq, last.place)
            if run is not None and last.table_id > table.table_id:  # we were dropped
                return FeedPosition(0, last.place)
            if run is not None and last.table_id > 0:  # a late one of an older table of this name
                await self._purge(table.name, user, {"filter": pattern, "seq": last.place + 1})
                return FeedPosition(0, 0)
            await self._remove(table, stream, last.place)
        raise BrokerUnavailable(f"others publish on the subjects of table {table.name}")

    async def _last(self, stream: str, pattern: str) -> FeedMessage | None:
        """The last message on a copy's subjects."""
        with answering():
            try:
                return await one_message(self._connection.client, stream, {"last_by_subj": pattern})
            except nats_errors.NoRespondersError as exc:
                await self.open()
                raise BrokerUnavailable("the change feed was not there and has been made anew") from exc

    async def _remove(self, table: Table, stream: str, stream_seq: int) -> None:
        """Remove what somebody else published on a copy's subjects: the next change is fenced with what is before."""
        log.warning("a message of another publisher is removed from the change feed", table=str(table.name))
        body = {"seq": stream_seq, "no_erase": True}
        try:
            await self._jetstream.request(f"STREAM.MSG.DELETE.{stream}", body)
        except RefusedError as exc:
            if exc.error.err_code not in NO_MESSAGE_CODES:
                raise unavailable(exc, f"to remove a foreign message from the changes of table {table.name}") from exc

    async def publish(
        self, table: Table, user: str, messages: Sequence[ChangeMessage], after: FeedPosition
    ) -> FeedPosition:
        """Store messages behind ``after``."""
        for start in range(0, len(messages), BATCH_MESSAGES_MAX):
            after = await self._publish_batch(table, user, messages[start : start + BATCH_MESSAGES_MAX], after)
        return after

    async def _publish_batch(
        self, table: Table, user: str, messages: Sequence[ChangeMessage], after: FeedPosition
    ) -> FeedPosition:
        pattern, stream = self._pattern(table.name, user), self._subjects.changes_stream_of(user)
        chained = pattern not in self._broken and len(messages) > 1 and self._replicas == 1
        chained = chained and all(len(message.payload) >= CHAINED_BYTES_MIN for message in messages)
        headers = {
            TABLE_HEADER: str(table.table_id),
            "Nats-Expected-Last-Subject-Sequence": str(after.stream_seq),
            "Nats-Expected-Last-Subject-Sequence-Subject": pattern,
        }
        blocks: Iterator[bytes] = (_chain if chained else _atomic_batch)(headers, len(messages))
        if any(map(_TRACE, messages)):
            blocks = map(with_trace, blocks, map(_TRACE, messages))
        reply, future = self._jetstream.expect_ack()
        try:
            await self._connection.client.publish_headed_batch(
                (self._subject(table, user, message), reply if message is messages[-1] else "", block, message.payload)
                for message, block in zip(messages, blocks, strict=True)
            )
        except (nats_errors.Error, OSError) as exc:
            self._jetstream.give_up_ack(reply)
            raise BrokerUnavailable(f"a change cannot be sent: {exc or type(exc).__name__}") from exc
        try:
            ack = await self._jetstream.wait_ack(reply, future, stream)
        except NoStreamError:
            await self.open()  # the broker has lost its store: the feed goes on from what the log still has
            raise
        except RefusedError as exc:
            if exc.error.err_code in WRONG_LAST_SEQUENCE_CODES:
                if chained:
                    self._broken.add(pattern)
                    log.debug("a chain of changes was broken", table=str(table.name), reason=str(exc))
                raise OutOfPlace(str(exc)) from exc
            raise unavailable(exc, f"changes of table {table.name}") from exc
        self._broken.discard(pattern)
        self._ends.acked(stream, ack.seq)
        last = messages[-1]
        return FeedPosition(last.first_seq + last.row_count - 1, ack.seq)

    def _subject(self, table: Table, user: str, message: ChangeMessage) -> str:
        name = table.name
        return self._subjects.change_subject(user, name.namespace, name.table, message.op, message.key)

    async def purge(self, name: TableName, *, per_user: bool) -> None:
        """Remove a table's changes from the feed."""
        owner = "*" if per_user else ""
        await self._purge(name, owner, {"filter": self._pattern(name, owner)})

    async def purge_copy(self, name: TableName, user: str) -> None:
        """Remove the changes of one user's copy from the feed."""
        await self._purge(name, user, {"filter": self._pattern(name, user)})

    async def _purge(self, name: TableName, owner: str, what: Mapping[str, Any]) -> None:
        try:
            await self._jetstream.request(f"STREAM.PURGE.{self._subjects.changes_stream_of(owner)}", what)
        except RefusedError as exc:
            if exc.error.err_code not in NOT_FOUND_CODES:
                raise unavailable(exc, f"to purge the changes of table {name}") from exc


def _chain(fence: Mapping[str, str], count: int) -> Iterator[bytes]:
    """The header blocks of messages of which each expects the one before it; the first has the fence."""
    chain = uuid.uuid4().hex  # another one each time: JetStream is to find no repeats
    yield header_block({**fence, "Nats-Msg-Id": f"{chain}.1"})
    for number in range(2, count + 1):
        ids = {"Nats-Msg-Id": f"{chain}.{number}", "Nats-Expected-Last-Msg-Id": f"{chain}.{number - 1}"}
        yield header_block({TABLE_HEADER: fence[TABLE_HEADER], **ids})


def _atomic_batch(fence: Mapping[str, str], count: int) -> Iterator[bytes]:
    """The header blocks of an atomic batch, whose first message has the fence; one message alone is none."""
    if count == 1:
        yield header_block(fence)
        return
    batch = {"Nats-Batch-Id": uuid.uuid4().hex}
    yield header_block({**fence, **batch, "Nats-Batch-Sequence": "1"})
    for number in range(2, count):
        yield header_block({TABLE_HEADER: fence[TABLE_HEADER], **batch, "Nats-Batch-Sequence": str(number)})
    last = {"Nats-Batch-Sequence": str(count), "Nats-Batch-Commit": "1"}
    yield header_block({TABLE_HEADER: fence[TABLE_HEADER], **batch, **last})
