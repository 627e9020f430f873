"""All that a door holds of the engine for a request: a ``Caller``."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import ExitStack, aclosing, contextmanager
from datetime import datetime
from typing import Any

import msgspec
import pyarrow as pa

from kalam.access.identity import Identity
from kalam.access.model import Privilege
from kalam.engine.departures import Departure, ended_by
from kalam.engine.described import Description
from kalam.engine.dispatch import Dispatch
from kalam.engine.lookups import Lookups
from kalam.engine.session import Session
from kalam.engine.shown import Shown, shown
from kalam.errors import TableNotFound
from kalam.live import LiveQuery, Sink
from kalam.names import TableName
from kalam.query.parameters import Parameters
from kalam.query.points import PointRow
from kalam.query.results import Result
from kalam.query.running import RunningQuery
from kalam.rows.taking import Conflict
from kalam.schema import PayloadFormat, Table
from kalam.storage.log.copies import Key
from kalam.tables.insert_batch import Answer, InsertMessage
from kalam.tables.sifted import RefusedRow

LIVE_DOOR = "live"
"""Under which the opening of a live query is listed, whichever way it came."""

ROWS_OR_PARAMS = "rows stand instead of params: an INSERT is carried out for each of them"


class Caller(msgspec.Struct, frozen=True, gc=False):
    """Who asks, with which default namespace, from which door, and under which id the request can be cancelled.

    A door that names no ``request_id`` gets one when it is needed. ``departure`` tells that whoever asked has left,
    which cancels what runs. To ``asked`` is added what was asked: a door that keeps rows longer than their request
    lasts asks ``Engine.ends`` of it.
    """

    _dispatch: Dispatch
    session: Session
    door: str
    request_id: str | None = None
    departure: Departure | None = None
    asked: list[RunningQuery] | None = None

    # SQL.

    def lookups(self) -> Lookups:
        """Answers texts that ask for one hot row by its key, as ones that were sent before did, in this turn."""
        return Lookups(self._dispatch, self.session, self.door)

    def look(self, text: str, params: Sequence[Any]) -> bytes | None:
        """The JSON answer to such a text; None for everything else, and for what is wrong: ``execute`` answers it."""
        return self.lookups().answer(text, params)

    def look_row(self, text: str, params: Sequence[Any]) -> PointRow | None:
        """The same answer as Python values, for doors that do not speak JSON."""
        return self.lookups().row(text, params)

    async def execute(self, text: str, params: Sequence[Any] = ()) -> list[Result]:
        """Run the statements of a text in order and return a result for each.

        Stops at the first error, which carries ``statement`` (its number, from 1) and ``results`` (what ran before it).
        Raises AlreadyExists where a request of this id is running.
        """
        with self._running(self.door, text) as query, ended_by(self.departure, query):
            return await self._dispatch.execute(text, Parameters.of(params), self.session)

    async def execute_many(self, text: str, rows: Sequence[Sequence[Any]] | pa.Table) -> Result:
        """Carry out an INSERT … VALUES for each of these rows of parameters: one statement, all rows or none.

        A table has the parameters ``$1 …`` as its columns, which the VALUES list takes in order and nothing else.
        ``row_count`` is that of all. Raises Unsupported for any other statement (``Description.many`` tells).
        """
        with self._running(self.door, text) as query, ended_by(self.departure, query):
            return await self._dispatch.execute_many(text, rows, self.session)

    async def stream(self, text: str, params: Sequence[Any] = ()) -> AsyncGenerator[pa.Table, None]:
        """The rows of a text with one statement, as tables of one schema, at least one, while they are found.

        The departure counts until the first row is there: from then on who reads hears of it by itself.
        """
        with self._running(self.door, text) as query, ExitStack() as watched:
            watched.enter_context(ended_by(self.departure, query))
            async with aclosing(self._dispatch.stream(text, Parameters.of(params), self.session)) as tables:
                async for table in tables:
                    if table.num_rows:
                        watched.close()
                    yield table

    async def describe(self, text: str, types: Sequence[pa.DataType | None] = ()) -> Description:
        """What a text with one statement asks for and gives; nothing is run.

        ``types`` are those of its parameters that are declared, in their order; the others are told by their places.
        """
        with self._running(self.door, text) as query, ended_by(self.departure, query):
            return await self._dispatch.describe(text, types, self.session)

    def cancel(self, query_id: str) -> None:
        """Cancel a running request of the caller's own, or of others where the caller may; raises NotFound."""
        self._dispatch.cancel(query_id, self.session)

    @contextmanager
    def _running(self, door: str, text: str) -> Iterator[RunningQuery]:
        request_id = self.request_id or uuid.uuid4().hex
        with self._dispatch.running.running(request_id, self.session.user, door, text) as query:
            if self.asked is not None:
                self.asked.append(query)
            yield query

    @contextmanager
    def describing(self, text: str) -> Iterator[None]:
        """Have what a door tells of the catalogue itself listed and cancelled as what the engine answers."""
        with self._running(self.door, text) as query, ended_by(self.departure, query), query.interruptible():
            query.tells = True
            yield

    # Tables and their rows.

    def namespaces(self) -> list[str]:
        """The names of the namespaces that exist for the caller."""
        return self._dispatch.gate.namespaces(self.session.identity)

    def has_namespace(self, name: str) -> bool:
        """Whether a namespace exists for the caller."""
        return self._dispatch.gate.sees_namespace(name, self.session.identity)

    def tables(self) -> list[Table]:
        """The tables that exist for the caller, oldest first."""
        return self._dispatch.gate.visible(self.session.identity, self._dispatch.catalogue.tables.values())

    def counted(self) -> list[Table]:
        """Those of the tables of which the caller is told how much is in them: policies hide none of their rows."""
        gate, identity = self._dispatch.gate, self.session.identity
        return [table for table in self.tables() if not table.row_security or gate.owns(identity, table)]

    def shown(self) -> Shown:
        """All that exists for the caller, to be described."""
        return shown(self._dispatch.gate, self._dispatch.catalogue, self._dispatch.queries, self.session)

    def may(self, privilege: str, table: Table) -> bool:
        """Whether the caller has a privilege on a table; what is no privilege on tables nobody has."""
        known = privilege in Privilege.__members__
        return known and self._dispatch.gate.has(table, self.session.identity, Privilege[privilege])

    def administers(self) -> bool:
        """Whether the caller is an administrator."""
        return self._dispatch.gate.administers(self.session.identity)

    def may_create(self, namespace: str) -> bool:
        """Whether the caller may make tables in a namespace."""
        return self._dispatch.gate.rights.may_create(self.session.identity.rights_of, namespace)

    def table(self, name: TableName) -> Table:
        """The table of a name, which is no temporary one: those are of statements alone; raises TableNotFound."""
        table = self._dispatch.gate.named(name, self.session.identity)
        if table.is_temporary:
            raise TableNotFound(f"there is no table {name}")
        return table

    def taking(self, name: TableName, conflict: Conflict | None = None) -> Table:
        """The table of a name, into which the caller may send rows; raises what keeps the caller from it."""
        self._dispatch.inserts.check(name, self.session.identity, self.door, conflict)
        return self.table(name)

    async def insert(
        self,
        name: TableName,
        messages: Sequence[InsertMessage],
        senders: Sequence[Identity] | None = None,
        *,
        into: Table | None = None,
        traced: bool = False,
        asking: bool = False,
    ) -> list[Answer]:
        """Store what is valid of a batch; the answer or the error of each message, in order.

        ``senders`` sent the messages, where they are not all the caller's; not for a USER table. ``into`` is the table
        that the messages are meant for, and no other of its name; raises TableNotFound. ``traced`` says that one of
        them names a trace, ``asking`` that one asks for another taking than the rule.

        Batches that are handed in one after another are stored in that order: the rows are handed to the store before
        the first pause, those of long messages in their turn.
        """
        if into is not None:
            self._dispatch.catalogue.newest(into)
        inserts = self._dispatch.inserts
        identity = self.session.identity
        return await inserts.insert(identity, name, messages, senders, door=self.door, traced=traced, asking=asking)

    async def judge(self, name: TableName, message: InsertMessage, taken: set[Key]) -> tuple[int, Sequence[RefusedRow]]:
        """How many rows of a message would be stored, and which would be refused alone; nothing is stored.

        Raises what the sender would be told. ``taken`` are the keys of the messages before it, to which its own are
        added.
        """
        return await self._dispatch.inserts.judge(self.session.identity, name, message, taken, door=self.door)

    def refuse_rows(self, table: Table, rows: Sequence[RefusedRow]) -> None:
        """Count and publish rows that came into no message."""
        self._dispatch.inserts.tell_refused(table, self.session.user, rows)

    # What other engines read.

    def lake_tables(self, namespace: str) -> list[TableName]:
        """The tables of a namespace that are Iceberg tables for the caller; raises NamespaceNotFound."""
        return self._dispatch.lake.listed(namespace, self.session)

    async def lake_metadata(self, name: TableName) -> tuple[str, bytes]:
        """Where the Iceberg metadata of a table lies, and its JSON text; raises TableNotFound."""
        return await self._dispatch.lake.metadata(name, self.session)

    # Live queries.

    async def follow(
        self,
        sql: str,
        sink: Sink,
        *,
        last_rows: int | None = None,
        from_seq: int | None = None,
        from_time: datetime | None = None,
        last_per_key: bool = False,
        events_only: bool = False,
        keys: Sequence[object] | None = None,
        table_id: int | None = None,
        payload_format: PayloadFormat = PayloadFormat.JSON,
    ) -> LiveQuery:
        """Open the live query of a bare SELECT; ``begin`` lets its messages flow.

        It begins with the rows that match, or ``last_rows`` of them, or with the changes behind ``from_seq``; on a
        STREAM table also from a time on, or with the last event of each SUBJECT_KEY. With ``events_only`` another table
        is refused, and ``keys`` are the values of its SUBJECT_KEY that are wanted.
        """
        with self._running(LIVE_DOOR, sql) as query, ended_by(self.departure, query):
            return await self._dispatch.live.open(
                sql,
                self.session,
                sink,
                last_rows=last_rows,
                from_seq=from_seq,
                from_time=from_time,
                last_per_key=last_per_key,
                events_only=events_only,
                keys=keys,
                table_id=table_id,
                payload_format=payload_format,
            )

    def begin(self, query: LiveQuery) -> None:
        """Let the messages of a live query flow to its sink."""
        self._dispatch.live.registry.begin(query)

    def unfollow(self, query_id: str, reason: str) -> None:
        """Close a live query of the caller's; raises NotFound."""
        self._dispatch.live.registry.close(query_id, self.session.user, reason)
