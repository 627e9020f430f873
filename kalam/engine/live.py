"""Live queries as the engine serves them: what may be asked, and the snapshot that SELECT would give."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any

import msgspec
import pyarrow as pa
from msgspec.structs import replace

from kalam.access.model import Ends, Narrowed, Privilege
from kalam.engine.access import Audited
from kalam.engine.gate import Gate
from kalam.engine.session import Session
from kalam.engine.texts import Texts
from kalam.errors import NotFound, PermissionDenied, TooLarge
from kalam.live import LiveQuery, LiveRequest, Registry, Sink
from kalam.names import TableName, listed, numbered
from kalam.query.parameters import check_parameters
from kalam.query.policies import Policies
from kalam.query.queries import resolve
from kalam.query.results import Result, list_result
from kalam.query.system import LIVE_QUERIES
from kalam.schema import PayloadFormat, Table
from kalam.sql.text.replaced import with_session
from kalam.sql.text.statements import ExecuteAs, Subscribe
from kalam.threads import INLINE_CHARACTERS_MAX
from kalam.views.plan import with_full_names

TEXT, COUNT = pa.string(), pa.int64()
SUBSCRIBED_FIELDS = (("id", TEXT), ("subject", TEXT), ("table_id", COUNT))


class Live:
    """Opens live queries for the doors and for SQL. ``sink`` is where those of SUBSCRIBE TO go."""

    def __init__(
        self, registry: Registry, texts: Texts, gate: Gate, audited: Audited, policies: Policies, sink: Sink
    ) -> None:
        self.registry, self._texts, self._gate, self._sink = registry, texts, gate, sink
        self._audited, self._policies = audited, policies

    async def open(
        self,
        sql: str,
        session: Session,
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
        """Open the live query of a bare SELECT; the options win over those of an OPTIONS clause."""
        asked = await self._texts.live(sql, session.user)
        statement, session = self._acted(asked, session)
        with self._audited.telling(statement, session):
            self._gate.check(statement, session)
        request = _request(
            statement,
            session,
            self._gate.rights.roles(session.user),
            (),
            last_rows=statement.last_rows if last_rows is None else last_rows,
            from_seq=statement.from_seq if from_seq is None else from_seq,
            from_time=statement.from_time if from_time is None else from_time,
            table_id=table_id,
            payload_format=payload_format,
        )
        if events_only:
            self._check_replay(request)
            wanted = None if keys is None else tuple(keys)
            request = replace(request, last_per_key=last_per_key, events_only=True, keys=wanted)
        return await self._opened(request, sink)

    def _acted(self, asked: Subscribe | ExecuteAs, session: Session) -> tuple[Subscribe, Session]:
        """What is asked for, and for whom."""
        if isinstance(asked, Subscribe):
            return asked, session
        with self._audited.telling(asked, session):
            identity = self._gate.acting(asked, session.identity)
        statement = asked.statement
        assert isinstance(statement, Subscribe)
        return statement, replace(session, identity=identity)

    async def _opened(self, request: LiveRequest, sink: Sink) -> LiveQuery:
        query = await self.registry.open(request, sink)
        if not self._still(query):  # it was taken meanwhile
            self.registry.close(query.id, None, "permission")
            detail = f"what {query.rights_of} may SELECT on {_names(query)} was changed meanwhile"
            raise PermissionDenied(detail, hint="ask again")
        return query

    async def subscribe(self, statement: Subscribe, session: Session, parameters: Sequence[Any]) -> Result:
        """SUBSCRIBE TO: opens a live query and answers with its subject."""
        request = _request(
            statement,
            session,
            self._gate.rights.roles(session.user),
            parameters,
            last_rows=statement.last_rows,
            from_seq=statement.from_seq,
            from_time=statement.from_time,
        )
        query = await self._opened(request, self._sink)
        self.registry.begin(query)
        return list_result(SUBSCRIBED_FIELDS, [(query.id, self._sink.subject(query), query.feed_id)])

    def kill(self, query_id: str, session: Session) -> Result:
        """KILL LIVE QUERY: one's own, one on a table of one's own, or any by an administrator."""
        found = next((query for query in self.registry.queries() if query.id == query_id), None)
        if found is None or not self._may_end(found, session):
            raise NotFound(f"there is no live query {query_id[:80]!r}", hint="SHOW LIVE QUERIES lists them")
        self.registry.close(query_id, None, "killed")
        return Result(message=f"live query {query_id} killed")

    def show(self, session: Session) -> Result:
        """SHOW LIVE QUERIES."""
        shown = [query for query in self.registry.queries() if self._may_end(query, session)]
        return list_result(LIVE_QUERIES, self.rows(shown, partial(self._gate.sees, session.identity)))

    def _may_end(self, query: LiveQuery, session: Session) -> bool:
        return any(self._gate.may_end(session.identity, query.user, read.table) for read in query.reads)

    async def narrowed(self, narrowed: Narrowed) -> None:
        """End the live queries of those who may not have them any more."""
        for query in self.registry.queries():
            if self._ends(query, narrowed):
                self.registry.close(query.id, None, "permission")

    def _ends(self, query: LiveQuery, narrowed: Narrowed) -> bool:
        users = (query.user, query.rights_of)
        if narrowed.users is not None and narrowed.users.isdisjoint(users):
            return False
        if narrowed.logins == Ends.ALL or not self._gate.may_act(query.rights_of, query.user):
            return True
        reads = [read.table for read in query.reads]
        if narrowed.tables is not None and narrowed.tables.isdisjoint(table.table_id for table in reads):
            return False
        if narrowed.policies and (narrowed.tables is not None or any(table.row_security for table in reads)):
            return True
        return not self._still(query)

    def _still(self, query: LiveQuery) -> bool:
        """Whether somebody may have a live query, under the policies that it was opened with."""
        for read in query.reads:
            table = self._gate.newest(read.table)
            if not self._gate.rights.may(query.rights_of, Privilege.SELECT, table):
                return False
            guard = self._policies.seen(query.user, table)
            if (None if guard is None else guard.text) != read.guard:
                return False
        return True

    def _check_replay(self, request: LiveRequest) -> None:
        """Raise PermissionDenied for a replay of events that policies hide one by one."""
        table = self._gate.known(request.table)
        if table is None or not self._policies.bind(table):
            return
        if self._policies.keys(request.user, table) is None:
            raise PermissionDenied(
                f"the policies of {table.name} do not come to values of a SUBJECT_KEY, so its events are not replayed",
                hint="a live query with from_seq tells those that you may see",
            )

    def rows(
        self, queries: Sequence[LiveQuery] | None = None, sees: Callable[[Table], bool] = lambda _: True
    ) -> list[tuple[Any, ...]]:
        """The rows of ``system.live_queries``, of all or of these.

        Of a live query on tables of which somebody does not see every one, the SELECT is not told, nor what is kept.
        """
        found = self.registry.queries() if queries is None else queries
        return [_row(query, [read.table for read in query.reads if sees(read.table)]) for query in found]


def _request(
    statement: Subscribe,
    session: Session,
    roles: Sequence[str],
    parameters: Sequence[Any],
    *,
    last_rows: int | None,
    from_seq: int | None,
    from_time: datetime | None,
    table_id: int | None = None,
    payload_format: PayloadFormat = PayloadFormat.JSON,
) -> LiveRequest:
    check_parameters(statement.where.parameters if statement.where else 0, parameters)
    name, query = resolve(statement.ref, session.namespace), None
    if statement.query is not None:
        if len(statement.query.text) > INLINE_CHARACTERS_MAX:
            raise TooLarge(f"the SELECT of a live query has at most {INLINE_CHARACTERS_MAX:,} characters")
        tables = [resolve(use.ref, session.namespace) for use in statement.query.tables]
        query = with_full_names(with_session(statement.query, session.user, roles), tables)
    return LiveRequest(
        user=session.user,
        rights_of=session.identity.rights_of,
        sql=_sql(name, statement),
        table=name,
        columns=statement.columns,
        where=with_session(statement.where, session.user, roles),
        query=query,
        parameters=tuple(parameters),
        last_rows=last_rows,
        from_seq=from_seq,
        from_time=from_time,
        table_id=table_id,
        format=payload_format,
        bigint_as_text=session.bigint_as_text,
    )


def _row(query: LiveQuery, seen: Sequence[Table]) -> tuple[Any, ...]:
    hidden = len(query.reads) - len(seen)
    return (
        query.id,
        query.user,
        _names(query)
        if not hidden
        else f"{listed([str(table.name) for table in seen])} and {numbered(hidden, 'other')}",
        None if hidden else query.sql,
        msgspec.json.encode(query.options).decode(),
        query.created_at,
        query.delivered,
        query.queued,
        query.resyncs,
        max(query.last_seq, query.seq if not query.queued else 0),
        None if query.nameless is None or hidden else msgspec.json.encode(query.nameless.standing()).decode(),
    )


def _names(query: LiveQuery) -> str:
    """The tables that a live query reads."""
    return ", ".join(str(read.table.name) for read in query.reads)


def _sql(name: TableName, statement: Subscribe) -> str:
    if statement.query is not None:
        return statement.query.text
    shown = "*" if statement.columns is None else ", ".join(statement.columns)
    where = f" WHERE {statement.where.text}" if statement.where else ""
    return f"SELECT {shown} FROM {name}{where}"  # noqa: S608 - shown, not run
