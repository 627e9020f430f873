"""Kalam as a NATS micro service: answers ``$SRV.PING``, ``$SRV.INFO`` and ``$SRV.STATS`` (NATS ADR-32).

Where users log in nobody may publish on these: a user asks ``kalam.api.<user>.info``, which
answers what ``$SRV.INFO`` does.

nats-py's own micro services would subscribe to the endpoints themselves, a second time and one message at a time; so
the discovery subjects are answered here, and the endpoints count what their requests did.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import msgspec
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

from kalam import __version__
from kalam.errors import KalamError
from kalam_nats.broker.connection import BrokerConnection
from kalam_nats.door.error_replies import reply_error
from kalam_nats.door.senders import Senders
from kalam_nats.subjects import Subjects

NAME = "kalam"
DESCRIPTION = "SQL tables on NATS"
TYPES = {"PING": "ping_response", "INFO": "info_response", "STATS": "stats_response"}
NANOSECONDS = 1_000_000_000
QUEUE_GROUP = "kalam"
log = structlog.get_logger(__name__)


class Endpoint(msgspec.Struct):
    """A request subject, and what became of the requests on it."""

    name: str
    subject: str
    queue_group: str
    requests: int = 0
    errors: int = 0
    last_error: str = ""
    seconds: float = 0.0

    def note(self, seconds: float, answers: Sequence[object]) -> None:
        """Count the answers that were made together; a KalamError among them is an error."""
        self.requests += len(answers)
        self.seconds += seconds
        for answer in answers:
            if isinstance(answer, KalamError):
                self.errors += 1
                self.last_error = f"{answer.status}:{answer.detail[:200]}"

    def info(self) -> dict[str, Any]:
        """What INFO says of it."""
        return {"name": self.name, "subject": self.subject, "queue_group": self.queue_group, "metadata": {}}

    def stats(self) -> dict[str, Any]:
        """What STATS says of it."""
        spent = round(self.seconds * NANOSECONDS)
        return {
            "name": self.name,
            "subject": self.subject,
            "queue_group": self.queue_group,
            "num_requests": self.requests,
            "num_errors": self.errors,
            "last_error": self.last_error,
            "processing_time": spent,
            "average_processing_time": spent // max(1, self.requests),
        }


class Discovery:
    """Answers the discovery subjects for the given endpoints, and for one of its own.

    ``identity`` has the ``id`` of this server's data, and where else it is found, once that is known.
    """

    def __init__(
        self,
        connection: BrokerConnection,
        subjects: Subjects,
        senders: Senders,
        identity: Mapping[str, str],
        endpoints: Sequence[Endpoint],
    ) -> None:
        self._connection, self._senders = connection, senders
        self._info = Endpoint("info", subjects.info_subject(), QUEUE_GROUP)
        self._endpoints = (*endpoints, self._info)
        self._identity = {"name": NAME, "id": identity["id"], "version": __version__, "metadata": identity}
        self._started = datetime.now(UTC)

    async def open(self) -> None:
        """Subscribe, on this client and on each that replaces it."""
        await self._connection.register(self._subscribe)

    async def _subscribe(self, client: Client) -> None:
        for verb in TYPES:
            for subject in (f"$SRV.{verb}", f"$SRV.{verb}.{NAME}", f"$SRV.{verb}.{NAME}.{self._identity['id']}"):
                await client.subscribe(subject, cb=self._answer)
        await client.subscribe(self._info.subject, queue=QUEUE_GROUP, cb=self._answer_user)

    async def _answer(self, msg: Msg) -> None:
        if msg.reply:
            with _told():
                await self._connection.client.publish(msg.reply, self._body(msg.subject.split(".")[1]))

    async def _answer_user(self, msg: Msg) -> None:
        started = time.perf_counter()
        error, reply = self._senders.fault(msg.subject.encode(), msg.reply.encode(), msg.headers) or (None, b"")
        with _told():
            if error is None and msg.reply:
                await self._connection.client.publish(msg.reply, self._body("INFO"))
            elif error is not None and reply:
                await reply_error(self._connection, reply.decode(), error)
        self._info.note(time.perf_counter() - started, [error])

    def _body(self, verb: str) -> bytes:
        body = {"type": f"io.nats.micro.v1.{TYPES[verb]}", **self._identity, **self._details(verb)}
        return msgspec.json.encode(body)

    def _details(self, verb: str) -> dict[str, Any]:
        match verb:
            case "INFO":
                return {"description": DESCRIPTION, "endpoints": [endpoint.info() for endpoint in self._endpoints]}
            case "STATS":
                return {"started": self._started, "endpoints": [endpoint.stats() for endpoint in self._endpoints]}
            case _:
                return {}


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except Exception as exc:  # noqa: BLE001 - who asked is out of reach
        log.debug("service discovery not answered", error=str(exc))
