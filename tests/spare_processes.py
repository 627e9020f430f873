"""Processes that a warm server has in reserve: what it would start with ``python -m`` is in one of them at once.

A server starts Python anew for its first SELECT, its first flush and its first compaction: half a second to a second of
imports each, the same every time, and of most tests the larger part. So the process that servers are forked from
(``warm_start``) has imported what these import as well, and a fork forks some more of itself before it becomes a
server, while it has one thread. Each waits to be told what to run, and with which files; to the server it is a child
like any other, which it kills and waits for. When none is left, or another program is wanted, Python starts as ever.
``kalam bench`` starts one task after another and has no threads, so each is forked when it is due.
"""

from __future__ import annotations

import fcntl
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Final

SPARES: Final = 3
"""One for the queries, one for the flushes, one for the compactions; each at most once, which is enough for most."""
MODULES: Final = ("kalam.query.worker", "kalam.storage.work.worker_main")
MESSAGE_BYTES: Final = 1 << 17
FILES_MAX: Final = 8
HIGH_FD: Final = 200
"""Where the files that came lie until each has the number that it is to have."""


def import_what_they_import() -> None:
    """As their modules do it, and what they import later."""
    from kalam.imports import TRACEBACKS, without

    with without(TRACEBACKS):
        import kalam.query.worker.forking
        import kalam.storage.segments.parquet_fast
        import kalam.storage.work.compact_worker
        import kalam.storage.work.flush_worker  # noqa: F401


def forget_data_frames() -> None:
    """Be a process in which pandas is not imported, for it is to do without."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "pandas"]:
        del sys.modules[name]


def open_streams() -> None:
    """Have input and output anew: what they are remembers the files that had these numbers before."""
    sys.stdin = sys.__stdin__ = open(0, closefd=False)  # noqa: SIM115 - until the process ends, as are the others
    sys.stdout = sys.__stdout__ = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.__stderr__ = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    for name in ("stdin", "stdout", "stderr"):
        getattr(sys, name).buffer.raw.name = f"<{name}>"


class Spare:
    """A fork of this process that waits to be told what it is."""

    def __init__(self) -> None:
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.pid = os.fork()
        if self.pid == 0:
            os.closerange(3, theirs.fileno())  # what leads to others would keep them waiting for its end
            os.closerange(theirs.fileno() + 1, HIGH_FD)
            become(theirs)
        theirs.close()

    def run(self, command: Sequence[str], files: Mapping[int, int], environment: Mapping[str, str]) -> int:
        """Have it run ``python -m …`` in a session of its own, ``files`` under their numbers there; its process id."""
        request = {"command": [*command], "at": [*files], "environment": {**environment}}
        socket.send_fds(self.control, [json.dumps(request).encode()], [*files.values()])
        self.control.close()
        return self.pid


def become(control: socket.socket) -> None:
    """Wait for what to run, run it and end; end when the server does."""
    status = 1
    try:
        message, files, _, _ = socket.recv_fds(control, MESSAGE_BYTES, FILES_MAX)
        control.close()
        status = run(json.loads(message), files) if message else 0
    except Exception:  # noqa: BLE001 - the edge of a process
        traceback.print_exc()
    finally:
        with suppress(OSError):
            sys.stderr.flush()
        os._exit(status)


def run(request: dict[str, Any], files: list[int]) -> int:
    """What ``python -m`` does with the request; the exit status."""
    os.setsid()
    high = [fcntl.fcntl(file, fcntl.F_DUPFD, HIGH_FD) for file in files]
    for file in files:
        os.close(file)
    for file, number in zip(high, request["at"], strict=True):
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(request["environment"])
    open_streams()
    module, *arguments = request["command"]
    if module == "kalam.query.worker":
        forget_data_frames()
    Path("/proc/self/comm").write_text(arguments[0].rpartition(".")[2][:15])  # by which tests find it
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as exc:
        return exc.code if isinstance(exc.code, int) else int(exc.code is not None)
    return 0


# The server's side

spares: list[Spare] = []


def keep_spares() -> None:
    """Fork them, and have this process's ``Popen`` take them."""
    while len(spares) < SPARES:
        spares.append(Spare())
    take_spares()


def take_spares() -> None:
    """Have this process's ``Popen`` take what there is for a command."""
    subprocess.Popen = Popen  # type: ignore[misc]


def taken(command: Sequence[Any]) -> Spare | None:
    """A spare process, if there is one for this command; for a task of the bench, which has no threads, a new one."""
    match command:
        case [sys.executable, "-m", module, *_] if module in MODULES and spares:
            return spares.pop()
        case [sys.executable, "-m", module, *_] if module.startswith("kalam.bench."):
            return Spare()
    return None


class Adopted:
    """A child as ``subprocess.Popen`` has it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def wait(self) -> int:
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.returncode

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def kill(self) -> None:
        if self.returncode is None:
            os.kill(self.pid, signal.SIGKILL)


class AdoptedOnPipes(Adopted):
    """A child with pipes as its input and output."""

    def __init__(self, spare: Spare, command: Sequence[Any], errors: BinaryIO) -> None:
        (read_in, write_in), (read_out, write_out) = os.pipe(), os.pipe()
        super().__init__(spare.run(command[2:], {0: read_in, 1: write_out, 2: errors.fileno()}, os.environ))
        os.close(read_in)
        os.close(write_out)
        self.stdin, self.stdout = os.fdopen(write_in, "wb"), os.fdopen(read_out, "rb")


class Popen(subprocess.Popen):  # type: ignore[type-arg]
    """Takes a spare process where there is one for the command."""

    def __new__(cls, command: Sequence[Any], **options: Any) -> Any:
        spare = taken(command)
        if spare is None:
            return super().__new__(cls)
        if options.get("stdin") == subprocess.PIPE:
            return AdoptedOnPipes(spare, command, options["stderr"])
        if "pass_fds" not in options:
            return Adopted(spare.run(command[2:], {0: options["stdin"], 1: options["stdout"]}, os.environ))
        numbers = options["pass_fds"]
        with Path(os.devnull).open("r+b") as nothing:
            files = {0: nothing.fileno(), 1: nothing.fileno(), **{number: number for number in numbers}}
            return Adopted(spare.run(command[2:], files, options["env"]))
