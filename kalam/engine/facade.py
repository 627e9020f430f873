"""The engine: ``execute(statement, session)``, the one façade through which every door comes."""

from __future__ import annotations

import shutil
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, assert_never

import msgspec
import pyarrow as pa
import structlog
from msgspec.structs import replace

from kalam.engine.changes import Changes
from kalam.engine.definitions import Definitions
from kalam.engine.inserts import Inserts
from kalam.engine.live import Live
from kalam.engine.parsed import ParsedText
from kalam.engine.points import Points
from kalam.engine.queries import Queries, resolve
from kalam.engine.session import Check, Request, Session
from kalam.engine.sql_counts import SqlCounts
from kalam.engine.texts import Texts
from kalam.errors import (
    Internal,
    KalamError,
    NamespaceNotFound,
    SyntaxFault,
    TableNotFound,
    without_folders,
)
from kalam.names import check_user, numbered
from kalam.query.results import Result, list_result, rows_result
from kalam.query.running import RunningQueries
from kalam.query.system import QUERIES, running_rows
from kalam.schema import Table
from kalam.settings import Settings
from kalam.sql.queries.readers import postgresql_names
from kalam.sql.text.named_places import locate
from kalam.sql.text.replaced import with_user
from kalam.sql.text.statements import (
    AlterTable,
    CheckTable,
    CompactTable,
    CreateNamespace,
    CreateTable,
    Delete,
    DescribeTable,
    DropNamespace,
    DropTable,
    FlushAllTables,
    FlushTable,
    Insert,
    KillJob,
    KillLiveQuery,
    KillQuery,
    QueryText,
    Select,
    ShowCreateTable,
    ShowJobs,
    ShowLiveQueries,
    ShowNamespaces,
    ShowQueries,
    ShowStats,
    ShowTables,
    Statement,
    Subscribe,
    TableRef,
    TableUse,
    Update,
    Use,
)
from kalam.storage.log.catalogue import Catalogue
from kalam.storage.log.database import Database, probe
from kalam.storage.log.open_files import out_of_files
from kalam.storage.log.troubles import Troubles, log_failure, reason_of
from kalam.storage.segments.unclaimed import Unclaimed
from kalam.storage.work.compaction import Compactor
from kalam.storage.work.flush import Flushed, Flusher
from kalam.storage.work.flush_schedule import FlushSchedule
from kalam.storage.work.jobs import Jobs
from kalam.storage.work.table_check import CheckedSegment, TableCheck
from kalam.tables.kinds import Rows, Tables
from kalam.tables.outbox import Outbox
from kalam.tables.stream_ends import StreamEnds
from kalam.tables.streams import StreamTables
from kalam.threads import beside, reading
from kalam.tracing import span

log = structlog.get_logger(__name__)

FLUSH_FIELDS = (
    ("job_id", pa.string()),
    ("table", pa.string()),
    ("rows_flushed", pa.int64()),
    ("segments", pa.int64()),
    ("bytes", pa.int64()),
    ("duration_ms", pa.float64()),
)
COMPACT_FIELDS = (
    ("job_id", pa.string()),
    ("table", pa.string()),
    ("segments_before", pa.int64()),
    ("segments_after", pa.int64()),
    ("rows", pa.int64()),
    ("rows_removed", pa.int64()),
    ("overrides_forgotten", pa.int64()),
    ("bytes", pa.int64()),
    ("duration_ms", pa.float64()),
)
CHECK_FIELDS = (
    ("job_id", pa.string()),
    ("segment", pa.string()),
    ("user_id", pa.string()),
    ("rows", pa.int64()),
    ("bytes", pa.int64()),
    ("ok", pa.bool_()),
    ("fault", pa.string()),
)
BEAT_S_MAX = 60.0
"""How long the flusher may not look at what is due before it is stuck."""
JOBS_QUERY = "SELECT * FROM system.jobs ORDER BY created_at"


