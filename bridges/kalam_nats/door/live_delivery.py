"""Brings the messages of live queries to their subjects.

Nothing is sent before somebody subscribes, and nobody is served who is gone. The broker itself says so: a message with
a reply subject on which nobody listens comes back as *no responders*. So the first message is sent with a reply
subject until it does not come back, and so is every heartbeat. What did not come back is known by an echo: a message
to ourselves behind the others on the same connection, which the broker therefore answers after them.

One loop sends for all live queries, a bounded part of each at a time, so that a slow socket holds up nobody's share for
longer than anybody else's, and some milliseconds' worth in one turn of the event loop, whose next turn goes on with the
rest. While the broker takes nothing, the queries' own bounded queues fill, and overflow as their
law says.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from time import perf_counter

import msgspec
import structlog
from nats import errors as nats_errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from kalam.errors import BrokerUnavailable, NotFound
from kalam.live import LiveQuery, Message, Registry
from kalam.tasks import Tasks
from kalam_nats.broker.connection import BrokerConnection
from kalam_nats.broker.guarded_client import header_block
from kalam_nats.door.reader_backlog import ReaderBacklog
from kalam_nats.subjects import Subjects

SEQ_HEADER = "Kalam-Live-Seq"
FIRST_TRY_PAUSE_S = 0.05
FIRST_TRY_S = 5.0
HEARTBEAT_S = 3.5
OVERDUE_S = 0.5
SCAN_S = 0.25  # how often it is looked whose heartbeat is due
TICK_S = 0.05
ROUND_BYTES_MAX = 1 << 20
"""Bytes of one live query that are sent before the next one has its turn."""
TURN_BYTES_MAX = 16 << 20
"""Bytes of all live queries that are handed to the connection before it has to have sent them."""
TURN_S = 0.002
"""How long messages are made and handed over in one turn of the event loop, which has others to serve."""
UNPROVEN_BYTES_MAX = 4 << 20
"""Bytes of one live query after which the broker is asked whether they are read."""
LAST_WORDS_S = 0.2
"""How long connections that are about to end are kept for the last words of live queries on them."""
SUBSCRIBER_GONE = "no subscriber"
TOO_LARGE = "a row is larger than a message of this NATS may be (max_payload)"
log = structlog.get_logger(__name__)

Outgoing = tuple[str, str, bytes, bytes]


class Delivery(msgspec.Struct):
    """How far a live query's subscriber is known to be there.

    ``first`` is its message until that is known; while ``awaited`` it is on its way, and must not be sent again. One
    that ``returns`` was known to be there until the connection broke. While ``held`` nothing is sent: of the last
    ``unproven`` bytes the broker has too many left.
    """

    query: LiveQuery
    subject: str
    opened_s: float
    first: Message | None = None
    tried_s: float = 0.0
    awaited: bool = False
    refused: bool = False
    confirmed: bool = False
    returns: bool = False
    beat_s: float = 0.0
    unproven: int = 0
    held: bool = False


class LiveDelivery:
    """Sends for all live queries of a server; a Sink."""

    def __init__(self, connection: BrokerConnection, subjects: Subjects, registry: Registry) -> None:
        self._connection, self._subjects, self._registry = connection, subjects, registry
        self._deliveries: dict[str, Delivery] = {}
        self._unconfirmed: dict[str, Delivery] = {}
        self._noted: OrderedDict[str, Delivery] = OrderedDict()
        self._left = 0  # of the bytes of a round that was begun
        self._backlog = ReaderBacklog(connection)
        self._asking = Tasks()
        self._wake = asyncio.Event()
        self._due = False
        self._inbox = ""
        self._echoes: dict[str, list[Delivery]] = {}
        self._echo_count = 0
        self._clock = asyncio.get_running_loop().time
        self._new = False
        self._next_try_s = self._next_scan_s = 0.0

    def subject(self, query: LiveQuery) -> str:
        """The subject of a live query's messages."""
        return self._subjects.live_messages_subject(query.rights_of, query.id)

    def note(self, query: LiveQuery) -> None:
        """Send soon what waits in ``query``."""
        delivery = self._deliveries.get(query.id)
        if delivery is None:
            delivery = Delivery(query, self.subject(query), self._clock())
            self._deliveries[query.id] = delivery
        if delivery.confirmed:
            self._noted[query.id] = delivery
            self._send_soon()
        elif delivery.first is None:
            self._unconfirmed[query.id] = delivery
            self._new = True
            self._wake.set()

    def _send_soon(self) -> None:
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self._send_noted)

    def _send_noted(self) -> None:
        """Send what one turn of the loop has noted; where that would have to wait the loop that sends does it.

        It goes out at once: what a commit gives the feed is made after it, and would take longer than this. What the
        time of a turn was too short for goes on in the next one, however much the connection has still to send: a
        queue that is not emptied before the next commit may overflow.
        """
        self._due = False
        try:
            messages = self._noted_messages(self._clock(), perf_counter() + TURN_S)
            sent = self._connection.client.publish_headed_batch_now(messages, behind=self._left > 0)
        except BrokerUnavailable:
            sent = False
        except Exception:
            log.exception("live messages were not sent")
            return
        if not sent:
            self._wake.set()

    async def open(self) -> None:
        """Listen for what comes back, on this client and on each that replaces it."""
        await self._connection.register(self._subscribe)
        self._connection.on_connected(self._reconnected)

    async def _subscribe(self, client: Client) -> None:
        self._inbox = client.new_inbox()
        await client.subscribe(f"{self._inbox}.*", cb=self._take_back, pending_msgs_limit=1 << 18)

    def _reconnected(self) -> None:
        """Subscribers come back after us: what is told next is tried until they are there, as the first message was."""
        self._give_up_tries()
        now = self._clock()
        for delivery in self._deliveries.values():
            delivery.beat_s = now + HEARTBEAT_S
            delivery.tried_s, delivery.opened_s = 0.0, now
            if delivery.confirmed:
                delivery.confirmed, delivery.returns = False, True
                if delivery.query.waiting:
                    self.note(delivery.query)
        self._wake.set()

    async def _take_back(self, msg: Msg) -> None:
        token = msg.subject.rpartition(".")[2]
        if msg.headers and msg.headers.get("Status") == "503":
            delivery = self._deliveries.get(token)
            if delivery is None:
                return
            if delivery.confirmed:
                self._end(delivery)
                await asyncio.sleep(0)  # thousands may leave at once, and nats-py has the next message at hand
            else:
                delivery.refused = True
            return
        for delivery in self._echoes.pop(token, ()):
            self._confirm(delivery)

    def _confirm(self, delivery: Delivery) -> None:
        """The first message went out before an echo: unless it came back, somebody has it."""
        delivery.awaited = False
        delivery.opened_s += self._clock() - delivery.tried_s  # a broker that pauses takes nobody's time to subscribe
        if delivery.refused or delivery.confirmed:
            delivery.refused = False
            return
        delivery.confirmed, delivery.returns, delivery.first = True, False, None
        delivery.beat_s = self._clock() + HEARTBEAT_S
        self._unconfirmed.pop(delivery.query.id, None)
        self.note(delivery.query)

    def _give_up_tries(self) -> None:
        """No echo comes any more for what was sent on a connection that broke."""
        for deliveries in self._echoes.values():
            for delivery in deliveries:
                delivery.awaited = False
        self._echoes.clear()

    def _end(self, delivery: Delivery) -> None:
        with contextlib.suppress(NotFound):  # closed already
            self._registry.close(delivery.query.id, None, SUBSCRIBER_GONE)
        for deliveries in (self._deliveries, self._unconfirmed, self._noted):
            deliveries.pop(delivery.query.id, None)

    async def run(self) -> None:
        """Send until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                await self._turn()
            except (BrokerUnavailable, nats_errors.Error, OSError) as exc:
                log.debug("live messages wait for the broker", error=str(exc))
                await asyncio.sleep(TICK_S)
            except Exception:
                log.exception("live messages were not sent")
                await asyncio.sleep(TICK_S)
            tick = loop.call_later(TICK_S, self._wake.set)
            await self._wake.wait()
            tick.cancel()
            self._wake.clear()
            await asyncio.sleep(0)  # others first, also where nothing had to be waited for

    async def _turn(self) -> None:
        client = self._connection.client  # raises while the connection is down, before anything is taken
        now, end_s = self._clock(), perf_counter() + TURN_S
        outgoing: list[Outgoing] = []
        if now >= self._next_scan_s:
            self._next_scan_s = now + SCAN_S
            outgoing += self._heartbeats(now, end_s)  # first of all, for there always is time for some of the others
        if self._unconfirmed and (self._new or now >= self._next_try_s):
            self._new, self._next_try_s = False, now + FIRST_TRY_PAUSE_S
            outgoing += self._first_tries(now, end_s)
        outgoing += self._noted_messages(now, end_s)
        if outgoing:
            try:
                await client.publish_headed_batch(outgoing)
            except BaseException:
                self._give_up_tries()
                raise

    def _first_tries(self, now: float, end_s: float) -> Iterator[Outgoing]:
        tried: list[Delivery] = []
        size = 0
        for delivery in list(self._unconfirmed.values()):
            if size >= TURN_BYTES_MAX or (tried and perf_counter() >= end_s):
                self._new = True  # the others in the next turn
                self._wake.set()
                break
            if delivery.first is None:
                delivery.first, delivery.opened_s = delivery.query.take(), now
            if delivery.first is None or delivery.awaited or now - delivery.tried_s < FIRST_TRY_PAUSE_S:
                continue
            if now - delivery.opened_s > FIRST_TRY_S:
                self._end(delivery)
                continue
            delivery.tried_s, delivery.awaited, delivery.refused = now, True, False
            tried.append(delivery)
            size += len(delivery.first.payload)
            yield self._message(delivery, delivery.first, ask=True)
        if tried:
            self._echo_count += 1
            token = f"echo-{self._echo_count}"
            self._echoes[token] = tried
            yield f"{self._inbox}.{token}", "", b"", b""

    def _noted_messages(self, now: float, end_s: float) -> Iterator[Outgoing]:
        if self._left <= 0:
            self._left = TURN_BYTES_MAX
        more: list[Delivery] = []
        for _ in range(len(self._noted)):
            _, delivery = self._noted.popitem(last=False)
            if not delivery.confirmed or (delivery.held and delivery.query.closed is None):
                continue
            yield from self._share(delivery, now)
            if delivery.query.waiting:
                more.append(delivery)  # behind those that wait for their turn
            elif delivery.query.closed is not None:
                self._deliveries.pop(delivery.query.id, None)
            if self._left <= 0 or perf_counter() >= end_s:
                break
        for delivery in more:
            self.note(delivery.query)
        if self._noted:
            self._send_soon()
        else:
            self._left = 0

    def _share(self, delivery: Delivery, now: float) -> Iterator[Outgoing]:
        """What one live query may send before the next one has its turn."""
        size = 0
        while size < ROUND_BYTES_MAX and (message := delivery.query.take()) is not None:
            size += len(message.payload)
            overdue = now > delivery.beat_s + OVERDUE_S  # so much waits that no heartbeat comes between
            if overdue:
                delivery.beat_s = now + HEARTBEAT_S
            yield self._message(delivery, message, ask=overdue)
        self._left -= size
        delivery.unproven += size
        if delivery.unproven >= UNPROVEN_BYTES_MAX and not delivery.held:
            self._hold(delivery)

    def _hold(self, delivery: Delivery) -> None:
        """Send no more until what was sent is read: the query's own queue is bounded and dropped in its time."""
        delivery.held = True
        self._asking.start(self._release(delivery), f"live backlog {delivery.query.id}")

    async def _release(self, delivery: Delivery) -> None:
        await self._backlog.wait_small(delivery.subject)
        delivery.held, delivery.unproven = False, 0
        if delivery.query.waiting and self._deliveries.get(delivery.query.id) is delivery:  # it may have ended
            self.note(delivery.query)

    def _heartbeats(self, now: float, end_s: float) -> Iterator[Outgoing]:
        for delivery in list(self._deliveries.values()):
            if perf_counter() >= end_s:
                self._next_scan_s = now  # whose turn has not come yet has it in the next one
                self._wake.set()
                break
            returns = delivery.returns and delivery.first is None
            if now < delivery.beat_s or not (delivery.confirmed or returns):
                continue
            message = delivery.query.heartbeat()
            if message is None:
                continue
            delivery.beat_s = now + HEARTBEAT_S
            if returns:
                delivery.first, delivery.opened_s, self._new = message, now, True
                self._unconfirmed[delivery.query.id] = delivery
                self._wake.set()
            else:
                yield self._message(delivery, message, ask=True)

    def _message(self, delivery: Delivery, message: Message, *, ask: bool) -> Outgoing:
        reply = f"{self._inbox}.{delivery.query.id}" if ask else ""
        header = header_block({SEQ_HEADER: str(message.number)})
        payload = message.payload
        if len(header) + len(payload) > self._connection.client.max_payload:
            payload = self._instead(delivery, message)
        return delivery.subject, reply, header, payload

    def _instead(self, delivery: Delivery, message: Message) -> bytes:
        """What is sent for a message that the broker would end the connection for: rows of others may be so large."""
        query = delivery.query
        log.warning("a live message is larger than max_payload", query=query.id, bytes=len(message.payload))
        if message.seq is not None:
            return query.shape.message({"type": "resync", "seq": message.seq})
        self._registry.close(query.id, None, TOO_LARGE)
        return query.shape.message({"type": "snapshot", "rows": []})

    async def say_last_words(self) -> None:
        """Send what live queries that are closed have still to say; who ends their connections waits for it."""
        await self._send_while(lambda: any(d.query.closed is not None for d in self._noted.values()), LAST_WORDS_S)

    async def drain(self, timeout_s: float) -> None:
        """Send what waits, the last words of closed live queries above all, as far as the time allows."""
        await self._send_while(
            lambda: bool(self._noted) or any(d.query.waiting for d in self._deliveries.values() if d.confirmed),
            timeout_s,
        )

    async def _send_while(self, wanting: Callable[[], bool], timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                while wanting():
                    await self._turn()
                    await asyncio.sleep(0)
        except (TimeoutError, BrokerUnavailable, nats_errors.Error, OSError) as exc:
            log.debug("live queries ended without a word", error=str(exc))
