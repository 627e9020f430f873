"""A query process of its own for one purpose: asked one question after another, from threads, within a bound of time.

Whoever asks too much of it, in time or in memory, ends it; the next question starts another one, which knows nothing of
what was told before. By ``generation`` that is seen.
"""

from __future__ import annotations

import asyncio
import socket

import structlog

from kalam.errors import Internal, Timeout
from kalam.query.forks import Fork, Forks
from kalam.query.wire import FAILURES, HEAD, Frame, Question, question_message, receive_exactly
from kalam.query.workers import error_of

log = structlog.get_logger(__name__)


class LoneWorker:
    """The process, made when there is something to ask. ``ask`` is for threads, one at a time."""

    def __init__(self, forks: Forks, time_s: float, what: str) -> None:
        self._forks, self._time_s, self._what = forks, time_s, what
        self._loop: asyncio.AbstractEventLoop | None = None
        self._fork: Fork | None = None
        self.generation = 0

    def open(self) -> None:
        """Take note of the event loop's thread, in which processes are made."""
        self._loop = asyncio.get_running_loop()

    def ready(self) -> int:
        """Have a process; the number of it."""
        if self._fork is None or self._fork.ended.done():
            self._begin()
        return self.generation

    def ask(self, question: Question) -> bytes:
        """The body of the answer; raises the failure that it is, and what became of the process."""
        self.ready()
        fork = self._fork
        assert fork is not None
        try:
            fork.questions.sendall(question_message(question))
            head = receive_exactly(fork.answers, HEAD.size)
            kind, size = HEAD.unpack(head) if head else (b"", 0)
            body = receive_exactly(fork.answers, size) if head else None
        except TimeoutError as exc:
            self.end()
            raise Timeout(f"the {self._what} takes longer than {self._time_s:g} s") from exc
        except OSError:
            body = None
        if body is None:
            said = fork.said()
            self.end()
            log.error("a process of the server's own ended", computed=self._what, said=said)
            raise Internal(f"the process that computes each {self._what} ended; the server's log has the reason")
        if Frame(kind) is Frame.FAILURE:
            raise error_of(FAILURES.decode(body))
        return body

    def _begin(self) -> None:
        assert self._loop is not None
        self.end()
        fork = self._fork = asyncio.run_coroutine_threadsafe(self._forks.fork(), self._loop).result()
        self.generation += 1
        for sock in (fork.questions, fork.answers):
            self._bound(sock)

    def _bound(self, sock: socket.socket) -> None:
        sock.settimeout(self._time_s)

    def end(self) -> None:
        """End the process."""
        fork, self._fork = self._fork, None
        if fork is not None:
            fork.kill()
            fork.close()
            fork.answers.close()
