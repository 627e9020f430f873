"""Publishing the events of STREAM tables, and proving that the broker has them.

The law: the events of a batch go out in order as one write, the last of them asks for an ack, and the ack's sequence
proves the rest, because a stream gives its sequences without holes: if the last event has sequence s and the one before
the batch had s - n, then all n are stored. When the numbers do not fit (somebody else publishes there, or the broker
dropped some) the stream itself is read before anything is acknowledged. In the next batches what others stored
could hide as many that were dropped; of those every event asks for an ack of its own.

No more than a window of events of a table is on the way, for the broker drops what waits too long a line. A batch that
is larger goes part by part, and nobody's events come between the parts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from operator import itemgetter

import msgspec

from kalam.errors import BrokerUnavailable
from kalam.schema import Table
from kalam.tables.ports import Acked, StoredEvents, StreamState
from kalam_nats.broker.connection import BrokerConnection
from kalam_nats.broker.guarded_client import GuardedClient
from kalam_nats.broker.jetstream import JetStream, PubAck, RefusedError, unavailable

WATCHED_BATCHES = 64
"""In so many batches after one whose numbers did not fit every event asks for an ack."""

Message = tuple[bytes, bytes, bytes]
"""Subject, header block or nothing, payload."""
_HEADER = itemgetter(1)
ExpectedAck = tuple[str, asyncio.Future[bytes]]
"""The reply subject, and what will come on it."""


class Line(msgspec.Struct):
    """The events of one table that are on their way.

    ``predicted`` is the sequence that the newest event gets if every sequence is ours; ``shift`` is how far the acks
    were off lately, because of others who publish there. ``acked`` is the largest sequence that has been acknowledged;
    ``created`` tells the stream.
    """

    predicted: int
    acked: int
    created: str
    shift: int = 0
    watched: int = 0
    inflight: int = 0
    freed: asyncio.Event = msgspec.field(default_factory=asyncio.Event)

    def has_room(self, count: int, window: int) -> bool:
        """Whether ``count`` more events may be in flight."""
        return not self.inflight or self.inflight + count <= window

    async def wait_room(self, count: int, window: int) -> None:
        """Wait until they may."""
        while not self.has_room(count, window):
            self.freed.clear()
            await self.freed.wait()

    def release(self, count: int) -> None:
        """Events are not in flight any more."""
        self.inflight -= count
        self.freed.set()

    def fits(self, ack_seq: int, predicted: int) -> bool:
        """Whether an ack proves its batch by its number alone."""
        shift, self.shift = self.shift, ack_seq - predicted
        if self.shift != shift:
            self.watched = WATCHED_BATCHES
        elif self.watched:
            self.watched -= 1
        return not self.watched


class Sent(msgspec.Struct, frozen=True):
    """A batch that was handed over: what was promised to it, and which sequences it had if only we published.

    ``acks`` are those of the last of its events, or of all; every one of them lies behind ``after_seq``.
    """

    messages: Sequence[Message]
    acks: Sequence[ExpectedAck]
    predicted: int
    after_seq: int


class StreamPublisher:
    """Publishes for every STREAM table.

    ``events`` reads what lies behind a sequence and up to another, ``state`` asks for a stream's end.
    """

    def __init__(
        self,
        connection: BrokerConnection,
        jetstream: JetStream,
        window: int,
        *,
        state: Callable[[Table], Awaitable[StreamState]],
        events: Callable[[Table, int, int], Awaitable[StoredEvents]],
    ) -> None:
        self._connection, self._jetstream, self._window = connection, jetstream, window
        self._state, self._events = state, events
        self._lines: dict[int, Line] = {}
        connection.on_disconnected(self._lines.clear)

    def forget(self, table: Table) -> None:
        """Ask for the stream's end again before the next publish."""
        self._lines.pop(table.table_id, None)

    async def publish(
        self, table: Table, stream: str, messages: Sequence[Message], handed_over: Callable[[], None]
    ) -> Acked:
        """Publish in order; the sequences of the events, once all are stored."""
        if len(messages) <= self._window:
            line, sent = await self._send(messages, table)
            handed_over()
            return await self._confirmed(table, stream, line, sent)
        seqs: list[int] = []
        repeats, created = 0, set()
        for start in range(0, len(messages), self._window):
            try:
                line, sent = await self._send(messages[start : start + self._window], table)
                acked = await self._confirmed(table, stream, line, sent)
                seqs += acked.seqs
                repeats += acked.repeats
                created.add(acked.created)
            except BrokerUnavailable as exc:
                if start and exc.fields.get("stored") != "unknown":
                    exc.fields["stored"] = start + exc.fields.get("stored", 0)
                raise
        return Acked(seqs, repeats, created.pop() if len(created) == 1 else "")

    async def _new_line(self, table: Table) -> Line:
        state = await self._state(table)
        return self._lines.setdefault(table.table_id, Line(state.last_seq, state.last_seq, state.created))

    async def _roomy_line(self, table: Table, count: int) -> Line:
        """The table's line, once ``count`` more events may be in flight."""
        while True:
            line = self._lines.get(table.table_id) or await self._new_line(table)
            await line.wait_room(count, self._window)
            if self._lines.get(table.table_id) is line:  # else its numbers ceased to hold meanwhile
                return line

    async def _send(self, messages: Sequence[Message], table: Table) -> tuple[Line, Sent]:
        count = len(messages)
        line = self._lines.get(table.table_id)
        if line is None or not line.has_room(count, self._window):
            line = await self._roomy_line(table, count)
        evicts_itself = count > table.stream_options.max_buffer_rows  # and could not be read back
        # A repeat gets no sequence of its own.
        headed = any(map(_HEADER, messages))
        known_again = headed and any(b"Nats-Msg-Id:" in header for _, header, _ in messages)
        asking = count if line.watched or evicts_itself or known_again else 1
        acks = [self._jetstream.expect_ack() for _ in range(asking)]
        after_seq = line.acked  # before anything of it is handed over
        line.inflight += count
        try:
            await _hand_over(self._connection.client, messages, [reply for reply, _ in acks], headed=headed)
        except BaseException as exc:
            line.release(count)
            for reply, _ in acks:
                self._jetstream.give_up_ack(reply)
            if isinstance(exc, BrokerUnavailable):
                exc.fields.setdefault("stored", 0)
            raise
        line.predicted += count
        return line, Sent(messages, acks, line.predicted, after_seq)

    async def _confirmed(self, table: Table, stream: str, line: Line, sent: Sent) -> Acked:
        count = len(sent.messages)
        try:
            acks = await self._acked(table, stream, sent)
        except BrokerUnavailable:
            if self._lines.get(table.table_id) is line:
                self.forget(table)
            raise
        finally:
            line.release(count)
        seqs, created = [ack.seq for ack in acks], line.created
        repeats = sum(ack.duplicate for ack in acks)
        if repeats:
            self.forget(table)  # the sequences are not what they were predicted to be
            return Acked(seqs, repeats, created)
        after_seq = sent.after_seq
        if min(seqs) <= after_seq:  # the numbers have stepped back: it is another stream, or an older state of it
            self.forget(table)
            after_seq, created = 0, ""
        fits = line.fits(seqs[-1], sent.predicted)
        line.acked = max(line.acked, seqs[-1])
        if len(acks) == count:
            return Acked(seqs, created=created)
        if fits and created:
            return Acked(range(seqs[-1] - count + 1, seqs[-1] + 1), created=created)
        return Acked(await self._prove(table, sent, after_seq, seqs[-1]), created=created)

    async def _acked(self, table: Table, stream: str, sent: Sent) -> list[PubAck]:
        """The acks that were asked for; raises where one did not come or is none."""
        if len(sent.acks) == 1:
            outcomes = [await self._outcome(sent.acks[0], stream)]
        else:
            outcomes = await asyncio.gather(*(self._outcome(expected, stream) for expected in sent.acks))
        acks = [outcome for outcome in outcomes if isinstance(outcome, PubAck) and outcome.stream == stream]
        if len(acks) < len(outcomes):
            failed = next(o for o in outcomes if not isinstance(o, PubAck) or o.stream != stream)
            stored = 0 if not acks and len(sent.acks) == len(sent.messages) else "unknown"
            raise _failure(failed, table, stream, stored, certain=not acks)
        return acks

    async def _outcome(self, expected: ExpectedAck, stream: str) -> PubAck | RefusedError | BrokerUnavailable:
        try:
            return await self._jetstream.wait_ack(*expected, stream)
        except (RefusedError, BrokerUnavailable) as exc:
            return exc

    async def _prove(self, table: Table, sent: Sent, after_seq: int, last_seq: int) -> Sequence[int]:
        """Look for all events in the stream, in order, behind a sequence and up to another."""
        payloads = [payload for _, _, payload in sent.messages]
        stored = await self._events(table, after_seq, last_seq)
        seqs = _found(payloads, stored, last_seq)
        if len(seqs) < len(payloads):
            raise BrokerUnavailable(
                f"{len(payloads) - len(seqs)} of {len(payloads)} events of table {table.name} are not in its stream",
                stored="unknown",  # evicted, or refused one by one: what was found is only the end of it
            )
        return seqs


