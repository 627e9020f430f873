"""Statements for sessions: in order, each to the part that carries it out."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from typing import Any, assert_never

import msgspec
import pyarrow as pa
import structlog
from msgspec.structs import replace

from kalam.access.identity import Identity
from kalam.access.model import Narrowed
from kalam.engine.access import AccessStatements, Audited
from kalam.engine.comments import CommentStatements
from kalam.engine.definitions import Definitions
from kalam.engine.described import Description
from kalam.engine.describing import Describing, is_many
from kalam.engine.descriptions import Descriptions
from kalam.engine.filled_tables import FilledTables
from kalam.engine.foreign import ForeignStatements
from kalam.engine.gate import ONESELF, Gate
from kalam.engine.insert_source import MANY_PLAIN
from kalam.engine.inserts import Inserts
from kalam.engine.lake import LakeStatements
from kalam.engine.literal_rows import LiteralRows
from kalam.engine.live import Live
from kalam.engine.row_statements import RowStatements
from kalam.engine.selects import SelectStatements
from kalam.engine.session import Request, Session
from kalam.engine.sql_counts import SqlCounts
from kalam.engine.temporary import written_out
from kalam.engine.texts import Texts
from kalam.engine.views import ViewStatements
from kalam.engine.work import WorkStatements
from kalam.errors import (
    Internal,
    KalamError,
    NamespaceNotFound,
    SyntaxFault,
    Unsupported,
)
from kalam.names import TEMPORARY_NAMESPACE
from kalam.query.points import Points
from kalam.query.queries import Queries
from kalam.query.results import Result, list_result, rows_result
from kalam.query.running import RunningQueries, RunningQuery, running_query
from kalam.query.system import QUERIES, running_rows
from kalam.settings import Settings
from kalam.sql.access.statements import ShowSessions
from kalam.sql.parsed import ParsedText
from kalam.sql.queries.readers import may_have_inner_names, postgresql_names, with_inner_names
from kalam.sql.text import statements as sql
from kalam.sql.text.named_places import locate
from kalam.sql.text.passwords import without_password_in, without_passwords
from kalam.sql.text.replaced import names_session, with_queries, with_session
from kalam.sql.text.view_statements import ShowViews
from kalam.storage.log.catalogue import Catalogue
from kalam.storage.log.open_files import out_of_files
from kalam.threads import beside, reading
from kalam.tracing import span

_SYSTEM = {sql.ShowJobs: "jobs", ShowSessions: "sessions", ShowViews: "views"}
log = structlog.get_logger(__name__)


class Dispatch(msgspec.Struct, frozen=True):
    """Carries out statements and inserts for sessions; what it holds is for this package."""

    settings: Settings
    catalogue: Catalogue
    queries: Queries
    points: Points
    rows: RowStatements
    describing: Describing
    definitions: Definitions
    comments: CommentStatements
    descriptions: Descriptions
    filled: FilledTables
    selects: SelectStatements
    inserts: Inserts
    live: Live
    lake: LakeStatements
    foreign: ForeignStatements
    work: WorkStatements
    texts: Texts
    running: RunningQueries
    sql_counts: SqlCounts
    gate: Gate
    access: AccessStatements
    views: ViewStatements
    audited: Audited
    literal_rows: LiteralRows

    @property
    def standing(self) -> tuple[int, int]:
        """Another value whenever a definition has changed, or what somebody may."""
        return self.catalogue.changes, self.gate.rights.book.generation

    async def execute(self, text: str, params: Sequence[Any], session: Session) -> list[Result]:
        """Run the statements of a text in order and return a result for each.

        Stops at the first error, which carries ``statement`` (its number, from 1) and ``results`` (what ran before it).
        """
        with self.sql_counts.one(), span("kalam.sql"):
            return await self._execute(text, params, session)

    async def _execute(self, text: str, params: Sequence[Any], session: Session) -> list[Result]:
        parsed = await self.texts.split(text)
        if not parsed.texts:
            raise SyntaxFault("the text holds no statement")
        results: list[Result] = []
        for number, statement in enumerate(parsed.texts, 1):
            try:
                result, session = await self._run(parsed, number - 1, params, session)
            except KalamError as exc:
                locate(exc, statement)
                without_password_in(exc, statement.text)
                exc.fields["statement"] = number
                exc.fields["results"] = results
                raise
            except Exception as exc:
                log.exception("statement failed", statement=without_passwords(statement.text[:500]))
                if busy := out_of_files(exc):
                    busy.fields |= {"statement": number, "results": results}
                    raise busy from exc
                detail = (
                    f"an internal error stopped the statement ({type(exc).__name__}); the server's log has the details"
                )
                raise Internal(detail, statement=number, results=results) from exc
            results.append(replace(result, bigint_as_text=True) if session.bigint_as_text else result)
        return results

    async def execute_many(self, text: str, rows: Sequence[Sequence[Any]] | pa.Table, session: Session) -> Result:
        """Carry out an INSERT … VALUES for each of these rows of parameters, as one statement."""
        with self.sql_counts.one(), span("kalam.sql"), self._only_statement(await self.texts.split(text)) as parsed:
            statement, asking = await self._statement(parsed, 0, session)
            if not is_many(statement):
                raise Unsupported(MANY_PLAIN, hint="run the statement for each row")
            with self.audited.telling(statement, asking):
                self._check(statement, asking)
                return await self.rows.change(statement, Request(asking, (), rows))

    @contextmanager
    def _only_statement(self, parsed: ParsedText) -> Iterator[ParsedText]:
        """The text, if it holds one statement, of which the block's errors tell."""
        if len(parsed.texts) != 1:
            raise Unsupported(f"this is for one statement, and the text holds {len(parsed.texts)}")
        try:
            yield parsed
        except KalamError as exc:
            locate(exc, parsed.texts[0])
            without_password_in(exc, parsed.texts[0].text)
            exc.fields["statement"] = 1
            raise

    async def describe(self, text: str, types: Sequence[pa.DataType | None], session: Session) -> Description:
        """What the one statement of a text asks for and gives, with these types of parameters declared."""
        with self._only_statement(await self.texts.split(text)) as parsed:
            statement, asking = await self._statement(parsed, 0, session)
            with self.audited.refusing(statement, asking):
                self._check(statement, asking)
            return await self.describing.describe(statement, asking, types)

    async def stream(self, text: str, params: Sequence[Any], session: Session) -> AsyncGenerator[pa.Table, None]:
        """The rows of a text with one statement, as tables of one schema, at least one.

        A SELECT is read while it is sent and has no bound in rows; any other statement is carried out first.
        """
        parsed = await self.texts.split(text)
        if not parsed.texts:
            raise SyntaxFault("the text holds no statement")
        if len(parsed.texts) > 1:
            raise Unsupported(
                f"a streamed answer has the rows of one statement, and the text holds {len(parsed.texts)}",
                hint="ask for application/json, or send one statement",
            )
        with self._only_statement(parsed):
            statement, session = await self._statement(parsed, 0, session)
            if isinstance(statement, sql.Select):
                with self.audited.telling(statement, session):
                    self._check(statement, session)
                # How long it takes is up to the reader.
                with self.sql_counts.one(timed=False), span("kalam.sql", apart=True):
                    async with aclosing(self._stream(statement.query, Request(session, params))) as tables:
                        async for table in tables:
                            yield table
                return
        (result,) = await self.execute(text, params, session)
        yield pa.table({}) if result.data is None else result.data

    async def _stream(self, query: sql.QueryText, request: Request) -> AsyncGenerator[pa.Table, None]:
        session, names = request.session, None
        point = await self.points.select(query, session.user, session.namespace, request.parameters)
        if point is not None and point.data is not None:
            yield point.data
            return
        async with aclosing(self.queries.stream(query, session.user, session.namespace, request.parameters)) as tables:
            async for table in tables:
                if session.postgresql_names and names is None:
                    names = await reading(query.text, postgresql_names, query, table.column_names)
                named = table if names is None else table.rename_columns(names)
                if session.postgresql_names:
                    self.literal_rows.keep(query, named)
                yield named

    async def _run(
        self, parsed: ParsedText, place: int, params: Sequence[Any], session: Session
    ) -> tuple[Result, Session]:
        statement, asking = await self._statement(parsed, place, session)
        if isinstance(statement, sql.Use):
            self._check(statement, asking)
            if statement.namespace not in self.catalogue.namespaces:
                raise NamespaceNotFound(f"there is no namespace {statement.namespace!r}")
            return Result(message=f"using {statement.namespace}"), replace(session, namespace=statement.namespace)
        with self.audited.telling(statement, asking):
            self._check(statement, asking)
            return await self._dispatch(statement, Request(asking, params)), session

    def _check(self, statement: sql.Statement, session: Session) -> None:
        self.gate.check(statement, session)

    async def _statement(self, parsed: ParsedText, place: int, session: Session) -> tuple[sql.Statement, Session]:
        """A statement of a text, which names on whose rows it works (``CURRENT_USER()``), and for whom it is run."""
        statement = await self.texts.statement(parsed, place, session.user)
        if isinstance(statement, sql.ExecuteAs):
            with self.audited.telling(statement, session):
                session = replace(session, identity=self.gate.acting(statement, session.identity))
            statement = statement.statement
        elif isinstance(statement, sql.OnAccess) and session.identity.actor is not None:
            raise Unsupported(ONESELF)
        text = parsed.texts[place].text
        whose = await reading(text, names_session, text)
        if whose and not isinstance(statement, sql.CreateSelect):  # which is for whoever reads the view
            roles = self.gate.rights.roles(session.user)
            statement = await reading(text, with_session, statement, session.user, roles)
        if session.postgresql_names and await reading(text, may_have_inner_names, text):
            statement = await reading(text, with_queries, statement, with_inner_names)
        if session.has_temporary or await reading(text, _may_name_temporary, session.namespace, text):
            statement = await reading(text, written_out, statement, self.catalogue.temporary, session)
        return statement, session

    async def _dispatch(self, statement: sql.Statement, request: Request) -> Result:  # noqa: C901 - one case a statement
        session = request.session
        match statement:
            case sql.Select(query):
                return await self._select(query, request)
            case sql.Insert() | sql.Update() | sql.Delete() | sql.Merge():
                return await self.rows.change(statement, request)
            case sql.ShowNamespaces() | sql.ShowTables() | sql.DescribeTable() | sql.ShowColumns():
                return await self.descriptions.answer(statement, session)
            case sql.ShowStats() | sql.ShowCreateTable():
                return await self.descriptions.answer(statement, session)
            case sql.CreateNamespace() | sql.DropNamespace() | sql.CommentOn():
                return await self._define(statement, request)
            case sql.CreateTemporary():
                return await self.rows.temporary.create(statement, request)
            case sql.CreateTable() | sql.DropTable() | sql.TruncateTable() | sql.AlterTable():
                return await self._define(statement, request)
            case sql.ShowStreams() | sql.DescribeStream():
                return await self.foreign.answer(statement, session)
            case sql.FlushTable() | sql.FlushAllTables() | sql.CompactTable() | sql.CheckTable() | sql.KillJob():
                return await self.work.answer(statement, session)
            case sql.ShowJobs() | ShowSessions() | ShowViews():
                return await self._show_system(_SYSTEM[type(statement)], request)
            case sql.ShowQueries():
                return list_result(QUERIES, running_rows(self._shown_queries(session.identity)))
            case sql.KillQuery(query_id):
                return self._kill_query(query_id, session)
            case sql.Subscribe():
                return await self.live.subscribe(statement, session, request.parameters)
            case sql.ShowLiveQueries():
                return self.live.show(session)
            case sql.KillLiveQuery(query_id):
                return self.live.kill(query_id, session)
            case sql.ShowLake() | sql.RefreshLake():
                return await self.lake.answer(statement, session)
            case sql.OnAccess():
                return await self.access.execute(statement, request)
            case sql.CreateSelect():
                return await self.selects.create(statement, request)
            case sql.DropSelect():
                return await self.selects.drop(statement, session)
            case sql.OnView():
                return await self.views.execute(statement, request)
            case sql.Use() | sql.ExecuteAs():
                raise AssertionError("carried out by _run")
            case other:
                assert_never(other)

    async def _define(self, statement: sql.Defining, request: Request) -> Result:
        definitions, session = self.definitions, request.session
        match statement:
            case sql.CreateNamespace():
                return await definitions.create_namespace(statement)
            case sql.DropNamespace():
                return await definitions.drop_namespace(statement, session)
            case sql.CreateTable():
                if statement.query is not None:
                    return await self.filled.create(statement, request)
                return await definitions.create_table(statement, session)
            case sql.DropTable(ref) if self.rows.is_temporary(ref):
                return self.rows.temporary.drop(statement, request)
            case sql.TruncateTable(ref) if self.rows.is_temporary(ref):
                return self.rows.temporary.truncate(statement, request)
            case sql.DropTable():
                return await definitions.drop_table(statement, session)
            case sql.TruncateTable():
                return await definitions.truncate_table(statement, session)
            case sql.AlterTable():
                return await definitions.alter_table(statement, session)
            case sql.CommentOn():
                return await self.comments.comment(statement, session)
            case other:
                assert_never(other)

    async def _select(self, query: sql.QueryText, request: Request) -> Result:
        user, namespace = request.session.user, request.session.namespace
        found = await self.points.select(query, user, namespace, request.parameters)
        if found is not None:
            return found
        data = await self.queries.select(
            query,
            user,
            namespace,
            request.parameters,
            rows_max=self.settings.result_rows_max,
            bytes_max=self.settings.result_bytes_max,
        )
        if request.session.postgresql_names:
            data = data.rename_columns(await reading(query.text, postgresql_names, query, data.column_names))
        return await beside(max(data.shape), rows_result, data)

    async def _show_system(self, table: str, request: Request) -> Result:
        head, order = "SELECT * FROM ", "namespace, view_name" if table == "views" else "created_at"
        place = len(head), len(f"{head}system.{table}")
        use = sql.TableUse(sql.TableRef("system", table), *place, aliased=False, sees_deleted=False)
        return await self._select(sql.QueryText(f"{head}system.{table} ORDER BY {order}", (use,)), request)

    def _kill_query(self, query_id: str, session: Session) -> Result:
        self.cancel(query_id, session)
        return Result(message=f"query {query_id} cancelled")

    def cancel(self, query_id: str, session: Session) -> None:
        """Cancel a running request of the session's user, or of others where the user may; raises NotFound."""
        identity = session.identity
        self.running.cancel(query_id, session.user, lambda running: self.gate.may_end(identity, running.user))

    async def narrowed(self, narrowed: Narrowed) -> None:
        """Cancel what runs for somebody who may not any more."""
        for running in self.running:
            if self.ends(running, narrowed):
                running.cancel()

    def ends(self, asked: RunningQuery, narrowed: Narrowed) -> bool:
        """Whether a request ends with what is taken; the statement that takes it goes on."""
        return asked is not running_query() and self.gate.ends(asked, narrowed)

    def _shown_queries(self, identity: Identity) -> list[RunningQuery]:
        """The running requests that somebody may see."""
        return [each for each in self.running if self.gate.may_end(identity, each.user)]


def _may_name_temporary(namespace: str | None, text: str) -> bool:
    """Whether a text may name temporary tables by their namespace."""
    return TEMPORARY_NAMESPACE in f"{namespace} {text}".lower()
