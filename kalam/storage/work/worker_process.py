"""A worker process: takes requests on its standard input, answers on its standard output, ends when the input does.

What holds the interpreter's lock for long (writing Parquet) is done there, so that the server goes on answering. A
message is msgpack behind a length of four bytes. While it works, a worker may send answers that hold only ``progress``;
the last answer of a request holds none.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import sqlite3
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any, BinaryIO, TypeVar

import msgspec

from kalam.errors import Internal, StorageFull
from kalam.threads import Purpose, in_thread

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


class _Child:
    """A process that runs, with its input and output, which are one socket."""

    def __init__(
        self, process: subprocess.Popen[bytes], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.process, self.reader, self.writer = process, reader, writer

    @classmethod
    async def of(cls, module: str) -> _Child:
        """Start one.

        Not by the loop, which forks all of the server's memory: that takes 7 ms of processor time, in one piece.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            starting = asyncio.ensure_future(in_thread(Purpose.FILES, _launch, module, theirs.fileno()))
            try:
                process = await asyncio.shield(starting)
            except asyncio.CancelledError:
                ours.close()
                await _reap(await starting)
                raise
            except BaseException:
                ours.close()
                raise
        ours.setblocking(False)
        return cls(process, *await asyncio.open_unix_connection(sock=ours))

    async def end(self) -> int:
        """Kill the process if it has not ended, and return its status."""
        self.writer.close()
        return await _reap(self.process)


def _launch(module: str, standard: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 - our own module
        [sys.executable, "-m", "kalam.storage.work.worker_main", module],
        stdin=standard,
        stdout=standard,
        start_new_session=True,
    )


async def _reap(process: subprocess.Popen[bytes]) -> int:
    process.kill()  # nothing if it is gone
    return await in_thread(Purpose.FILES, process.wait)


class WorkerProcess:
    """A process that runs ``module``: started with the first request, stopped when it was idle for a while."""

    def __init__(self, module: str, idle_s: float) -> None:
        self._module, self._idle_s = module, idle_s
        self._lock = asyncio.Lock()
        self._child: _Child | None = None
        self._used_at = 0.0

    async def run(
        self, request: msgspec.Struct, answer_type: type[A], on_progress: Callable[[int], None] = lambda rows: None
    ) -> A:
        """Have the process carry out one request; raises StorageFull for a failing disk, Internal for other failures.

        Cancelled, it kills the process: what that wrote and nobody renamed is of no account.
        """
        async with self._lock:
            child = await self._running()
            message = msgspec.msgpack.encode(request)
            try:
                child.writer.write(len(message).to_bytes(4, "big") + message)
                await child.writer.drain()
                while (answer := await _answer(child, answer_type)).progress is not None:
                    on_progress(answer.progress)
            except (asyncio.IncompleteReadError, ConnectionError) as exc:
                self._child = None
                raise Internal(f"the process {self._module} ended with status {await child.end()}") from exc
            except asyncio.CancelledError:
                self._child = None
                await child.end()
                raise
            self._used_at = time.monotonic()
        if answer.error is not None:
            raise (StorageFull if answer.disk_failed else Internal)(f"writing segments failed: {answer.error}")
        return answer

    async def _running(self) -> _Child:
        if self._child is not None and self._child.process.poll() is not None:
            await self.stop()
        if self._child is None:
            self._child = await _Child.of(self._module)
        return self._child

    async def stop_if_idle(self) -> None:
        """Stop the process if nobody needed it for the idle time."""
        if self._child is not None and not self._lock.locked() and time.monotonic() - self._used_at > self._idle_s:
            await self.stop()

    async def stop(self) -> None:
        """Stop the process, which loses nothing: what it wrote and nobody renamed is removed at the next start."""
        child, self._child = self._child, None
        if child is not None:
            await child.end()


async def _answer(child: _Child, answer_type: type[A]) -> A:
    head = await child.reader.readexactly(4)
    body = await child.reader.readexactly(int.from_bytes(head, "big"))
    return msgspec.msgpack.decode(body, type=answer_type)


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
