"""Forks workers and tells how they end."""

from __future__ import annotations

import gc
import os
import select
import signal
import socket

import msgspec

from kalam.query.worker.ending import end_with_parent
from kalam.query.worker.limits import Limits, bind_process
from kalam.query.worker.serving import Worker

_ENCODER = msgspec.msgpack.Encoder()


class ForkServer:
    """Takes the sockets of new workers on ``control``; each message there is one fork, or the end."""

    def __init__(self, control: socket.socket, limits: Limits) -> None:
        self._control, self._limits = control, limits
        self._workers: set[int] = set()

    def run(self) -> None:
        """Fork until the server is gone."""
        gc.collect()
        gc.freeze()  # a collection in a worker would copy every page that it shares
        wake, waker = os.pipe()
        for end in (wake, waker):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._tell("ready", os.getpid())
        try:
            while self._step(wake):
                pass
        finally:
            for worker in self._workers:
                os.kill(worker, signal.SIGKILL)

    def _step(self, wake: int) -> bool:
        control = self._control.fileno()
        ready, _, _ = select.select([control, wake], [], [])
        if wake in ready:
            os.read(wake, 4096)
        self._reap()
        if control not in ready:
            return True
        message, files, _, _ = socket.recv_fds(self._control, 1, 3)
        if not message:
            return False
        self._fork(files)
        return True

    def _fork(self, files: list[int]) -> None:
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._be_worker(parent, *files)
        for file in files:
            os.close(file)
        self._workers.add(pid)
        self._tell("forked", pid)

    def _be_worker(self, parent: int, questions: int, answers: int, errors: int) -> None:
        status = 1
        try:
            end_with_parent(parent, "kalam-query")
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._control.close()
            os.dup2(errors, 2)
            worker = Worker(socket.socket(fileno=answers), self._limits)
            worker.warm()
            bind_process(self._limits)
            worker.serve(socket.socket(fileno=questions))
            status = 0
        finally:
            os._exit(status)

    def _reap(self) -> None:
        while self._workers:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            self._workers.discard(pid)
            self._tell("ended", pid, os.waitstatus_to_exitcode(status))

    def _tell(self, what: str, pid: int, status: int = 0) -> None:
        message = _ENCODER.encode((what, pid, status))
        self._control.sendall(bytes((len(message),)) + message)