async def _hand_over(
    client: GuardedClient, messages: Sequence[Message], replies: Sequence[str], *, headed: bool
) -> None:
    """Publish as one write; the last ones ask for acks."""
    quiet, asking = messages[: -len(replies)], messages[-len(replies) :]
    asked = zip(asking, replies, strict=True)
    if headed:
        await client.publish_headed_batch(
            [
                *((subject.decode(), "", header, payload) for subject, header, payload in quiet),
                *((subject.decode(), reply, header, payload) for (subject, header, payload), reply in asked),
            ]
        )
        return
    await client.publish_batch(
        [*quiet, *((subject, reply.encode(), payload) for (subject, _, payload), reply in asked)]
    )


def _found(payloads: Sequence[bytes], stored: StoredEvents, last_seq: int) -> list[int]:
    """The sequences of these payloads, matched in order from the end, where the last one certainly is."""
    seqs: list[int] = []
    for seq, payload in zip(reversed(stored.seqs), reversed(stored.payloads), strict=True):
        if seq <= last_seq and len(seqs) < len(payloads) and payload == payloads[-1 - len(seqs)]:
            seqs.append(seq)
    seqs.reverse()
    return seqs


def _failure(
    outcome: PubAck | RefusedError | BrokerUnavailable, table: Table, stream: str, stored: int | str, *, certain: bool
) -> BrokerUnavailable:
    """Why a batch is not acknowledged; an ack that failed knows itself what is stored where that is ``certain``."""
    if isinstance(outcome, BrokerUnavailable):
        if not certain:
            outcome.fields["stored"] = stored
        return outcome
    if isinstance(outcome, PubAck):
        what = f"were captured by the stream {outcome.stream!r} and not by {stream!r}"
        return BrokerUnavailable(f"the events of table {table.name} {what}", stored=stored)
    error = unavailable(outcome, f"events of table {table.name}")
    error.fields["stored"] = stored
    return error
