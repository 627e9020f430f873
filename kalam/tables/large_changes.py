"""UPDATE and DELETE of any size: the segments that hold the rows are written again, and one transaction shows it.

The law: until that transaction nothing has changed, and after it everything has; neither it nor what comes before keeps
others from writing. The statement reads a snapshot of segments (what is hot is flushed before), which nobody replaces
meanwhile; other changes of the copy wait for their turn, as behind any statement, and inserts go on. The picked rows go
through a process of the statement's own (``change_worker.py``), which holds a bounded number of them, and what it makes
for the feed is laid beside the log (``storage/log/staged.py``). Segments that hold a picked version are merged without
it. The numbers are the last thing: they are in the order of the commits, so inserts into this copy wait from the moment
that they are known, while the files get them (``storage/work/numbered_output.py``).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, aclosing
from typing import Any, Final

import msgspec
import pyarrow as pa
from msgspec.structs import replace

from kalam.errors import TooBusy, error_class
from kalam.rows.types import Row
from kalam.schema import Table
from kalam.storage.log.copies import EMPTY_VIEW, Op, View
from kalam.storage.log.crash import crash_point
from kalam.storage.log.database import make_directory, now_us, storage_error
from kalam.storage.log.staged import Piece, Staged
from kalam.storage.log.writes import Stale
from kalam.storage.opened import Storage
from kalam.storage.work.background import Background
from kalam.storage.work.flush import forgotten_before, rename_files
from kalam.storage.work.jobs import Job
from kalam.storage.work.worker_process import WorkerProcess
from kalam.tables import change_worker
from kalam.tables.change_worker import Begin, ChangeAnswer, End, Finish, More, Rows, remove_files
from kalam.tables.large_record import LargeRecord, Prepared
from kalam.tables.stored import StoredTables
from kalam.threads import Purpose, in_thread

TRIES_MAX: Final = 3
FED_BYTES: Final = 8 << 20
"""Bytes of picked rows that are handed on together."""
IDLE_S: Final = 60.0


class LargeChange(msgspec.Struct, frozen=True, kw_only=True):
    """What a statement does.

    ``pick`` reads the rows that it means of a view, as ``change_worker.Rows`` has them; ``assigned`` names the columns
    that get values; ``judge``, if there is one, raises what is wrong with new rows; in ``step`` what is waited for can
    be cancelled.
    """

    op: Op
    pick: Callable[[Table, View], AsyncGenerator[pa.Table, None]]
    assigned: Callable[[Table], Sequence[str]]
    judge: Callable[[Table, Sequence[Row]], Awaitable[None]] | None
    step: Callable[[], AbstractContextManager[None]]


class LargeChanges:
    """Carries them out, one after another in a copy."""

    def __init__(
        self, storage: Storage, background: Background, stored: StoredTables, staged: Staged, row_bytes_max: int
    ) -> None:
        self.storage, self.background, self.stored, self.staged = storage, background, stored, staged
        self.row_bytes_max = row_bytes_max
        self._names = 0

    async def run(self, table: Table, user: str, change: LargeChange) -> int:
        """Carry one out as a job; how many rows it has changed. Raises what is wrong with the statement."""
        owner, compactor, rows = table.owner(user), self.background.compactor, 0
        for _ in range(TRIES_MAX):
            async with self.stored.turn(table, owner), compactor.lock(table):
                table = self.storage.catalogue.newest(table)

                async def work(job: Job, table: Table = table) -> dict[str, Any]:
                    nonlocal rows
                    rows = await _Statement(self, table, owner, change, job).carry_out()
                    return {"rows": rows}

                try:
                    await self.background.jobs.run("change", table.name, {"statement": change.op}, work)
                except Stale:
                    continue
                return rows
        raise TooBusy(f"table {table.name} is altered while the statement is prepared; try again")

    def name(self, table: Table) -> str:
        """What the files of a statement are called."""
        self._names += 1
        return f"{self.storage.folders.file_prefix(table)}{now_us()}-l{self._names}"


class _Statement:
    """One of them, whose turn it is."""

    def __init__(self, own: LargeChanges, table: Table, owner: str, change: LargeChange, job: Job) -> None:
        self._table, self._owner, self._change, self._job = table, owner, change, job
        self._storage, self._staged, self._stored = own.storage, own.staged, own.stored
        self._compactor, self._flusher = own.background.compactor, own.background.schedule.flusher
        self._row_bytes_max = own.row_bytes_max
        self._folder = own.storage.folders.folder(table, owner)
        self._name = own.name(table)
        self._left_out = self._folder / f".batch-{self._name}-seqs.tmp"
        self._process = WorkerProcess(change_worker.__name__, IDLE_S)
        self._prepared = Prepared(op=change.op, updated_us=now_us())
        self._stage = ""

    async def carry_out(self) -> int:
        """All of it; how many rows were changed."""
        await self._flush()
        view, copy_id = await self._snapshot()
        async with AsyncExitStack() as stack:
            self._stage = stack.enter_context(self._staged.stage())
            stack.push_async_callback(in_thread, Purpose.FILES, remove_files, self._folder, self._name)
            stack.push_async_callback(self._process.stop)
            try:
                await self._pick(view, copy_id)
                if self._prepared.rows:
                    await self._rewrite(view, copy_id)
                    await self._show(copy_id)
            except BaseException:
                self._compactor.leave(self._folder, self._prepared.new)
                raise
        self._compactor.tell(self._table.table_id, self._owner)
        return self._prepared.rows

    async def _flush(self) -> None:
        await self._flusher.flush(self._table, users=[self._owner], reason="change")

    async def _snapshot(self) -> tuple[View, int]:
        """What is in segments, without the rows that have been inserted since the flush."""
        copy = await self._storage.store.open(self._table, self._owner)
        if copy is None:
            return EMPTY_VIEW, 0
        return replace(copy.view, chunks=(), chunk_count=0), copy.copy_id

    async def _pick(self, view: View, copy_id: int) -> None:
        """Have the rows picked and worked on, and lay down what is to be told of them."""
        table, change = self._table, self._change
        try:
            await in_thread(Purpose.FILES, make_directory, self._folder)
        except OSError as exc:
            raise storage_error(exc) from exc
        begin = Begin(
            database=str(self._storage.database.path),
            table_id=table.table_id,
            schema_version=table.schema_version,
            copy_id=copy_id,
            columns=table.columns,
            history=dict(self._storage.catalogue.history(table)),
            key=table.key,
            folder=str(self._folder),
            name=self._name,
            compression=table.stored_options.compression,
            segment_rows_max=self._compactor.segment_rows_max,
            forget_deleted_us=forgotten_before(table, now_us()),
            op=change.op,
            table_name=table.name,
            kind=table.kind,
            options=table.stored_options,
            created_at=table.created_at,
            assigned=tuple(change.assigned(table)),
            updated_us=self._prepared.updated_us,
            row_bytes_max=self._row_bytes_max,
            last_seq=view.last_seq,
            left_out=str(self._left_out),
        )
        await self._ask(begin)
        waiting: list[pa.Table] = []
        async with aclosing(change.pick(table, view)) as found:
            async for rows in found:
                if rows.num_rows:
                    waiting.append(rows)
                if sum(part.nbytes for part in waiting) >= FED_BYTES:
                    await self._feed(waiting)
                    waiting = []
        await self._feed(waiting)
        await self._lay(await self._ask(End()))

    async def _feed(self, parts: Sequence[pa.Table]) -> None:
        if parts:
            data = await in_thread(Purpose.ROWS, _stream, parts)
            await self._lay(await self._ask(Rows(data)))

    async def _ask(self, request: Begin | Rows | More | End | Finish) -> ChangeAnswer:
        with self._change.step():
            answer = await self._process.run(request, ChangeAnswer)
        if answer.refused is not None:
            code, detail, fields = answer.refused
            raise error_class(code)(detail, **fields)
        return answer

    async def _lay(self, answer: ChangeAnswer) -> None:
        """Lay down the changes of an answer, and those that are still to be asked for."""
        while True:
            if answer.pieces:
                await self._judge(answer.pieces)
                self._prepared.laid += await self._staged.lay(self._stage, answer.pieces)
                self._prepared.rows += sum(piece.row_count for piece in answer.pieces)
                self._job.progress = {"rows_prepared": self._prepared.rows}
            if not answer.more:
                return
            answer = await self._ask(More())

    async def _judge(self, pieces: Sequence[Piece]) -> None:
        if self._change.judge is not None:
            stored = self._storage.codecs.of(self._table).stored
            for piece in pieces:
                rows = await in_thread(Purpose.ROWS, stored.unpack, piece.payload)
                await self._change.judge(self._table, rows)

    async def _rewrite(self, view: View, copy_id: int) -> None:
        """Merge what is left of each segment that holds a picked version."""
        table, prepared = self._table, self._prepared
        live = [segment for segment in view.segments if not segment.deleted]
        for number, segment in enumerate(live):
            self._job.progress = {"rows_prepared": prepared.rows, "segments": len(live), "segments_done": number}
            with self._change.step():
                answer = await self._compactor.merged(
                    table, self._owner, copy_id, [segment], lambda rows: None, self._left_out
                )
            if not answer.untouched:
                prepared.old.append(segment)
                prepared.new += answer.files

    async def _show(self, copy_id: int) -> None:
        """Number the new rows and take everything into the catalogue."""
        prepared, database = self._prepared, self._storage.database
        await self._rename(0)
        renamed = len(prepared.new)
        await self._flush()
        async with self._stored.holding_inserts(self._table, self._owner):
            await database.write(lambda conn: None)  # what was handed in before is stored
            await self._flush()
            copy = await self._storage.store.open(self._table, self._owner)
            prepared.first_seq = 1 if copy is None else copy.last_seq + 1
            prepared.new += (await self._ask(Finish(prepared.first_seq))).files
            await self._rename(renamed)
            crash_point("change.before_commit")
            await database.submit(LargeRecord(self._compactor, self._table, self._owner, copy_id, prepared))
            crash_point("change.after_commit")

    async def _rename(self, first: int) -> None:
        try:
            await in_thread(Purpose.FILES, rename_files, self._folder, self._prepared.new[first:])
        except OSError as exc:
            raise storage_error(exc) from exc


def _stream(parts: Sequence[pa.Table]) -> bytes:
    """Rows as an Arrow stream; the parts may differ in what they say of NULL."""
    schema = pa.schema([field.with_nullable(True).remove_metadata() for field in parts[0].schema])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        for part in parts:
            writer.write_table(part.cast(schema))
    return bytes(sink.getvalue().to_pybytes())
