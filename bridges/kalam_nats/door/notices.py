"""Notices of what Kalam did, on ``kalam.event.…``: nobody waits for them and nothing keeps them."""

from __future__ import annotations

import msgspec
import structlog

from kalam.tasks import Tasks
from kalam_nats.broker.connection import BrokerConnection
from kalam_nats.subjects import Subjects

log = structlog.get_logger(__name__)


class Notices:
    """Publishes notices; a NoticePort."""

    def __init__(self, connection: BrokerConnection, subjects: Subjects) -> None:
        self._connection, self._subjects = connection, subjects
        self._tasks = Tasks()

    def notice(self, what: str, body: dict[str, object]) -> None:
        """Publish a JSON notice on ``kalam.event.<what>``."""
        self._tasks.start(self._publish(what, body))

    async def _publish(self, what: str, body: dict[str, object]) -> None:
        try:
            await self._connection.client.publish(self._subjects.event_subject(what), msgspec.json.encode(body))
        except Exception as exc:  # noqa: BLE001 - a notice is lost when the broker is away
            log.debug("notice not published", what=what, error=str(exc))
