"""What was refused where nobody reads an answer, published with its reason: whole messages, and rows refused alone."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from kalam.errors import KalamError
from kalam.names import TableName
from kalam.schema import Table
from kalam.tables.sifted import RefusedRow
from kalam.tasks import Tasks
from kalam_nats.broker.connection import BrokerConnection
from kalam_nats.door.error_replies import HEADER_BYTES, header_text
from kalam_nats.subjects import Subjects

log = structlog.get_logger(__name__)


class Rejections:
    """Publishes on ``kalam.event.rejected.<ns>.<table>``, and of a USER table on its user's own subject."""

    def __init__(self, connection: BrokerConnection, subjects: Subjects) -> None:
        self._connection, self._subjects = connection, subjects
        self._tasks = Tasks()

    async def message(self, name: TableName, owner: str, payload: bytes, error: KalamError) -> None:
        """Publish a message; ``owner`` is its user where the table is a USER table, else ''."""
        await self._publish(name, owner, [(payload, error)])

    def rows(self, table: Table, user: str, rows: Sequence[RefusedRow]) -> None:
        """Publish rows; a RefusedSink."""
        owner = table.owner(user)
        refused = [(row.payload, row.error) for row in rows]
        self._tasks.start(self._publish_rows(table.name, owner, refused))

    async def _publish_rows(self, name: TableName, owner: str, refused: Sequence[tuple[bytes, KalamError]]) -> None:
        try:
            await self._publish(name, owner, refused)
        except Exception as exc:  # noqa: BLE001 - the sender has been told, and a broker that is away tells nobody
            log.debug("refused rows not published", table=str(name), error=str(exc))

    async def _publish(self, name: TableName, owner: str, refused: Sequence[tuple[bytes, KalamError]]) -> None:
        subject = self._subjects.rejected_subject(name.namespace, name.table, owner)
        room = self._connection.client.max_payload - HEADER_BYTES
        messages = [(subject, "", _header(payload, error, room), payload[:room]) for payload, error in refused]
        await self._connection.client.publish_headed_batch(messages)


def _header(payload: bytes, error: KalamError, room: int) -> bytes:
    lines = [f"Kalam-Error-Code: {error.code}", f"Kalam-Error: {header_text(error.told)}"]
    if len(payload) > room:
        lines.append("Kalam-Truncated: true")
    return "\r\n".join(["NATS/1.0", *lines, "", ""]).encode()
