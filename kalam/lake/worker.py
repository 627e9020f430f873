"""The process that makes the lake; its whole life is ``main``. pyiceberg is imported here and nowhere else.

It reads ``kalam.db`` itself, by a connection that cannot write, so that no insert and no flush has to do with it.
"""

from __future__ import annotations

import os
import traceback
from contextlib import suppress
from pathlib import Path

import msgspec

from kalam.errors import TableNotFound
from kalam.lake.folder import LakeFolder
from kalam.lake.state import Head
from kalam.storage.log.database import connect
from kalam.storage.log.table_rows import read_tables
from kalam.storage.segments.folders import Folders
from kalam.storage.work.worker_process import DISK_FAILURES, WorkerAnswer, serve_requests

TRIES_MAX = 5
NICENESS = 10
"""How far the process steps back for others: nobody waits for it."""


class LakeRequest(msgspec.Struct, kw_only=True):
    """Bring the lake of a table to its last flush, and let go of snapshots that are older than ``kept_us``.

    ``thoroughly`` compares all files with what was written.
    """

    database: str
    data_dir: str
    data_id: str
    cache_bytes_max: int
    table_id: int
    kept_us: int
    thoroughly: bool


class LakeAnswer(WorkerAnswer, kw_only=True):
    """The head of the new state; or the segments by user that have to be written again first; or what is wrong.

    ``marked`` is the number of the newest replaced segment that is named no more. A table that is gone has no head.
    """

    head: Head | None = None
    waiting: dict[str, list[int]] = msgspec.field(default_factory=dict)
    marked: int = 0
    fault: str | None = None


def main() -> None:
    """Answer requests until the input ends, behind whoever else wants the processor."""
    os.nice(NICENESS)
    serve_requests(LakeRequest, lambda request, tell: commit(request), LakeAnswer)


def commit(request: LakeRequest) -> LakeAnswer:
    """Commit; what goes wrong is told, not raised, for it is this table's."""
    try:
        return _commit(request)
    except ImportError as exc:
        return LakeAnswer(fault=f"the lake needs pyiceberg, which cannot be imported ({exc}): pip install pyiceberg")
    except Exception as exc:  # noqa: BLE001 - the server tells it in SHOW LAKE and tries again
        with suppress(OSError):  # the log may lie on the disk that is full
            traceback.print_exc()
        said = exc.strerror if isinstance(exc, OSError) and exc.strerror else exc  # without the file's path
        disk_failed = isinstance(exc, DISK_FAILURES) and not isinstance(exc, FileNotFoundError)
        return LakeAnswer(fault=f"{type(exc).__name__}: {said}", disk_failed=disk_failed)


def _commit(request: LakeRequest) -> LakeAnswer:
    from kalam.lake.commit import Committer

    folders = Folders(Path(request.data_dir), request.data_id, request.cache_bytes_max)
    conn = connect(Path(request.database), read_only=True)
    try:
        for left in reversed(range(TRIES_MAX)):
            table = next((table for table in read_tables(conn) if table.table_id == request.table_id), None)
            if table is None:
                return LakeAnswer()
            committer = Committer(conn, folders, request.table_id, request.kept_us)
            folder = LakeFolder.of(folders, table)
            try:
                with folder.held():
                    done = committer.commit(folder, table, thoroughly=request.thoroughly)
            except TableNotFound:
                return LakeAnswer()
            except FileNotFoundError:  # a compaction replaced what was being looked at
                if not left:
                    raise
                continue
            return LakeAnswer(head=done.state.head if done.state else None, waiting=done.waiting, marked=done.marked)
    finally:
        conn.close()
    raise AssertionError("unreachable")
