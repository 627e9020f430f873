"""The request subjects of live queries: open and close."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import msgspec
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

from kalam.engine import Caller, Engine, Identity, Session
from kalam.errors import Internal, KalamError
from kalam.live import LiveQuery
from kalam.tasks import Tasks
from kalam_nats.broker.connection import BrokerConnection
from kalam_nats.broker.draining import drained
from kalam_nats.broker.interest import Interest
from kalam_nats.door.discovery import QUEUE_GROUP, Endpoint
from kalam_nats.door.error_replies import reply_error
from kalam_nats.door.live_delivery import LiveDelivery
from kalam_nats.door.live_payloads import OpenRequest, ReplayRequest, read_open, read_replay
from kalam_nats.door.senders import Senders, caller_of
from kalam_nats.subjects import Subjects

OPENINGS_WAITING_MAX = 100_000
OPENINGS_AT_ONCE = 32
log = structlog.get_logger(__name__)

Read = Callable[[Msg], tuple[Identity, OpenRequest | ReplayRequest]]
"""Who asks in a message, and for what."""


class LiveRequests:
    """Serves the request subjects of live queries."""

    def __init__(
        self,
        connection: BrokerConnection,
        subjects: Subjects,
        engine: Engine,
        delivery: LiveDelivery,
        senders: Senders,
    ) -> None:
        self._connection, self._subjects, self._engine, self._delivery = connection, subjects, engine, delivery
        self._senders = senders
        self._interest = Interest(connection)
        self._tasks = Tasks()
        self._running = asyncio.Semaphore(OPENINGS_AT_ONCE)
        self._subscriptions: list[Any] = []
        self.open_endpoint = Endpoint("live", subjects.live_subject(), QUEUE_GROUP)
        self.replay_endpoint = Endpoint("replay", subjects.replay_subject(), QUEUE_GROUP)
        self.close_endpoint = Endpoint("live-close", subjects.live_close_subject(), QUEUE_GROUP)

    async def open(self) -> None:
        """Subscribe, on this client and on each that replaces it."""
        await self._connection.register(self._subscribe)

    async def _subscribe(self, client: Client) -> None:
        limits: dict[str, Any] = {"pending_msgs_limit": OPENINGS_WAITING_MAX}
        opening, closing = self._subjects.live_subject(), self._subjects.live_close_subject()
        replay = self._subjects.replay_subject()
        self._subscriptions = [
            await client.subscribe(opening, queue=QUEUE_GROUP, cb=self._take_open, **limits),
            await client.subscribe(replay, queue=QUEUE_GROUP, cb=self._take_replay, **limits),
            await client.subscribe(closing, queue=QUEUE_GROUP, cb=self._take_close, **limits),
        ]

    async def drain(self) -> None:
        """Take no more requests, end every live query, and let them say so."""
        await drained(self._subscriptions)
        await self._tasks.cancel()
        self._engine.close_live_queries()
        await self._delivery.drain(2.0)

    async def _take_open(self, msg: Msg) -> None:
        if msg.reply and not self._is_refused(msg, self.open_endpoint):  # without one nobody learns where they are
            self._tasks.start(self._open(msg, self._asked, self.open_endpoint))

    async def _take_replay(self, msg: Msg) -> None:
        if msg.reply and not self._is_refused(msg, self.replay_endpoint):
            self._tasks.start(self._open(msg, self._asked_again, self.replay_endpoint))

    def _is_refused(self, msg: Msg, endpoint: Endpoint) -> bool:
        fault = self._senders.fault(msg.subject.encode(), msg.reply.encode(), msg.headers)
        if fault is None:
            return False
        error, reply = fault
        endpoint.note(0.0, [error])
        if reply:
            self._tasks.start(self._answer(reply.decode(), error))
        return True

    async def _take_close(self, msg: Msg) -> None:
        if self._is_refused(msg, self.close_endpoint):
            return
        started = time.perf_counter()
        error: KalamError | None = None
        try:
            user, query_id = self._subjects.parse_live_close_subject(msg.subject)
            caller_of(self._engine, Session(self._senders.identify(user))).unfollow(query_id, "closed")
        except KalamError as exc:
            error = exc.as_value()
        self.close_endpoint.note(time.perf_counter() - started, [error])
        if msg.reply:
            self._tasks.start(self._answer(msg.reply, error or {"closed": True}))

    async def _open(self, msg: Msg, read: Read, endpoint: Endpoint) -> None:
        started = time.perf_counter()
        answer: KalamError | dict[str, Any]
        opened: tuple[Caller, LiveQuery] | None = None
        try:
            async with self._running:
                opened = await self._opened(msg, *read(msg))
            answer = self._described(opened[1])
        except KalamError as exc:
            answer = exc.as_value()
        except Exception as exc:
            log.exception("a live query could not be opened")
            answer = Internal(f"an internal error ({type(exc).__name__})")
        endpoint.note(time.perf_counter() - started, [answer])
        await self._answer(msg.reply, answer)
        if opened is not None:
            caller, query = opened
            caller.begin(query)

    def _asked(self, msg: Msg) -> tuple[Identity, OpenRequest]:
        return self._senders.identify(self._subjects.parse_live_subject(msg.subject)), read_open(msg.data)

    def _asked_again(self, msg: Msg) -> tuple[Identity, ReplayRequest]:
        return self._senders.identify(self._subjects.parse_replay_subject(msg.subject)), read_replay(msg.data)

    async def _opened(self, msg: Msg, sender: Identity, asked: OpenRequest | ReplayRequest) -> tuple[Caller, LiveQuery]:
        session = Session(sender, bigint_as_text=asked.integers == "text")
        caller = caller_of(self._engine, session, msg.reply, self._interest)
        return caller, await asked.follow(caller, self._delivery)

    def _described(self, query: LiveQuery) -> dict[str, Any]:
        columns = [{"name": column.name, "type": str(column.type)} for column in query.shape.columns]
        described = {"id": query.id, "subject": self._delivery.subject(query), "table_id": query.feed_id}
        # A bucket keeps what is there and not what has changed.
        return described | {"columns": columns} | ({"resumable": False} if query.table.is_bucket else {})

    async def _answer(self, reply: str, answer: KalamError | dict[str, Any]) -> None:
        try:
            if isinstance(answer, KalamError):
                await reply_error(self._connection, reply, answer)
            else:
                await self._connection.client.publish_batch([(reply.encode(), b"", msgspec.json.encode(answer))])
        except Exception as exc:  # noqa: BLE001 - who asked is out of reach
            log.debug("answer not sent", error=str(exc))
