"""How far the readers of a subject are behind, as the broker sees it.

NATS has no acknowledgements between a publisher and its subscribers, but the broker knows how many bytes it holds for
each connection, and tells an account of its own connections (``$SYS.REQ.ACCOUNT.PING.CONNZ``). So whoever sends much to
one subject can wait for its readers, and the broker need not hold it all until it cuts them off.
"""

from __future__ import annotations

import asyncio

import msgspec
from nats import errors as nats_errors

from kalam.errors import BrokerUnavailable
from kalam_nats.broker.connection import BrokerConnection

BACKLOG_BYTES_MAX = 4 << 20
CONNZ = "$SYS.REQ.ACCOUNT.PING.CONNZ"
CONNECTIONS_MAX = 16
ANSWER_S = 1.0
SILENT_S = 60.0
"""How long a broker that did not answer is not asked again: it may never do, and who waits sends nothing."""
PAUSE_S = 0.1


class Connection(msgspec.Struct):
    """A connection that has subscribed to the subject."""

    pending_bytes: int = 0


class Connections(msgspec.Struct):
    """The connections of an answer, those that are furthest behind first."""

    connections: list[Connection] = []


class ConnectionsAnswer(msgspec.Struct):
    """The broker's answer."""

    data: Connections


_ANSWER = msgspec.json.Decoder(ConnectionsAnswer)


class ReaderBacklog:
    """Asks the broker how far readers are behind."""

    def __init__(self, connection: BrokerConnection) -> None:
        self._connection = connection
        self._silent_until_s = 0.0

    async def wait_small(self, subject: str) -> None:
        """Wait until no reader of the subject is far behind, or until nobody can tell."""
        while (await self._byte_count(subject) or 0) > BACKLOG_BYTES_MAX:  # noqa: ASYNC110 - the broker tells when asked
            await asyncio.sleep(PAUSE_S)

    async def _byte_count(self, subject: str) -> int | None:
        clock = asyncio.get_running_loop().time
        if clock() < self._silent_until_s:
            return None
        question = {"filter_subject": subject, "sort": "pending", "limit": CONNECTIONS_MAX}
        try:
            answer = await self._connection.client.request(CONNZ, msgspec.json.encode(question), timeout=ANSWER_S)
            found = _ANSWER.decode(answer.data).data.connections
        except (nats_errors.Error, BrokerUnavailable, TimeoutError, OSError, msgspec.MsgspecError):
            self._silent_until_s = clock() + SILENT_S
            return None
        return max((connection.pending_bytes for connection in found), default=0)
