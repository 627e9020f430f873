"""A worker process: takes requests on its standard input, answers on its standard output, ends when the input does.

What holds the interpreter's lock for long (writing Parquet) is done there, so that the server goes on answering. A
message is msgpack behind a length of four bytes. While it works, a worker may send answers that hold only ``progress``;
the last answer of a request holds none.
"""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any, BinaryIO, TypeVar

import msgspec

from kalam.errors import Internal, StorageFull

GC_OBJECTS = 200_000
"""New objects after which a worker looks for cycles: rows have none, and the look takes as long as their decoding."""


DISK_FAILURES = (OSError, sqlite3.OperationalError)
"""What a full or failing disk raises; SQLite, too, wants room beside its log to read it."""


class WorkerAnswer(msgspec.Struct, kw_only=True):
    """What every answer has: an ``error``, or the rows done so far where more answers follow.

    ``disk_failed`` is set with an error for which the file system is to blame.
    """

    error: str | None = None
    disk_failed: bool = False
    progress: int | None = None


A = TypeVar("A", bound=WorkerAnswer)


class WorkerProcess:
    """A process that runs ``module``: started with the first request, stopped when it was idle for a while."""

    def __init__(self, module: str, idle_s: float) -> None:
        self._module, self._idle_s = module, idle_s
        self._lock = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
        self._used_at = 0.0

    async def run(
        self, request: msgspec.Struct, answer_type: type[A], on_progress: Callable[[int], None] = lambda rows: None
    ) -> A:
        """Have the process carry out one request; raises StorageFull for a failing disk, Internal for other failures.

        Cancelled, it kills the process: what that wrote and nobody renamed is of no account.
        """
        async with self._lock:
            process = await self._running()
            assert process.stdin is not None
            message = msgspec.msgpack.encode(request)
            try:
                process.stdin.write(len(message).to_bytes(4, "big") + message)
                await process.stdin.drain()
                while (answer := await self._answer(process, answer_type)).progress is not None:
                    on_progress(answer.progress)
            except (asyncio.IncompleteReadError, ConnectionError) as exc:
                self._process = None
                raise Internal(f"the process {self._module} ended with status {await process.wait()}") from exc
            except asyncio.CancelledError:
                self._process = None
                with suppress(ProcessLookupError):
                    process.kill()
                raise
            self._used_at = time.monotonic()
        if answer.error is not None:
            raise (StorageFull if answer.disk_failed else Internal)(f"writing segments failed: {answer.error}")
        return answer

    async def _answer(self, process: asyncio.subprocess.Process, answer_type: type[A]) -> A:
        assert process.stdout is not None
        head = await process.stdout.readexactly(4)
        body = await process.stdout.readexactly(int.from_bytes(head, "big"))
        return msgspec.msgpack.decode(body, type=answer_type)

    async def _running(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "kalam.storage.work.worker_main",
                self._module,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
        return self._process

    async def stop_if_idle(self) -> None:
        """Stop the process if nobody needed it for the idle time."""
        if self._process is not None and not self._lock.locked() and time.monotonic() - self._used_at > self._idle_s:
            await self.stop()

    async def stop(self) -> None:
        """Stop the process, which loses nothing: what it wrote and nobody renamed is removed at the next start."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def read_frame(stream: BinaryIO) -> bytes | None:
    """The next message, or None at the end of the stream."""
    head = stream.read(4)
    return stream.read(int.from_bytes(head, "big")) if len(head) == 4 else None


def write_frame(stream: BinaryIO, message: bytes) -> None:
    """Send a message."""
    stream.write(len(message).to_bytes(4, "big") + message)
    stream.flush()


def serve_requests(
    request_type: Any, work: Callable[[Any, Callable[[int], None]], WorkerAnswer], answer_type: type[WorkerAnswer]
) -> None:
    """The life of a worker: answer requests until the input ends. ``work`` gets a request and tells its progress."""
    gc.set_threshold(GC_OBJECTS)
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr  # nothing that a library prints may get between the answers

    def tell(rows: int) -> None:
        write_frame(answers, msgspec.msgpack.encode(answer_type(progress=rows)))

    while (message := read_frame(requests)) is not None:
        try:
            answer = work(msgspec.msgpack.decode(message, type=request_type), tell)
        except Exception as exc:  # noqa: BLE001 - the server logs it and marks the job failed
            with suppress(OSError):  # the log may lie on the disk that is full
                traceback.print_exc()
            said = exc.strerror if isinstance(exc, OSError) and exc.strerror else exc  # without the file's path
            answer = answer_type(error=f"{type(exc).__name__}: {said}", disk_failed=isinstance(exc, DISK_FAILURES))
        write_frame(answers, msgspec.msgpack.encode(answer))
