"""Interest: whether anybody listens on a subject, asked of the broker itself.

The embedded broker answers ``$SYS.DEBUG.SUBSCRIBERS`` with a number. An outside one usually does not let an account ask
that, and then ``$SYS.REQ.ACCOUNT.PING.CONNZ``, which every account may ask, lists the connections whose subscriptions
overlap the subject; each server of a cluster answers for itself, and nobody says how many there are, so a "nobody" of a
cluster is believed only after a pause, and not if a server is silent that answered lately. Neither counts JetStream's
streams and consumers.

An error must lead to a stored row and never to a lost one: a question that fails answers None. Kalam itself subscribes
to none of the subjects that are asked about, so whoever is counted is somebody else.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, Literal

import msgspec
from nats import errors as nats_errors
from nats.aio.client import Client
from nats.aio.subscription import Subscription

from kalam.errors import BrokerUnavailable
from kalam.tasks import heeding
from kalam_nats.broker.connection import BrokerConnection
from kalam_nats.subjects import subject_matches

ANSWER_AGE_S = 0.25  # no answer is older
QUESTION_TIME_S = 0.25
GATHER_S = 0.1  # how long the servers of a cluster may take to answer one after another
SERVER_GONE_S = 30.0  # a server that has not answered for so long has left the cluster
ANSWERS_MAX = 10_000
CONNECTIONS_MAX = 16  # of one CONNZ reply, which holds every subscription of each; enough to know "somebody"

_SUBSCRIBERS = "$SYS.DEBUG.SUBSCRIBERS"
CONNZ = "$SYS.REQ.ACCOUNT.PING.CONNZ"


class _Answer(msgspec.Struct, frozen=True):
    """What was asked at ``asked_s`` of the loop's clock; the future is done once it is answered."""

    asked_s: float
    count: asyncio.Future[int | None] = msgspec.field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Interest:
    """Asks for the listeners on a subject, at most once in 250 ms for each."""

    def __init__(self, connection: BrokerConnection) -> None:
        self._connection = connection
        self._answers: dict[str, _Answer] = {}  # in the order they were asked
        self._way: Literal["unknown", "subscribers", "connections"] = "unknown"
        self._connections = 0
        self._servers: dict[str, float] = {}  # of a cluster: when each was heard last
        connection.on_connected(self._forget)

    async def count(self, subject: str) -> int | None:
        """How many client subscriptions, receive what is published on ``subject``.

        From an outside broker the number may be too small, but it is 0 only if there is none. None if the question
        failed. Askers of one subject share a question, and an answer for 250 ms after it was asked.
        """
        now = asyncio.get_running_loop().time()
        answer = self._answers.get(subject)
        if answer is not None and now - answer.asked_s < ANSWER_AGE_S:
            return await asyncio.shield(answer.count)  # a cancelled asker must not cancel it for the others
        answer = _Answer(now)
        self._remember(subject, answer)
        count: int | None = None
        try:
            count = await self._ask(subject)
        finally:
            answer.count.set_result(count)
        return count

    def _remember(self, subject: str, answer: _Answer) -> None:
        self._answers.pop(subject, None)
        while self._answers:
            oldest, remembered = next(iter(self._answers.items()))
            if len(self._answers) < ANSWERS_MAX and answer.asked_s - remembered.asked_s < ANSWER_AGE_S:
                break
            del self._answers[oldest]
        self._answers[subject] = answer

    def _forget(self) -> None:
        """Another server may stand behind the new connection."""
        self._way = "unknown"
        self._connections += 1
        self._servers.clear()
        self._answers.clear()

    async def _ask(self, subject: str) -> int | None:
        try:
            client = self._connection.client
            way, connections = self._way, self._connections
            if way == "unknown":
                way = await self._find_way(client, subject)
                if connections == self._connections:  # else it is the way of a server that is not ours any more
                    self._way = way
            if way == "subscribers":
                return await self._ask_subscribers(client, subject)
            return await self._ask_connections(client, subject)
        except (nats_errors.Error, BrokerUnavailable, TimeoutError, ValueError, KeyError, TypeError):
            return None

    async def _find_way(self, client: Client, subject: str) -> Literal["subscribers", "connections"]:
        """Find out whom to ask on this connection; the connections, if in doubt, are always right and only slower."""
        try:
            await self._ask_subscribers(client, subject)
        except (nats_errors.NoRespondersError, TimeoutError):
            # The account does not import it. With a client that listens to everything, or without the permission, that
            # shows in silence.
            return "connections"
        return "subscribers"

    async def _ask_subscribers(self, client: Client, subject: str) -> int:
        reply = await client.request(_SUBSCRIBERS, subject.encode(), timeout=QUESTION_TIME_S)
        return max(0, int(reply.data))

    async def _ask_connections(self, client: Client, subject: str) -> int | None:
        """Gather the replies until somebody is found, or a lone server has answered, or ``GATHER_S`` is over."""
        question = {"filter_subject": subject, "subscriptions": True, "limit": CONNECTIONS_MAX}
        inbox = client.new_inbox()
        replies = await client.subscribe(inbox)
        try:
            await client.publish(CONNZ, json.dumps(question).encode(), reply=inbox)
            reply = json.loads((await heeding(replies.next_msg(QUESTION_TIME_S))).data)
            count = self._others(client, reply, subject)
            if count or "cluster" not in reply["server"]:
                return count
            return await self._gather(client, replies, reply["server"]["id"], subject)
        finally:
            await replies.unsubscribe()

    async def _gather(self, client: Client, replies: Subscription, first: str, subject: str) -> int | None:
        """The count of the other servers; None if one was silent that answered lately."""
        now, heard = asyncio.get_running_loop().time(), {first}
        count = 0
        try:
            async with asyncio.timeout(GATHER_S):
                while count == 0:
                    reply = json.loads((await heeding(replies.next_msg(QUESTION_TIME_S))).data)
                    heard.add(reply["server"]["id"])
                    count = self._others(client, reply, subject)
        except TimeoutError:
            lately = {server for server, at in self._servers.items() if now - at < SERVER_GONE_S}
            return 0 if lately <= heard else None
        finally:
            self._servers |= dict.fromkeys(heard, now)
        return count

    def _others(self, client: Client, reply: dict[str, Any], subject: str) -> int:
        return sum(
            subject_matches(pattern, subject)
            for connection in reply["data"]["connections"]
            if (connection["cid"], connection.get("name")) != (client.client_id, self._connection.name)
            for pattern in connection["subscriptions_list"]
        )