class Engine(msgspec.Struct, frozen=True):
    """Carries out statements and inserts for sessions."""

    settings: Settings
    database: Database
    catalogue: Catalogue
    tables: Tables[Rows]
    queries: Queries
    points: Points
    changes: Changes
    definitions: Definitions
    inserts: Inserts
    live: Live
    streams: StreamTables
    flusher: Flusher
    schedule: FlushSchedule
    compactor: Compactor
    jobs: Jobs
    outbox: Outbox
    broker_connected: Callable[[], bool]
    broker_answers: Callable[[], Awaitable[bool]]
    troubles: Troubles
    unclaimed: Unclaimed
    ends: StreamEnds
    texts: Texts
    running: RunningQueries = msgspec.field(default_factory=RunningQueries)
    sql_counts: SqlCounts = msgspec.field(default_factory=SqlCounts)

    async def execute(self, text: str, params: Sequence[Any] = (), session: Session = Session()) -> list[Result]:  # noqa: B008 - frozen
        """Run the statements of a text in order and return a result for each.

        Stops at the first error, which carries ``statement`` (its number, from 1) and ``results`` (what ran before it).
        """
        with self.sql_counts.one(), span("kalam.sql"):
            return await self._execute(text, params, session)

    async def _execute(self, text: str, params: Sequence[Any], session: Session) -> list[Result]:
        check_user(session.user)
        parsed = await self.texts.split(text)
        if not parsed.texts:
            raise SyntaxFault("the text holds no statement")
        results: list[Result] = []
        for number, statement in enumerate(parsed.texts, 1):
            try:
                result, session = await self._run(parsed, number - 1, params, session)
            except KalamError as exc:
                locate(exc, statement)
                exc.fields["statement"] = number
                exc.fields["results"] = results
                raise
            except Exception as exc:
                log.exception("statement failed", statement=statement.text[:500])
                if busy := out_of_files(exc):
                    busy.fields |= {"statement": number, "results": results}
                    raise busy from exc
                detail = (
                    f"an internal error stopped the statement ({type(exc).__name__}); the server's log has the details"
                )
                raise Internal(detail, statement=number, results=results) from exc
            results.append(replace(result, bigint_as_text=True) if session.bigint_as_text else result)
        return results

    def answer_nowait(self, text: str, params: Sequence[Any], session: Session, door: str) -> bytes | None:
        """The JSON answer to a text that asks for one hot row by its key, as one that was sent before did.

        None for everything else, and for whatever is wrong: ``execute`` answers it.
        """
        query = self.texts.known_query(text)
        if query is None or query.point is None or session.bigint_as_text:
            return None
        started = time.perf_counter()
        try:
            check_user(session.user)
            answer = self.points.answer_nowait(query, Request(session, params))
            if answer is not None:
                self.sql_counts.note(door, time.perf_counter() - started)
            return answer
        except Exception:  # noqa: BLE001 - execute meets the same, tells it and logs it
            return None

    async def _run(
        self, parsed: ParsedText, place: int, params: Sequence[Any], session: Session
    ) -> tuple[Result, Session]:
        statement = await self.texts.statement(parsed, place, session.user)
        if isinstance(statement, Use):
            if statement.namespace not in self.catalogue.namespaces:
                raise NamespaceNotFound(f"there is no namespace {statement.namespace!r}")
            return Result(message=f"using {statement.namespace}"), replace(session, namespace=statement.namespace)
        if "current_user" in parsed.texts[place].text.lower():
            statement = await reading(parsed.texts[place].text, with_user, statement, session.user)
        return await self._dispatch(statement, Request(session, params)), session

    async def _dispatch(self, statement: Statement, request: Request) -> Result:  # noqa: C901 - one case a statement
        session = request.session
        match statement:
            case Select(query):
                return await self._select(query, request)
            case Insert():
                return await self._insert(statement, request)
            case Update():
                return await self.changes.update(statement, request)
            case Delete():
                return await self.changes.delete(statement, request)
            case CreateNamespace():
                return await self.definitions.create_namespace(statement)
            case DropNamespace():
                return await self.definitions.drop_namespace(statement)
            case ShowNamespaces():
                return self.definitions.show_namespaces()
            case ShowTables(namespace):
                return self.definitions.show_tables(namespace or session.namespace or None)
            case CreateTable():
                return await self.definitions.create_table(statement, session)
            case DropTable():
                return await self.definitions.drop_table(statement, session)
            case AlterTable():
                return await self.definitions.alter_table(statement, session)
            case DescribeTable():
                return await self.definitions.describe(statement, session)
            case ShowStats(ref):
                return await self.definitions.show_stats(ref, session)
            case ShowCreateTable(ref):
                return self.definitions.show_create_table(ref, session)
            case FlushTable(ref):
                return await self._flush_table(ref, session)
            case FlushAllTables(namespace):
                return await self._flush_all(namespace)
            case ShowJobs():
                return await self._show_jobs(request)
            case ShowQueries():
                return list_result(QUERIES, running_rows(self.running))
            case KillQuery(query_id):
                self.cancel(query_id, session)
                return Result(message=f"query {query_id} cancelled")
            case Subscribe():
                return await self.live.subscribe(statement, session, request.parameters)
            case ShowLiveQueries():
                return self.live.show()
            case KillLiveQuery(query_id):
                return self.live.kill(query_id)
            case CompactTable(ref):
                return await self._compact_table(ref, session)
            case CheckTable(ref):
                return await self._check_table(ref, session)
            case KillJob(job_id):
                await self.jobs.kill(job_id)
                return Result(message=f"job {job_id} killed")
            case Use():
                raise AssertionError("USE is carried out by _run")
            case other:
                assert_never(other)

    async def _insert(self, statement: Insert, request: Request) -> Result:
        result = await self.changes.insert(statement, request)
        self.inserts.accepted_rows += result.row_count
        return result

    async def _select(self, query: QueryText, request: Request) -> Result:
        found = await self.points.select(query, request)
        if found is not None:
            return found
        data = await self.queries.select(
            query,
            request.session.user,
            request.session.namespace,
            request.parameters,
            rows_max=self.settings.result_rows_max,
            bytes_max=self.settings.result_bytes_max,
        )
        if request.session.postgresql_names:
            data = data.rename_columns(await reading(query.text, postgresql_names, query, data.column_names))
        return await beside(max(data.shape), rows_result, data)

    async def _flush_table(self, ref: TableRef, session: Session) -> Result:
        table = self.catalogue.table(resolve(ref, session.namespace))
        self.tables.of(table).stored(table, "FLUSH of")
        return _flush_result([(table, await self.flusher.flush(table))])

    async def _flush_all(self, namespace: str | None) -> Result:
        if namespace is not None and namespace not in self.catalogue.namespaces:
            raise NamespaceNotFound(f"there is no namespace {namespace!r}")
        tables = sorted(self.catalogue.stored(), key=lambda table: table.name)
        chosen = [table for table in tables if namespace in (None, table.name.namespace)]
        done: list[tuple[Table, Flushed]] = []
        failures: list[tuple[Table, Exception]] = []
        for table in chosen:
            try:
                done.append((table, await self.flusher.flush(table)))
            except TableNotFound:  # it was dropped meanwhile
                continue
            except Exception as exc:  # noqa: BLE001 - whatever it was, it is this table's, and there are others
                log_failure("flush failed", exc, table=str(table.name))
                failures.append((table, exc))
        if failures:
            raise _not_flushed(failures, len(done))
        return _flush_result(done)

    async def _compact_table(self, ref: TableRef, session: Session) -> Result:
        table = self.catalogue.table(resolve(ref, session.namespace))
        self.tables.of(table).stored(table, "COMPACT of")
        done = await self.compactor.compact(table)
        values = {"job_id": done.job_id, "table": str(table.name), **done.result(), "duration_ms": done.duration_ms}
        if not done.job_id:
            return replace(list_result(COMPACT_FIELDS, []), message=f"nothing to compact in {table.name}")
        return list_result(COMPACT_FIELDS, [tuple(values[name] for name, _ in COMPACT_FIELDS)])

    async def _check_table(self, ref: TableRef, session: Session) -> Result:
        table = self.catalogue.table(resolve(ref, session.namespace))
        self.tables.of(table).stored(table, "CHECK of")
        check = TableCheck(self.flusher.store, self.jobs, self.flusher.folders)
        job_id, found = await check.check(table)
        rows = [
            (job_id, one.segment.path, one.owner or None, one.segment.row_count, one.segment.byte_count, *_fault(one))
            for one in found
        ]
        return list_result(CHECK_FIELDS, rows)

    async def _show_jobs(self, request: Request) -> Result:
        start = JOBS_QUERY.index("system.jobs")
        use = TableUse(TableRef("system", "jobs"), start, start + len("system.jobs"), aliased=False, sees_deleted=False)
        return await self._select(QueryText(JOBS_QUERY, (use,)), request)

    def cancel(self, query_id: str, session: Session) -> None:
        """Cancel a running request of the session's user, or of others where the user may; raises NotFound."""
        self.running.cancel(query_id, lambda running: session.may_end(running.user))

    async def health(self) -> list[Check]:
        """What has to be well for the server to be ready."""
        free = shutil.disk_usage(self.settings.data_dir).free
        failing = self.schedule.failing
        beaten_s = time.monotonic() - self.schedule.beat_at
        nats = "not connected"
        if self.broker_connected():
            nats = "connected" if await self.broker_answers() else "connected, but the broker does not answer"
        if self.database.failure is not None:  # without traffic nothing else would find out that it works again
            with suppress(KalamError):
                await self.database.write(probe)
        return [
            Check("sqlite", self.database.failure is None, without_folders(self.database.failure or "writable")),
            Check("nats", nats == "connected", nats),
            Check("flusher", beaten_s < BEAT_S_MAX, f"failing for {', '.join(failing)}" if failing else "well"),
            Check("disk", free >= self.settings.disk_free_bytes_min, f"{free} bytes free"),
        ]


def _fault(checked: CheckedSegment) -> tuple[bool, str | None]:
    return checked.fault is None, checked.fault


def _flush_result(done: Sequence[tuple[Table, Flushed]]) -> Result:
    rows = [
        (each.job_id, str(table.name), each.rows_flushed, each.segments, each.bytes, each.duration_ms)
        for table, each in done
        if each.job_id
    ]
    result = list_result(FLUSH_FIELDS, rows)
    return result if rows else replace(result, message="nothing to flush: all rows are in Parquet files")


def _not_flushed(failures: Sequence[tuple[Table, Exception]], others: int) -> KalamError:
    """The error of a FLUSH ALL TABLES: of the kind of the first one, and naming every table that failed."""
    first = failures[0][1]
    kind = type(first) if isinstance(first, KalamError) else Internal
    listed = "; ".join(f"{table.name}: {reason_of(exc)}" for table, exc in failures[:20])
    more = f" and {len(failures) - 20} more" if len(failures) > 20 else ""
    tables = [str(table.name) for table, _ in failures]
    rest = f"the {numbered(others, 'other')} {'was' if others == 1 else 'were'}"
    return kind(f"{numbered(len(failures), 'table')} could not be flushed, {rest}: {listed}{more}", tables=tables)
