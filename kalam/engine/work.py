"""FLUSH, COMPACT, CHECK and KILL JOB: work on what is stored."""

from __future__ import annotations

from typing import assert_never

from msgspec.structs import replace

from kalam.access.identity import Identity
from kalam.engine.gate import Gate
from kalam.engine.session import Session
from kalam.engine.upkeep_results import check_result, compact_result, flush_result, not_flushed
from kalam.errors import NamespaceNotFound, TableNotFound
from kalam.query.queries import resolve
from kalam.query.results import Result
from kalam.schema import Table
from kalam.sql.text.statements import CheckTable, CompactTable, FlushAllTables, FlushTable, KillJob, TableRef
from kalam.storage.log.catalogue import Catalogue
from kalam.storage.log.troubles import log_failure
from kalam.storage.work.compaction import Compactor
from kalam.storage.work.flush import Flushed, Flusher
from kalam.storage.work.jobs import Jobs
from kalam.storage.work.table_check import TableCheck
from kalam.tables.kinds import Rows, Tables, Verb

WorkStatement = FlushTable | FlushAllTables | CompactTable | CheckTable | KillJob


class WorkStatements:
    """Has it done, and answers when it is."""

    def __init__(
        self,
        catalogue: Catalogue,
        tables: Tables[Rows],
        flusher: Flusher,
        compactor: Compactor,
        jobs: Jobs,
        gate: Gate,
    ) -> None:
        self._catalogue, self._tables, self._gate = catalogue, tables, gate
        self._flusher, self._compactor, self._jobs = flusher, compactor, jobs

    async def answer(self, statement: WorkStatement, session: Session) -> Result:
        """The answer to one of them."""
        match statement:
            case FlushTable(ref):
                table = self._stored(ref, session, "FLUSH")
                return flush_result([(table, await self._flusher.flush(table))])
            case FlushAllTables(namespace):
                return await self._flush_all(namespace, session.identity)
            case CompactTable(ref):
                table = self._stored(ref, session, "COMPACT")
                return compact_result(table, await self._compactor.compact(table))
            case CheckTable(ref):
                table = self._stored(ref, session, "CHECK")
                check = TableCheck(self._flusher.store, self._jobs, self._flusher.folders)
                return check_result(*await check.check(table))
            case KillJob(job_id):
                await self._jobs.kill(job_id)
                return Result(message=f"job {job_id} killed")
            case other:
                assert_never(other)

    def _stored(self, ref: TableRef, session: Session, verb: Verb) -> Table:
        table = self._catalogue.table(resolve(ref, session.namespace))
        self._tables.of(table).stored(table, verb)
        return table

    async def _flush_all(self, namespace: str | None, identity: Identity) -> Result:
        if namespace is not None and namespace not in self._catalogue.namespaces:
            raise NamespaceNotFound(f"there is no namespace {namespace!r}")
        tables = sorted(self._catalogue.stored(), key=lambda table: table.name)
        owned = [table for table in tables if self._gate.owns(identity, table)]
        if tables and not owned:
            return replace(flush_result([]), message="nothing was flushed: none of the tables is yours")
        chosen = [table for table in owned if namespace in (None, table.name.namespace)]
        done: list[tuple[Table, Flushed]] = []
        failures: list[tuple[Table, Exception]] = []
        for table in chosen:
            try:
                done.append((table, await self._flusher.flush(table)))
            except TableNotFound:  # it was dropped meanwhile
                continue
            except Exception as exc:  # noqa: BLE001 - whatever it was, it is this table's, and there are others
                log_failure("flush failed", exc, table=str(table.name))
                failures.append((table, exc))
        if failures:
            raise not_flushed(failures, len(done))
        return flush_result(done)
