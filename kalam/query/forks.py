"""The process that workers are forked from, seen from the server: started when the first worker is wanted."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import msgspec
import structlog

from kalam.errors import Internal
from kalam.query.wire import files_message
from kalam.query.worker.limits import Limits

log = structlog.get_logger(__name__)

START_S = 60.0
_DECODER = msgspec.msgpack.Decoder(tuple[str, int, int])
_ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",  # numpy starts threads otherwise, and a process with threads is not forked
    "MIMALLOC_ARENA_EAGER_COMMIT": "0",  # what is reserved and not used is no memory
    "MIMALLOC_SHOW_ERRORS": "1",  # says on standard error that there was no memory, after which the process ends
}


class Fork:
    """A worker process: its sockets, what it wrote to standard error, and its end."""

    def __init__(self, pid: int, questions: socket.socket, answers: socket.socket, errors: BinaryIO) -> None:
        self.pid, self.questions, self.answers = pid, questions, answers
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._errors = errors
        self.killed = False

    def kill(self) -> None:
        """End it, whatever it does."""
        self.killed = True
        if not self.ended.done():
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Close what leads to it, but for its answers, which their reader closes."""
        self.questions.close()
        self._errors.close()

    def discard(self) -> None:
        """End it before anybody has spoken to it."""
        self.kill()
        self.close()
        self.answers.close()

    def said(self) -> str:
        """The end of what it wrote to standard error."""
        self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, self._errors.tell() - 4096))
        return self._errors.read().decode("utf-8", "replace")


class Forks:
    """Asks the fork server for workers and takes note of their ends."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._listening: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()
        self._forking = asyncio.Lock()
        self._told: asyncio.Queue[int | None] = asyncio.Queue()
        self._forks: dict[int, Fork] = {}

    async def fork(self) -> Fork:
        """A new worker; raises Internal where there can be none.

        Once it was asked for it is waited for, also when nobody wants it any more: the fork server's answers are told
        apart by their order alone.
        """
        forking = asyncio.ensure_future(self._fork())
        try:
            return await asyncio.shield(forking)
        except asyncio.CancelledError:
            forking.add_done_callback(_discard)
            raise

    async def _start(self) -> None:
        """Start the fork server and wait until it is ready; nothing if it runs."""
        async with self._starting:
            if self._listening is not None and not self._listening.done():
                return
            self._close()
            self._told = asyncio.Queue()
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            self._control = ours
            with theirs:
                self._process = self._launch(theirs)
            self._listening = asyncio.create_task(self._listen(ours), name="forks")
            await self._hear()

    def _launch(self, control: socket.socket) -> subprocess.Popen[bytes]:
        limits = msgspec.json.encode(self._limits).decode()
        return subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", "kalam.query.worker", str(control.fileno()), str(os.getpid()), limits],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[control.fileno()],
            start_new_session=True,
            env={**os.environ, **_ENVIRONMENT, "TOKIO_WORKER_THREADS": str(self._limits.partitions)},
        )

    async def _fork(self) -> Fork:
        await self._start()
        async with self._forking:
            return await self._fork_in_turn()

    async def _fork_in_turn(self) -> Fork:
        assert self._control is not None
        questions, their_questions = socket.socketpair()
        answers, their_answers = socket.socketpair()
        errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the worker
        with their_questions, their_answers:
            files = (their_questions.fileno(), their_answers.fileno(), errors.fileno())
            try:
                self._control.sendmsg(*files_message(files))
                pid = await self._hear()
            except OSError as exc:
                raise Internal(f"no query process can be started: {exc.strerror}") from exc
        questions.setblocking(False)
        answers.setblocking(False)
        fork = self._forks[pid] = Fork(pid, questions, answers, errors)
        return fork

    async def _hear(self) -> int:
        """The process id that the fork server tells next."""
        try:
            async with asyncio.timeout(START_S):
                pid = await self._told.get()
        except TimeoutError as exc:
            if self._process is not None:
                self._process.kill()  # what it said later would be taken for the answer to another question
            raise Internal("the process that starts query processes does not answer") from exc
        if pid is None:
            raise Internal("the process that starts query processes has ended; the next query starts another")
        return pid

    async def _listen(self, control: socket.socket) -> None:
        """Take what the fork server tells, until it ends."""
        loop = asyncio.get_running_loop()
        pending = b""
        try:
            while more := await loop.sock_recv(control, 4096):
                pending += more
                while pending and len(pending) > pending[0]:
                    message, pending = pending[1 : pending[0] + 1], pending[pending[0] + 1 :]
                    self._take(*_DECODER.decode(message))
        except OSError as exc:
            log.debug("the control socket broke", error=str(exc))
        self._told.put_nowait(None)
        for fork in self._forks.values():  # they end with the process that they were forked from
            if not fork.ended.done():
                fork.ended.set_result(-signal.SIGKILL)
        self._forks.clear()

    def _take(self, what: str, pid: int, status: int) -> None:
        if what != "ended":
            self._told.put_nowait(pid)
            return
        fork = self._forks.pop(pid, None)
        if fork is not None and not fork.ended.done():
            fork.ended.set_result(status)

    def _close(self) -> None:
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._control = self._process = None

    async def stop(self) -> None:
        """End the fork server and every worker."""
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)
        self._close()


def _discard(forking: asyncio.Future[Fork]) -> None:
    """End a worker that nobody waits for any more."""
    if not forking.cancelled() and forking.exception() is None:
        forking.result().discard()


def oom_kills() -> int:
    """How often the kernel has ended a process for want of memory; 0 where it does not say."""
    with suppress(OSError, ValueError, IndexError):
        text = Path("/proc/vmstat").read_text()
        return int(text.split("\noom_kill ")[1].split()[0])
    return 0
