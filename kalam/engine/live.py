"""Live queries as the engine serves them: what may be asked, and the snapshot that SELECT would give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pyarrow as pa
from msgspec.structs import replace

from kalam.engine.queries import Queries, check_parameters, resolve
from kalam.engine.session import Session
from kalam.engine.texts import Texts
from kalam.live import LiveQuery, LiveRequest, Registry, Sink
from kalam.live.ports import Snapshot
from kalam.live.predicate import Predicate
from kalam.names import TableName
from kalam.query.executor import Wanted
from kalam.query.results import Result, list_result
from kalam.query.system import LIVE_QUERIES
from kalam.rows.columns import arrow_schema
from kalam.schema import STREAM_KEY, PayloadFormat, Table
from kalam.sql.text.replaced import with_user
from kalam.sql.text.statements import QueryText, Subscribe
from kalam.tables.kinds import Rows, Tables

TEXT, COUNT = pa.string(), pa.int64()


class Snapshots:
    """Reads the matching rows by SELECT; a SnapshotPort."""

    def __init__(self, queries: Queries, tables: Tables[Rows], rows_max: int) -> None:
        self._queries, self._tables, self._rows_max = queries, tables, rows_max

    async def snapshot(
        self, table: Table, user: str, columns: Sequence[str], predicate: Predicate, last_rows: int | None
    ) -> Snapshot:
        """The chosen columns of the rows that match, or of the ``last_rows`` newest of them."""
        rows = self._tables.of(table)
        if last_rows == 0:
            return Snapshot(arrow_schema(()).empty_table(), await rows.last_seq(table, user))
        seen = predicate.sees_deleted
        named = {*columns, *(predicate.condition.columns if predicate.condition else ())}
        source, seq = await rows.numbered(table, user, with_key=STREAM_KEY in named)
        relation = self._queries.relation(table, user, source, sees_deleted=seen, with_seq=True)
        query = _query(table, columns, predicate, rows.seq_column, last_rows)
        bound = None if last_rows is not None else self._rows_max
        wanted = Wanted(user=user, in_order=rows.ordered, rows_max=bound)
        query = replace(query, parameters=len(predicate.parameters))
        data = await self._queries.run(query, [], {(table.name, seen): relation}, predicate.parameters, wanted)
        if last_rows is not None:  # the newest came first
            data = data.take(pa.array(range(data.num_rows - 1, -1, -1), pa.int64()))
        return Snapshot(data, seq)


def _query(table: Table, columns: Sequence[str], predicate: Predicate, seq: str, last_rows: int | None) -> QueryText:
    shown = ", ".join(f'"{name}"' for name in columns)
    name = table.name
    source = f'"{name.namespace}"."{name.table}"'
    if predicate.sees_deleted:
        source = f'"{name.namespace}"."{name.table}$deleted" AS "{name.table}"'
    text = f'SELECT {shown}, "{seq}" FROM {source}'  # noqa: S608 - names of the catalogue and the user's own WHERE
    if predicate.text is not None:
        text += f" WHERE ({predicate.text}\n)"
    if last_rows is not None:
        text += f' ORDER BY "{seq}" DESC LIMIT {last_rows}'
    return QueryText(text)


class Live:
    """Opens live queries for the doors and for SQL. ``sink`` is where those of SUBSCRIBE TO go."""

    def __init__(self, registry: Registry, texts: Texts, sink: Sink) -> None:
        self.registry, self._texts, self._sink = registry, texts, sink

    async def open(
        self,
        sql: str,
        session: Session,
        sink: Sink,
        *,
        last_rows: int | None = None,
        from_seq: int | None = None,
        table_id: int | None = None,
        payload_format: PayloadFormat = PayloadFormat.JSON,
    ) -> LiveQuery:
        """Open the live query of a bare SELECT; the options win over those of an OPTIONS clause."""
        statement = await self._texts.live(sql, session.user)
        request = _request(
            statement,
            session,
            (),
            last_rows=statement.last_rows if last_rows is None else last_rows,
            from_seq=statement.from_seq if from_seq is None else from_seq,
            table_id=table_id,
            payload_format=payload_format,
        )
        return await self.registry.open(request, sink)

    async def subscribe(self, statement: Subscribe, session: Session, parameters: Sequence[Any]) -> Result:
        """SUBSCRIBE TO: opens a live query and answers with its subject."""
        request = _request(statement, session, parameters, last_rows=statement.last_rows, from_seq=statement.from_seq)
        query = await self.registry.open(request, self._sink)
        self.registry.begin(query)
        fields = (("id", TEXT), ("subject", TEXT), ("table_id", COUNT))
        return list_result(fields, [(query.id, self._sink.subject(query), query.table.table_id)])

    def kill(self, query_id: str) -> Result:
        """KILL LIVE QUERY."""
        self.registry.close(query_id, None, "killed")
        return Result(message=f"live query {query_id} killed")

    def show(self) -> Result:
        """SHOW LIVE QUERIES."""
        return list_result(LIVE_QUERIES, self.rows())

    def rows(self) -> list[tuple[Any, ...]]:
        """The rows of ``system.live_queries``."""
        return [
            (
                query.id,
                query.user,
                str(query.table.name),
                query.sql,
                msgspec.json.encode(query.options).decode(),
                query.created_at,
                query.delivered,
                query.queued,
                query.resyncs,
                max(query.last_seq, query.seq if not query.queued else 0),
            )
            for query in self.registry.queries()
        ]


def _request(
    statement: Subscribe,
    session: Session,
    parameters: Sequence[Any],
    *,
    last_rows: int | None,
    from_seq: int | None,
    table_id: int | None = None,
    payload_format: PayloadFormat = PayloadFormat.JSON,
) -> LiveRequest:
    check_parameters(statement.where.parameters if statement.where else 0, parameters)
    name = resolve(statement.ref, session.namespace)
    return LiveRequest(
        user=session.user,
        sql=_sql(name, statement),
        table=name,
        columns=statement.columns,
        where=with_user(statement.where, session.user),
        parameters=tuple(parameters),
        last_rows=last_rows,
        from_seq=from_seq,
        table_id=table_id,
        format=payload_format,
        bigint_as_text=session.bigint_as_text,
    )


def _sql(name: TableName, statement: Subscribe) -> str:
    shown = "*" if statement.columns is None else ", ".join(statement.columns)
    where = f" WHERE {statement.where.text}" if statement.where else ""
    return f"SELECT {shown} FROM {name}{where}"  # noqa: S608 - shown, not run
