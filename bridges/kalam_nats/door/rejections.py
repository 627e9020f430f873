"""What was refused where nobody reads an answer, published with its reason: whole messages, and rows refused alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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
    """Publishes what was refused: on ``kalam.event.rejected.<ns>.<table>``, or for the sender's eyes alone.

    Without logins a USER table's goes to its user and any other's to everybody. Where logins are asked for
    (``guarded``) the sender is told in any case, and everybody else of the payload only where all rows may be read by
    whoever reads the table; else of code and kind alone.
    """

    def __init__(self, connection: BrokerConnection, subjects: Subjects, *, guarded: bool = False) -> None:
        self._connection, self._subjects, self._guarded = connection, subjects, guarded
        self._tasks = Tasks()

    async def message(self, name: TableName, table: Table | None, user: str, payload: bytes, error: KalamError) -> None:
        """Publish a message to ``name``; ``table`` is None if there is none, ``user`` '' if the subject names none."""
        await self._publish(name, table, user, [(payload, error)])

    def rows(self, table: Table, user: str, rows: Sequence[RefusedRow]) -> None:
        """Publish rows; a RefusedSink."""
        refused = [(row.payload, row.error) for row in rows]
        self._tasks.start(self._publish_rows(table, user, refused))

    async def _publish_rows(self, table: Table, user: str, refused: Sequence[tuple[bytes, KalamError]]) -> None:
        try:
            await self._publish(table.name, table, user, refused)
        except Exception as exc:  # noqa: BLE001 - the sender has been told, and a broker that is away tells nobody
            log.debug("refused rows not published", table=str(table.name), error=str(exc))

    async def _publish(
        self, name: TableName, table: Table | None, user: str, refused: Sequence[tuple[bytes, KalamError]]
    ) -> None:
        room = self._connection.client.max_payload - HEADER_BYTES
        messages = [
            (subject, "", _header(payload, error, room), payload[:room])
            if whole
            else (subject, "", _bare_header(error), b"")
            for subject, whole in self._places(name, table, user)
            for payload, error in refused
        ]
        await self._connection.client.publish_headed_batch(messages)

    def _places(self, name: TableName, table: Table | None, user: str) -> Iterator[tuple[str, bool]]:
        """The subjects to publish on, and whether the payload goes there, too."""
        subject = self._subjects.rejected_subject
        if not self._guarded:
            yield subject(name.namespace, name.table, "" if table is None or not user else table.owner(user)), True
            return
        if user:
            yield subject(name.namespace, name.table, user), True
        yield subject(name.namespace, name.table), table is not None and not (table.per_user or table.row_security)


def _bare_header(error: KalamError) -> bytes:
    """Code and kind: a reason may quote what was sent."""
    kind = error.title if error.kind == error.title else f"{error.title}: {error.kind}"
    lines = ["NATS/1.0", f"Kalam-Error-Code: {error.code}", f"Kalam-Error: {header_text(kind)}", "", ""]
    return "\r\n".join(lines).encode()


def _header(payload: bytes, error: KalamError, room: int) -> bytes:
    lines = [f"Kalam-Error-Code: {error.code}", f"Kalam-Error: {header_text(error.told)}"]
    if len(payload) > room:
        lines.append("Kalam-Truncated: true")
    return "\r\n".join(["NATS/1.0", *lines, "", ""]).encode()
