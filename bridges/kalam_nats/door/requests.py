"""The request subjects: inserts and SQL.

The law of ingest: what arrives while the loop is busy is one batch. A callback only puts its message down; one turn of
the loop later everything that was put down is decoded, committed and answered together. So a lone message waits for
nobody, and under load the cost of a message is a share of its batch's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any, Final

import msgspec
import structlog

from kalam.engine import DEFAULT_USER, Caller, Engine, Identity, InsertMessage, Lookups, Session
from kalam.errors import Internal, InvalidName, InvalidValue, KalamError, TooBusy, Unauthenticated
from kalam.names import TableName
from kalam.rows.door import ARROW_STREAM
from kalam.rows.taking import PLAIN, WORDS, read_taking
from kalam.tasks import Tasks
from kalam.tracing import enter_trace, in_trace, named_trace
from kalam_nats.broker.connection import BrokerConnection
from kalam_nats.broker.draining import drained
from kalam_nats.broker.guarded_client import GuardedClient
from kalam_nats.broker.interest import Interest
from kalam_nats.door.discovery import QUEUE_GROUP, Endpoint
from kalam_nats.door.error_replies import HEADER_BYTES, reply_error, reply_whole
from kalam_nats.door.rejections import Rejections
from kalam_nats.door.senders import Senders, caller_of
from kalam_nats.door.sql_request import decode_sql
from kalam_nats.subjects import Subjects

log = structlog.get_logger(__name__)

SQL_INFLIGHT_MAX = 1_024
LOOKUPS_TOGETHER_MAX: Final = 100
"""Requests that are looked up in one turn of the loop, which is kept for three milliseconds by them."""
WAITING_LOOKUPS_MAX: Final = 1_000
"""So many are left for a later turn at most: whoever sends faster keeps the loop for longer, and fills no memory."""
ASKING: Final = frozenset(WORDS)
"""Headers by which a message asks for another taking than the rule."""

Route = tuple[Caller, TableName]
"""Who sends on a subject, into which table."""


class Incoming(InsertMessage, frozen=True, gc=False):
    """An insert as it came on ``subject``; ``reply`` is the subject of its answer, or nothing."""

    reply: bytes = b""
    subject: bytes = b""


class Waiting(msgspec.Struct):
    """Inserts that wait together: of one subject, or of all users into one STREAM table, whose order counts."""

    subjects: list[bytes]
    stream: TableName | None
    messages: list[Incoming] = msgspec.field(default_factory=list)
    traced: bool = False
    asking: bool = False


IncomingSql = tuple[bytes, bytes, bytes, str | None]
"""Subject, reply subject or nothing, payload, and the trace that it names."""
SqlSession = tuple[bytes, str | None, str | None, str]
"""What requests have in common that are of one session: subject, namespace, names and integers."""

_TRACE = attrgetter("trace")


def taken_in_a_turn(waiting: int) -> int:
    """Of how many waiting requests the rows are looked up in one turn of the loop."""
    return max(LOOKUPS_TOGETHER_MAX, waiting - WAITING_LOOKUPS_MAX)


class Requests:
    """Serves the request subjects with an engine."""

    def __init__(
        self,
        connection: BrokerConnection,
        subjects: Subjects,
        engine: Engine,
        rejections: Rejections,
        senders: Senders,
    ) -> None:
        self._connection, self._subjects, self._engine = connection, subjects, engine
        self._sending, self._guarded, self._inboxes = senders, senders.guarded, senders.inboxes
        self._interest = Interest(connection)
        self._rejections = rejections
        self._routes: dict[str, Route] = {}
        self._waiting: dict[bytes, Waiting] = {}
        self._waiting_streams: dict[TableName, Waiting] = {}
        self._waiting_sql: list[IncomingSql] = []
        self._tasks = Tasks()
        self._sql_running = 0
        self._senders: dict[bytes, Identity] = {}
        self._subscriptions: list[Any] = []
        self.messages = 0
        self.insert_endpoint = Endpoint("insert", subjects.insert_subject(), QUEUE_GROUP)
        self.sql_endpoint = Endpoint("sql", subjects.sql_subject(), QUEUE_GROUP)

    async def open(self) -> None:
        """Subscribe, on this client and on each that replaces it."""
        await self._connection.register(self._subscribe)

    async def _subscribe(self, client: GuardedClient) -> None:
        insert, sql = self._subjects.insert_subject(), self._subjects.sql_subject()
        self._subscriptions = [
            await client.tap(insert, self._take_insert, QUEUE_GROUP),
            await client.tap(sql, self._take_sql, QUEUE_GROUP),
        ]

    async def drain(self) -> None:
        """Take no more requests, and finish those that came."""
        await drained(self._subscriptions)
        while self._waiting_sql:
            self._answer_sql()
        await self._tasks.wait()

    def _take_insert(self, subject: bytes, reply: bytes, payload: bytes, headers: Mapping[str, str] | None) -> None:
        if self._guarded:
            inbox = self._inboxes.get(subject)  # all that most messages need
            if headers or inbox is None or (reply and not reply.startswith(inbox)):
                fault = self._sending.fault(subject, reply, headers)
                if fault is not None:
                    refused = Incoming(payload, False, None, bool(reply), None, PLAIN, fault[1], subject)
                    self._tasks.start(self._refuse_unread(refused, fault[0]))
                    return
        if headers:
            arrow = headers.get("Content-Type") == ARROW_STREAM
            msg_id, trace, taking = headers.get("Nats-Msg-Id") or None, named_trace(headers), PLAIN
            if not ASKING.isdisjoint(headers):
                try:
                    taking = read_taking(lambda header, _: headers.get(header))
                except InvalidValue as exc:
                    refused = Incoming(payload, arrow, msg_id, bool(reply), trace, PLAIN, reply, subject)
                    self._tasks.start(self._refuse_unread(refused, exc.as_value()))
                    return
            message = Incoming(payload, arrow, msg_id, bool(reply), trace, taking, reply, subject)
        else:
            message = Incoming(payload, False, None, bool(reply), None, PLAIN, reply, subject)
        waiting = self._waiting.get(subject)
        if waiting is None:
            waiting = self._wait(subject)
        waiting.messages.append(message)
        if headers:
            waiting.traced |= message.trace is not None
            waiting.asking |= message.taking is not PLAIN

    def _wait(self, subject: bytes) -> Waiting:
        """Where the first insert on a subject waits."""
        stream = self._stream_of(subject)
        others = None if stream is None else self._waiting_streams.get(stream)
        if others is not None:
            others.subjects.append(subject)
            self._waiting[subject] = others
            return others
        waiting = self._waiting[subject] = Waiting([subject], stream)
        if stream is not None:
            self._waiting_streams[stream] = waiting
        self._tasks.start(self._insert(waiting))
        return waiting

    def _stream_of(self, subject: bytes) -> TableName | None:
        """The STREAM table of a subject; None for anything else."""
        try:
            name = self._route(subject.decode("utf-8", "replace"))[1]
        except (InvalidName, Unauthenticated):
            return None
        return name if self._engine.in_one_order(name) else None

    def _take_sql(self, subject: bytes, reply: bytes, payload: bytes, headers: Mapping[str, str] | None) -> None:
        if self._guarded:
            inbox = self._inboxes.get(subject)  # as above
            if headers or inbox is None or not reply.startswith(inbox):
                fault = self._sending.fault(subject, reply, headers)
                if fault is not None:
                    self.sql_endpoint.note(0.0, fault[:1])
                    self._tasks.start(self._try_reply_error(_text(fault[1]), fault[0]))
                    return
        if not self._waiting_sql:
            asyncio.get_running_loop().call_soon(self._answer_sql)
        self._waiting_sql.append((subject, reply, payload, named_trace(headers) if headers else None))

    async def _insert(self, waiting: Waiting) -> None:
        """Work off what waits together by now."""
        for on in waiting.subjects:
            del self._waiting[on]
        if waiting.stream is not None:
            del self._waiting_streams[waiting.stream]
        batch, name = waiting.messages, None
        sender: Identity | None = None
        answers: Sequence[bytes | KalamError]
        subject = waiting.subjects[0].decode("utf-8", "replace")
        self.messages += len(batch)
        started = time.perf_counter()
        if waiting.traced:  # the log of what is done together names the first of them
            enter_trace(next(filter(None, map(_TRACE, batch))))
        try:
            caller, name = self._route(subject)
            sender = caller.session.identity
            senders = self._senders_of(waiting) if len(waiting.subjects) > 1 else None
            answers = await caller.insert(name, batch, senders, traced=waiting.traced, asking=waiting.asking)
        except (InvalidName, Unauthenticated) as exc:
            name, answers = self._public_table(subject), [exc] * len(batch)
        except Exception as exc:
            log.exception("insert failed", subject=subject)
            answers = [Internal(f"an internal error stopped the insert ({type(exc).__name__})")] * len(batch)
        self.insert_endpoint.note(time.perf_counter() - started, answers)
        await self._answer(sender, name, batch, answers)

    def _senders_of(self, waiting: Waiting) -> list[Identity]:
        senders = {
            subject: self._route(subject.decode("utf-8", "replace"))[0].session.identity for subject in waiting.subjects
        }
        return [senders[message.subject] for message in waiting.messages]

    def _route(self, subject: str) -> Route:
        route = self._routes.get(subject)
        if route is None:
            user, namespace, table = self._subjects.parse_insert_subject(subject)
            route = (caller_of(self._engine, Session(self._sending.identify(user))), TableName(namespace, table))
            if len(self._routes) > 100_000:
                self._routes.clear()
            self._routes[subject] = route
        return route

    def _public_table(self, subject: str) -> TableName | None:
        """The table of a subject whose user id is none; None where what was sent is for its users' eyes only."""
        *_, namespace, table = subject.split(".")
        try:
            self._subjects.parse_insert_subject(self._subjects.insert_subject(DEFAULT_USER, namespace, table))
        except InvalidName:
            return None
        name = TableName(namespace, table)
        found = self._engine.known(name)
        return None if found is not None and found.per_user else name

    async def _answer(
        self,
        sender: Identity | None,
        name: TableName | None,
        batch: Sequence[Incoming],
        answers: Sequence[bytes | KalamError],
    ) -> None:
        replies: list[tuple[bytes, bytes, bytes]] = []
        for message, answer in zip(batch, answers, strict=True):
            if not isinstance(answer, bytes):
                await self._refuse(sender, name, message, answer)
            elif message.reply:
                replies.append((message.reply, b"", answer))
        if replies:
            await self._send_replies(replies)

    async def _refuse_unread(self, message: Incoming, error: KalamError) -> None:
        """Refuse a message whose headers say what nobody understands."""
        subject = message.subject.decode("utf-8", "replace")
        sender: Identity | None = None
        name: TableName | None
        try:
            caller, name = self._route(subject)
            sender = caller.session.identity
        except (InvalidName, Unauthenticated):
            name = self._public_table(subject)
        await self._refuse(sender, name, message, error)

    async def _refuse(
        self, sender: Identity | None, name: TableName | None, message: Incoming, error: KalamError
    ) -> None:
        self._engine.note_rejected(error)
        try:
            if message.reply:
                await self._reply_error(message.reply.decode("utf-8", "replace"), error)
            else:
                await self._publish_rejected(sender, name, message, error)
        except Exception as exc:  # noqa: BLE001 - who asked is out of reach, and others wait for their answers
            log.debug("refusal not sent", error=str(exc))

    async def _send_replies(self, replies: Sequence[tuple[bytes, bytes, bytes]]) -> None:
        try:
            await self._connection.client.publish_batch(replies)
        except Exception as exc:  # noqa: BLE001 - who asked is out of reach
            log.debug("answers not sent", error=str(exc))

    async def _reply_error(self, reply: str, error: KalamError) -> None:
        await reply_error(self._connection, reply, error)

    async def _publish_rejected(
        self, sender: Identity | None, name: TableName | None, message: InsertMessage, error: KalamError
    ) -> None:
        """What had no reply subject goes, payload and all, where somebody may watch for it."""
        if name is None:
            return
        user = "" if sender is None else sender.user
        await self._rejections.message(name, self._engine.known(name), user, message.payload, error)

    def _answer_sql(self) -> None:
        """Of what has come by now, answer together what needs no more than a look; start the work on the rest.

        What is too much for one turn of the loop is left for the next, before what comes meanwhile.
        """
        count = taken_in_a_turn(len(self._waiting_sql))
        batch = self._waiting_sql[:count]
        del self._waiting_sql[:count]
        if self._waiting_sql:
            asyncio.get_running_loop().call_soon(self._answer_sql)
        started = time.perf_counter()
        replies: list[tuple[bytes, bytes, bytes]] = []
        known: dict[SqlSession, Lookups] = {}
        for subject, reply, payload, trace in batch:
            body = self._look(subject, payload, known)
            if body is None:
                self._start_sql(_text(subject), _text(reply), payload, trace)
            else:
                replies.append((reply, b"", body))
        if not replies:
            return
        self.sql_endpoint.note(time.perf_counter() - started, replies)
        answers = [message for message in replies if message[0]]
        if not self._connection.client.publish_batch_nowait(answers):
            self._tasks.start(self._send_replies(answers))

    def _look(self, subject: bytes, payload: bytes, known: dict[SqlSession, Lookups]) -> bytes | None:
        """The answer to a query for one hot row; None for what has to be run, which also tells what is wrong.

        ``known`` is what looks rows up in this turn of the loop, to which is added.
        """
        try:
            request = decode_sql(payload)
            session = (subject, request.namespace, request.names, request.integers)
            lookups = known.get(session)
            if lookups is None:
                sender = self._senders.get(subject) or self._sender(subject)
                lookups = known[session] = caller_of(self._engine, request.session(sender)).lookups()
            room = self._connection.client.max_payload - HEADER_BYTES
        except Exception:  # noqa: BLE001 - _run_sql meets the same, and tells it
            return None
        body = request.look(lookups)
        return body if body is not None and len(body) <= room else None  # a longer one is cut in pieces

    def _sender(self, subject: bytes) -> Identity:
        sender = self._sending.identify(self._subjects.parse_sql_subject(_text(subject)))
        if len(self._senders) > 100_000:
            self._senders.clear()
        self._senders[subject] = sender
        return sender

    def _start_sql(self, subject: str, reply: str, payload: bytes, trace: str | None) -> None:
        if self._sql_running >= SQL_INFLIGHT_MAX:
            error = TooBusy(f"{SQL_INFLIGHT_MAX} SQL requests are running; try again")
            self._tasks.start(self._try_reply_error(reply, error))
            return
        self._sql_running += 1
        with in_trace(trace):  # which the task takes along
            self._tasks.start(self._run_sql(subject, reply, payload))

    async def _run_sql(self, subject: str, reply: str, payload: bytes) -> None:
        started = time.perf_counter()
        error: KalamError | None = None
        try:
            sender = self._sending.identify(self._subjects.parse_sql_subject(subject))
            request = decode_sql(payload)
            caller = caller_of(self._engine, request.session(sender), reply, self._interest)
            body = await request.answer(caller, started)
            if reply:
                await reply_whole(self._connection, reply, body)
        except KalamError as exc:
            error = exc.as_value()
        except Exception as exc:
            log.exception("SQL request failed")
            error = Internal(f"an internal error ({type(exc).__name__})")
        finally:
            self._sql_running -= 1
        self.sql_endpoint.note(time.perf_counter() - started, [error])
        if error is not None:
            await self._try_reply_error(reply, error)

    async def _try_reply_error(self, reply: str, error: KalamError) -> None:
        if not reply:
            return
        try:
            await self._reply_error(reply, error)
        except Exception as exc:  # noqa: BLE001 - who asked is out of reach
            log.debug("error not sent", error=str(exc))


def _text(subject: bytes) -> str:
    return subject.decode("utf-8", "replace")
