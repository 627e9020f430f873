"""Changes of views in memory: published on the subjects of SHARED tables, and stored by no stream.

The stream of change feeds captures every such subject. A message that expects to be of another stream is refused by it,
and goes to whoever subscribes all the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

import structlog
from nats import errors as nats_errors

from kalam.errors import BrokerUnavailable
from kalam.schema import Table
from kalam.tables.ports import ChangeMessage
from kalam.tasks import Tasks
from kalam_nats.broker.connection import BrokerConnection
from kalam_nats.broker.guarded_client import header_block
from kalam_nats.broker.subscriptions import Subscriptions
from kalam_nats.streams.feed import HEADER_BYTES
from kalam_nats.streams.feed_messages import TABLE_HEADER
from kalam_nats.subjects import Subjects, subjects_overlap

NO_STREAM: Final = "-"
WAITING_BYTES_MAX: Final = 64 << 20
"""Bytes that wait for the connection before what comes is lost."""
log = structlog.get_logger(__name__)
Outgoing = tuple[str, str, bytes, bytes]


class Unkept:
    """Tells of them; an UnkeptPort."""

    def __init__(self, connection: BrokerConnection, subjects: Subjects) -> None:
        self._connection, self._subjects = connection, subjects
        self._subscriptions = Subscriptions(connection)
        self._waiting: deque[list[Outgoing]] = deque()
        self._waiting_bytes = 0
        self._tasks = Tasks()
        self._sending = False

    @property
    def payload_bytes_max(self) -> int:
        """The largest payload of a message."""
        return self._connection.client.max_payload - HEADER_BYTES if self._connection.connected else 1 << 20

    def subject(self, table: Table) -> str:
        """The subject to subscribe to."""
        return self._subjects.copy_subjects("", table.name.namespace, table.name.table)

    async def heard(self, tables: Sequence[Table]) -> set[int] | None:
        """The views that a subscription of somebody overlaps."""
        [every] = self._subjects.changes_subjects
        patterns = await self._subscriptions.patterns(every)
        if patterns is None:
            return None
        return {
            table.table_id
            for table in tables
            if any(subjects_overlap(pattern, self.subject(table)) for pattern in patterns)
        }

    def tell(self, table: Table, feed_id: int, messages: Sequence[ChangeMessage]) -> None:
        """Put them behind what waits."""
        size = sum(len(message.payload) for message in messages)
        if not self._connection.connected or self._waiting_bytes + size > WAITING_BYTES_MAX:
            log.debug("changes of a view are not told", view=str(table.name), messages=len(messages))
            return
        name, block = table.name, header_block({TABLE_HEADER: str(feed_id), "Nats-Expected-Stream": NO_STREAM})
        self._waiting.append(
            [
                (
                    self._subjects.change_subject("", name.namespace, name.table, each.op, each.key),
                    "",
                    block,
                    each.payload,
                )
                for each in messages
            ]
        )
        self._waiting_bytes += size
        if not self._sending:
            self._sending = True
            self._tasks.start(self._send(), "changes of views in memory")

    async def _send(self) -> None:
        try:
            while self._waiting:
                batch = self._waiting.popleft()
                self._waiting_bytes -= sum(len(payload) for *_, payload in batch)
                await self._connection.client.publish_headed_batch(iter(batch))
        except (nats_errors.Error, BrokerUnavailable, OSError) as exc:
            log.debug("changes of views are not told", reason=str(exc))
            self._waiting.clear()
            self._waiting_bytes = 0
        finally:
            self._sending = False
