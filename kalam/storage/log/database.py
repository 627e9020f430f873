"""``kalam.db``: one thread writes, in groups; everybody else reads.

The law of this file: a task's future is resolved only after the transaction that holds its changes has been committed
with ``synchronous=FULL``. Tasks that wait at the same time share one transaction and one fsync (group commit), so the
price of an fsync is divided by the load. Two connections never checkpoint or write at the same time, because there is
only one that can (SQLite 3.7.0 to 3.51.2 may lose a commit when a checkpoint races it).
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import structlog

from kalam.errors import KalamError, StorageFull, Unavailable
from kalam.latency import Latency
from kalam.rows.judged import judged
from kalam.storage.log.crash import crash_point
from kalam.storage.log.generation import MarkFile, begin, skip_ids
from kalam.storage.log.open_files import out_of_files
from kalam.storage.log.write_task import Work, WriteTask, with_alongside

T = TypeVar("T")
log = structlog.get_logger(__name__)

WAL_RESET_BUG = ((3, 7, 0), (3, 51, 3))
"""The releases of SQLite in which a checkpoint that races a commit may lose it: first affected, first mended."""


Waiting = tuple[WriteTask, "asyncio.Future[Any]", asyncio.AbstractEventLoop]
Outcome = tuple[Waiting, Any, Exception | None]


class Database:
    """The open database of a data directory. ``snapshot_lock`` is held while commits become visible in memory."""

    def __init__(self, path: Path, *, commit_rows_max: int) -> None:
        self.path = path
        self.mark: MarkFile | None = None
        self.snapshot_lock = threading.Lock()
        self.commits = 0
        self.commit_latency = Latency()
        self.failure: str | None = None
        self._listeners: list[Callable[[Any], None]] = []
        self._group_listeners: list[Callable[[Sequence[Any]], None]] = []
        self._commit_rows_max = commit_rows_max
        self._conn = connect(path)
        self._waiting: SimpleQueue[Waiting | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="kalam-writer", daemon=True)
        self._readers = threading.local()
        self._opened: list[sqlite3.Connection] = []
        self._counted = False
        self._closing = False

    def add_listener(self, listener: Callable[[Any], None]) -> None:
        """Have somebody told, on the loop, of each announcement of what was committed, in order, before its sender."""
        self._listeners.append(listener)

    def add_group_listener(self, listener: Callable[[Sequence[Any]], None]) -> None:
        """The same, but first of all and with one call for all that was committed together."""
        self._group_listeners.append(listener)

    def begin(self, data_id: str, generation: int, *, after_loss: bool = False) -> None:
        """Begin a generation, before ``start``; blocking. ``after_loss`` says that the catalogue is an older one."""
        if after_loss:
            skip_ids(self._conn)

        def counted() -> None:
            self._counted = True

        self.mark = begin(self._conn, self.path, data_id, generation, counted)

    def start(self) -> None:
        """Begin to take tasks."""
        self._thread.start()

    def close(self) -> None:
        """Finish the tasks that wait, checkpoint, and close: then the database file alone is whole."""
        self._closing = True
        self._waiting.put(None)
        if self._thread.is_alive():
            self._thread.join()
        while self._opened:  # while one is open SQLite keeps its log
            self._opened.pop().close()
        self._checkpoint()
        self._conn.close()
        if self.mark is not None:
            self.mark.close()

    def _checkpoint(self) -> None:
        """Bring everything from SQLite's log into the database file."""
        try:
            busy = self._conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        except sqlite3.Error as exc:  # a full disk; nothing is lost, the log has it
            log.warning("the log of kalam.db stays: the checkpoint failed", error=str(exc))
        else:
            if busy:
                log.warning("the log of kalam.db stays: another process reads it")

    @property
    def queued(self) -> int:
        """How many tasks wait for their turn."""
        return self._waiting.qsize()

    def submit(self, task: WriteTask) -> asyncio.Future[Any]:
        """Queue a task; the future resolves after its commit, or fails with the error that refused it."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        if self._closing:
            future.set_exception(Unavailable("the server is shutting down"))
            return future
        self._waiting.put((with_alongside(task), future, loop))
        return future

    async def write(
        self, function: Callable[[sqlite3.Connection], T], committed: Callable[[], None] | None = None
    ) -> T:
        """Run a function on the writing connection, in a transaction, and return its result after the commit."""
        result: T = await self.submit(Work(function, committed))
        return result

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A read-only connection of this thread, inside one read transaction."""
        conn: sqlite3.Connection | None = getattr(self._readers, "conn", None)
        if conn is None:
            conn = self._readers.conn = self._connect_reader()
            self._opened.append(conn)
        conn.execute("BEGIN")
        try:
            yield conn
        except sqlite3.OperationalError as exc:  # SQLite, too, wants room beside its log to read it
            raise (out_of_files(exc) or StorageFull(f"the data directory cannot be read: {exc}")) from exc
        finally:
            if conn.in_transaction:
                conn.execute("ROLLBACK")

    def _connect_reader(self) -> sqlite3.Connection:
        try:
            return connect(self.path, read_only=True)
        except sqlite3.OperationalError as exc:
            raise (out_of_files(exc) or storage_error(exc)) from exc

    def _run(self) -> None:
        while (first := self._waiting.get()) is not None:
            group = [first]
            last = self._fill_group(group)
            self._commit_group(group)
            if last:
                return

    def _fill_group(self, group: list[Waiting]) -> bool:
        """Add what waits, up to the bound; whether the end of all tasks was among it."""
        rows = group[0][0].cost
        with suppress(Empty):
            while rows < self._commit_rows_max:
                waiting = self._waiting.get_nowait()
                if waiting is None:
                    return True
                group.append(waiting)
                rows += waiting[0].cost
        return False

    def _commit_group(self, group: list[Waiting]) -> None:
        outcomes: list[Outcome] = []
        applied: list[WriteTask] = []
        announcements: list[Any] = []
        changes_before = self._conn.total_changes
        try:
            self._conn.execute("BEGIN IMMEDIATE")
            for waiting in group:
                applied.append(waiting[0])  # first: one that fails in its middle has memory to undo, too
                try:
                    result = waiting[0].apply(self._conn)
                except KalamError as exc:
                    applied.pop()
                    outcomes.append((waiting, None, exc))
                    continue
                outcomes.append((waiting, result, None))
            wrote = self._conn.total_changes != changes_before
            if wrote and self.mark is not None:  # one that only read needs no room on the disk
                self.mark.number_log(self._conn)
            crash_point("commit.before")
            self._commit()
            crash_point("commit.after")
        except Exception as exc:  # noqa: BLE001 - whatever it was, the group is undone and its senders are told
            self._roll_back(applied)
            if len(group) > 1:  # one of them may be at fault: judge each alone
                for waiting in group:
                    self._commit_group([waiting])
                return
            error = self._failed(exc)
            outcomes = [(waiting, None, error) for waiting in group]
        else:
            self.commits += 1
            with self.snapshot_lock:
                for task in applied:
                    task.committed()
                    announcements += task.announcements()
            if wrote:  # one that wrote nothing proves nothing of the disk
                self.failure = None
                self._note(announcements)
        self._tell(outcomes, announcements)

    def _commit(self) -> None:
        started = time.perf_counter()
        try:
            self._conn.execute("COMMIT")
            self.commit_latency.record(time.perf_counter() - started)
        except sqlite3.Error:
            self._bury()
            raise

    def _bury(self) -> None:
        """Put an empty commit in the place of one that failed.

        Where only the fsync failed, its pages stand in SQLite's log, whole, and a crash before the next commit would
        bring back what its senders were told is not stored. What the empty one writes is the number that is there.
        """
        with suppress(sqlite3.Error):  # the disk may refuse this, too; then the write alone has done what it can
            if self._conn.in_transaction:
                self._conn.execute("ROLLBACK")
            [version] = self._conn.execute("PRAGMA user_version").fetchone()
            self._conn.execute(f"PRAGMA user_version = {version}")

    def _note(self, announcements: Sequence[Any]) -> None:
        """Note in the second place what was committed."""
        if self.mark is not None:
            counted, self._counted = self._counted, False
            last = announcements[-1] if announcements else None
            change = (last.copy.copy_id, last.chunk.last_seq) if last else None
            self.mark.note(self._conn if counted else None, change)

    def _tell(self, outcomes: Sequence[Outcome], announcements: list[Any]) -> None:
        """Tell the loop, with one call, what was committed and then who may go on."""
        loop = outcomes[0][0][2]
        if not loop.is_closed():
            loop.call_soon_threadsafe(self._resolve, outcomes, announcements)

    def _resolve(self, outcomes: Sequence[Outcome], announcements: list[Any]) -> None:
        for together in self._group_listeners if announcements else ():
            judged("announcements", partial(together, announcements))
        for announcement in announcements:
            for listener in self._listeners:  # what one raises is kept from the others and from the senders
                judged("announcement", partial(listener, announcement))
        for (_, future, _), result, error in outcomes:
            if future.done():
                continue
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)

    def _roll_back(self, applied: Sequence[WriteTask]) -> None:
        if self._conn.in_transaction:
            self._conn.execute("ROLLBACK")
        for task in reversed(applied):
            task.rolled_back()

    def _failed(self, exc: Exception) -> Exception:
        if isinstance(exc, sqlite3.Error):
            self.failure = str(exc)
            log.error("commit failed", error=str(exc))
            return storage_error(exc.with_traceback(None))
        log.error("task failed", exc_info=exc)
        return exc.with_traceback(None)  # or it would hold itself, and with its frames the whole group


