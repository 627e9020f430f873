"""The consumers of trusted services, which outlive what lets a service make them.

A push consumer goes on delivering wherever it was told to, into any subject, with nobody connected. So when rights
become less, each on the stream of a table for which JETSTREAM was granted goes that does not deliver into the inbox of
somebody who still has it. A consumer that is pulled from needs the right for every pull, and stays. Kalam's own are
pulled from.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any

import structlog

from kalam.access.model import Privilege
from kalam.access.rights import Rights
from kalam.errors import BrokerUnavailable
from kalam.names import TableName
from kalam.schema import Table
from kalam.storage.log.catalogue import Catalogue
from kalam_nats.broker.jetstream import JetStream, RefusedError
from kalam_nats.subjects import Subjects, inbox_prefix

log = structlog.get_logger(__name__)


class TrustedConsumers:
    """Removes the consumers of services that are trusted no more."""

    def __init__(self, jetstream: JetStream, rights: Rights, catalogue: Catalogue, subjects: Subjects) -> None:
        self._jetstream, self._rights, self._catalogue, self._subjects = jetstream, rights, catalogue, subjects
        self._granted: set[int] = set()
        self._look()

    def _look(self) -> None:
        """Remember each table for which JETSTREAM is granted: of one for which it is no more consumers may be left."""
        for grants in self._rights.book.grants.values():
            self._granted |= {grant.table_id for grant in grants if grant.privilege is Privilege.JETSTREAM}

    def granted(self, names: Iterable[TableName]) -> None:
        """Somebody logs in who is trusted with these tables."""
        self._granted |= {self._catalogue.tables[name].table_id for name in names}

    async def sweep(self) -> None:
        """Remove what nobody who is trusted hears; what the broker does not take is logged, and is tried again."""
        for table_id in tuple(self._granted):
            table = self._catalogue.by_id.get(table_id)
            if table is None:
                self._granted.discard(table_id)
                continue
            try:
                await self._sweep_table(table)
            except (BrokerUnavailable, RefusedError) as exc:
                log.warning("consumers_not_looked_at", table=str(table.name), error=str(exc))

    async def _sweep_table(self, table: Table) -> None:
        stream = self._subjects.stream_name(table.name.namespace, table.name.table)
        rights = self._rights
        trusted = [user for user in rights.book.users if rights.may(user, Privilege.JETSTREAM, table)]
        inboxes = tuple(f"{inbox_prefix(user)}." for user in trusted)
        gone = [
            consumer["name"]
            async for consumer in self._consumers(stream)
            if (subject := consumer["config"].get("deliver_subject")) and not subject.startswith(inboxes)
        ]
        for name in gone:
            await self._jetstream.request(f"CONSUMER.DELETE.{stream}.{name}")
            log.info("consumer_removed", table=str(table.name), consumer=name)

    async def _consumers(self, stream: str) -> AsyncIterator[dict[str, Any]]:
        offset, total = 0, 1
        while offset < total:
            page = await self._jetstream.request(f"CONSUMER.LIST.{stream}", {"offset": offset})
            found = page.get("consumers") or []
            for consumer in found:
                yield consumer
            offset, total = offset + len(found), page["total"] if found else 0
