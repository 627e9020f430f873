"""What others subscribe to: the patterns of all connections that overlap one, asked of the broker.

``$SYS.DEBUG.SUBSCRIBERS`` with a wildcard counts only what lies within it and misses wider subscriptions, so CONNZ is
asked, which every account may; each server of a cluster answers for itself, and nobody says how many there are.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

from nats import errors as nats_errors
from nats.aio.client import Client

from kalam.errors import BrokerUnavailable
from kalam.tasks import heeding
from kalam_nats.broker.connection import BrokerConnection
from kalam_nats.broker.interest import CONNZ, GATHER_S, SERVER_GONE_S
from kalam_nats.subjects import subjects_overlap

QUESTION_TIME_S = 1.0
PAGE = 256
"""Connections of one reply, which has every subscription of each."""


class Subscriptions:
    """Asks for them."""

    def __init__(self, connection: BrokerConnection) -> None:
        self._connection = connection
        self._servers: dict[str, float] = {}
        connection.on_connected(self._servers.clear)

    async def patterns(self, subject: str) -> set[str] | None:
        """The patterns that overlap ``subject``, of all connections but our own; None where that cannot be known."""
        try:
            client = self._connection.client
            found: set[str] = set()
            offset = 0
            while True:
                replies = await self._asked(
                    client, {"filter_subject": subject, "subscriptions": True, "limit": PAGE, "offset": offset}
                )
                if replies is None:
                    return None
                for reply in replies:
                    found.update(each for each in self._others(client, reply) if subjects_overlap(each, subject))
                offset += PAGE
                if all(reply["data"].get("total", 0) <= offset for reply in replies):
                    return found
        except (nats_errors.Error, BrokerUnavailable, TimeoutError, ValueError, KeyError, TypeError):
            return None

    async def _asked(self, client: Client, question: dict[str, Any]) -> list[dict[str, Any]] | None:
        """The replies of all servers; None if one was silent that answered lately."""
        inbox = client.new_inbox()
        subscription = await client.subscribe(inbox)
        replies: list[dict[str, Any]] = []
        try:
            await client.publish(CONNZ, json.dumps(question).encode(), reply=inbox)
            replies.append(json.loads((await heeding(subscription.next_msg(QUESTION_TIME_S))).data))
            if "cluster" in replies[0]["server"]:
                try:
                    async with asyncio.timeout(GATHER_S):
                        while True:
                            reply = await heeding(subscription.next_msg(QUESTION_TIME_S))
                            replies.append(json.loads(reply.data))
                except TimeoutError:
                    pass
        finally:
            await subscription.unsubscribe()
        now, heard = asyncio.get_running_loop().time(), {reply["server"]["id"] for reply in replies}
        lately = {server for server, at in self._servers.items() if now - at < SERVER_GONE_S}
        self._servers |= dict.fromkeys(heard, now)
        return replies if lately <= heard else None

    def _others(self, client: Client, reply: dict[str, Any]) -> Iterator[str]:
        for connection in reply["data"]["connections"] or ():
            if (connection["cid"], connection.get("name")) != (client.client_id, self._connection.name):
                yield from connection.get("subscriptions_list") or ()