def storage_error(exc: Exception) -> KalamError:
    """The error that a user reads for what SQLite or the file system said."""
    said = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)  # without the file's path
    error = StorageFull(f"the data directory cannot be written: {said}; nothing of this request was stored")
    error.__cause__ = exc
    return error


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """Open the database file with the pragmas that its durability rests on."""
    mode = "ro" if read_only else "rwc"
    conn = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=256,
    )
    if read_only:
        conn.execute("PRAGMA query_only=ON")
        return conn
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "secure_delete=OFF", "foreign_keys=ON", "cache_size=-65536"):
        conn.execute(f"PRAGMA {pragma}")
    return conn


def warn_of_engine() -> None:
    """Say in the log when the SQLite in use has the WAL-reset bug (which Kalam's single writer does not meet)."""
    if WAL_RESET_BUG[0] <= sqlite3.sqlite_version_info < WAL_RESET_BUG[1]:
        log.debug(
            "SQLite has the WAL-reset bug; Kalam writes from one connection and is not affected",
            sqlite=sqlite3.sqlite_version,
        )


def probe(conn: sqlite3.Connection) -> None:
    """A write of no consequence, whose commit shows whether the disk takes one."""
    conn.execute("INSERT OR REPLACE INTO meta VALUES ('probed_us', ?)", (str(now_us()),))


def now_us() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1_000


def make_directory(path: Path) -> None:
    """Create a directory, and its parents if need be, so that it survives a power cut."""
    if not path.is_dir():
        make_directory(path.parent)
        path.mkdir(exist_ok=True)
        fsync_directory(path.parent)


def fsync_directory(path: Path) -> None:
    """Make a rename in this directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
