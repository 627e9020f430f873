"""Servers and commands that start out of a process in which everything is imported already.

Python's imports are most of a start, and the same for every server: with a thousand of them they were most of the
tests' time. So each process of tests has one that has imported what ``kalam`` imports and is forked for every server,
and for the commands of which a test only wants to know what they say. The fork runs the command as the command line
does, with its own arguments, environment, files and exit; so do the processes that a server starts
(``spare_processes``). At its end it leaves out what Python takes down after the last exit handler: that it has in
common with the others, and to copy it was most of an end. That the start from nothing works as well is seen by the
tests that run ``python -m kalam`` themselves or start a server with ``KALAM_COLD_STARTS=1``, and by all of them where
that is in the environment.
"""

from __future__ import annotations

import atexit
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

import spare_processes

START_S: Final = 120.0
COMMAND_S: Final = 120.0
MESSAGE_BYTES: Final = 1 << 17
READ_AT_THE_START: Final = (
    "PYTHON",
    "LD_",
    "MALLOC_",
    "GLIBC_",
    "ARROW_",
    "FSSPEC_",
    "OPENBLAS_",
    "OMP_",
    "OTEL_",
    "NATS_URL",
)
"""Variables that a process or its libraries read once, when they begin."""
ENVIRONMENT: Final = {"OPENBLAS_NUM_THREADS": "1", "MIMALLOC_ARENA_EAGER_COMMIT": "0", "MIMALLOC_SHOW_ERRORS": "1"}
"""What the process from which queries' workers are forked begins with (``kalam.query.forks``)."""

FOR_SERVERS: Final = (
    *("kalam.server", "kalam_http", "kalam.rows.formats.csv_text", "kalam.rows.formats.json_text", "kalam.sql_words"),
    *("anyio", "h11", "logging.config", "opentelemetry.trace", "uvloop"),
)
FOR_COMMANDS: Final = (
    *("kalam.cli.copy_progress", "kalam.cli.doctor.running", "kalam.cli.doctor.segments", "kalam.cli.http"),
    *("kalam.cli.loading.insert_progress", "kalam.cli.loading.row_sender", "kalam.cli.shell.server", "kalam.client"),
    *("kalam.query.row_text", "kalam.rows.formats.batches", "pyarrow.parquet", "rich.console", "rich.table"),
)


class Process(Protocol):
    """What a test does with a server's process: the part of ``subprocess.Popen`` that there is for a fork as well."""

    pid: int
    returncode: int | None

    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, sig: int) -> None: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...


class Forked:
    """A process that the importing one has forked and waits for."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self.ended = threading.Event()

    def poll(self) -> int | None:
        """Its exit status, minus the signal that ended it; None while it runs."""
        return self.returncode if self.ended.is_set() else None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; raises ``subprocess.TimeoutExpired``."""
        if not self.ended.wait(timeout):
            assert timeout is not None
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, sig: int) -> None:
        """Nothing if it has ended."""
        if not self.ended.is_set():
            with suppress(ProcessLookupError):
                os.kill(self.pid, sig)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class WarmStart:
    """The importing process, seen from the tests; it ends with them."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env={**os.environ, **ENVIRONMENT},
            )
        self._one_at_a_time = threading.Lock()
        self._told: queue.Queue[Forked | None] = queue.Queue()
        self._forks: dict[int, Forked] = {}
        threading.Thread(target=self._listen, name="warm starts", daemon=True).start()
        atexit.register(self.end)

    def start(
        self, arguments: Sequence[str], environment: Mapping[str, str], files: Sequence[int], folder: Path
    ) -> Forked:
        """Run ``kalam`` with these arguments in a fork; ``files`` are its input, its output and that for errors."""
        request = json.dumps({"arguments": [*arguments], "environment": {**environment}, "folder": str(folder)})
        with self._one_at_a_time:
            socket.send_fds(self._control, [request.encode()], [*files])
            fork = self._told.get(timeout=START_S)
        assert fork is not None, "the process that servers are forked from has ended"
        return fork

    def _listen(self) -> None:
        while message := self._control.recv(MESSAGE_BYTES):
            told = json.loads(message)
            if "status" in told:
                fork = self._forks.pop(told["pid"])
                fork.returncode = told["status"]
                fork.ended.set()
            else:
                fork = self._forks[told["pid"]] = Forked(told["pid"])
                self._told.put(fork)
        self._told.put(None)

    def end(self) -> None:
        with suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)
        self._process.wait(START_S)


_warm_start: WarmStart | None = None


def start_kalam_process(arguments: Sequence[str], environment: Mapping[str, str], log: BinaryIO) -> Process:
    """Run ``kalam`` with these arguments; ``environment`` is added to this process's own.

    From nothing, if ``KALAM_COLD_STARTS`` is in one of them.
    """
    whole = {**os.environ, **environment}
    may_be = may_be_warm(arguments, environment)
    whole.pop("KALAM_COLD_STARTS", None)
    if not may_be:
        return subprocess.Popen([sys.executable, "-m", "kalam", *arguments], stdout=log, stderr=log, env=whole)
    with Path(os.devnull).open("rb") as nothing:
        return warm_start().start(arguments, whole, (nothing.fileno(), log.fileno(), log.fileno()), Path.cwd())


def run_kalam(*arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``kalam`` with these arguments to its end, in a fork if that may be; ``environment`` is added to our own."""
    whole = {**os.environ, **environment}
    if may_be_warm(arguments, environment):
        status, out, err = run_kalam_command(arguments, whole, Path.cwd(), stdin.encode(), COMMAND_S)
        return subprocess.CompletedProcess(arguments, status, out.decode(), err.decode())
    command = [sys.executable, "-m", "kalam", *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=COMMAND_S, env=whole)


def run_kalam_command(
    arguments: Sequence[str], environment: Mapping[str, str], folder: Path, stdin: bytes, timeout: float
) -> tuple[int, bytes, bytes]:
    """Run ``kalam`` with these arguments in this environment to its end; its status and what it wrote to two pipes.

    It is a fork that has imported already what commands import.
    """
    (read_in, write_in), (read_out, write_out), (read_errors, write_errors) = os.pipe(), os.pipe(), os.pipe()
    files = (read_in, write_out, write_errors)
    try:
        process = warm_start().start(arguments, environment, files, folder)
    finally:
        for file in files:
            os.close(file)
    with ThreadPoolExecutor(3) as pool:
        out, errors = (pool.submit(_read_all, file) for file in (read_out, read_errors))
        pool.submit(_write_all, write_in, stdin)
        try:
            return process.wait(timeout), out.result(timeout), errors.result(timeout)
        finally:
            process.kill()


def _read_all(file: int) -> bytes:
    with open(file, "rb") as stream:
        return stream.read()


def _write_all(file: int, data: bytes) -> None:
    with suppress(BrokenPipeError), open(file, "wb") as stream:
        stream.write(data)


def warm_start() -> WarmStart:
    """The one of this process, begun when the first wants it."""
    global _warm_start  # noqa: PLW0603 - one for all tests of this process
    if _warm_start is None:
        _warm_start = WarmStart()
    return _warm_start


def may_be_warm(arguments: Sequence[str], environment: Mapping[str, str]) -> bool:
    """False where what is imported, or how a library begins, depends on what the process is told; or it shall be so."""
    if os.environ.get("KALAM_COLD_STARTS") or environment.get("KALAM_COLD_STARTS"):
        return False
    told = [*arguments, *environment.values()]
    return not any(name.startswith(READ_AT_THE_START) for name in environment) and not any(
        "ws://" in text or "wss://" in text or "context" in text for text in told
    )


# The importing process


def import_what_a_server_imports() -> None:
    """As ``kalam.cli.serve`` does it, and what a server imports later."""
    from kalam.allocator import choose_allocator
    from kalam.cli import main, serve  # noqa: F401
    from kalam.imports import DATA_FRAMES, TRACEBACKS, WEBSOCKETS, without

    choose_allocator()
    with without(DATA_FRAMES, TRACEBACKS, WEBSOCKETS):
        for name in FOR_SERVERS:
            import_module(name)
        from kalam.sql.queries.readers import import_readers
        from kalam.storage.log.migrate import import_sqlite_utils

        import_readers()
        import_sqlite_utils()


def import_what_commands_import() -> None:
    """The libraries, and of Kalam what is theirs alone."""
    for name in FOR_COMMANDS:
        import_module(name)


def serve_forks(control: socket.socket) -> list[str] | None:
    """Fork for each request; in a fork the arguments that it is to run with, None when the tests have ended."""
    import gc
    import select

    hear, tell = socket.socketpair()
    hear.setblocking(False)
    tell.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(tell.fileno())
    gc.collect()
    gc.freeze()
    while True:
        for ready in select.select([control, hear], [], [])[0]:
            if ready is hear:
                hear.recv(4096)
                tell_ends(control)
                continue
            message, files, _, _ = socket.recv_fds(control, MESSAGE_BYTES, 3)
            if not message:
                return None
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for end in (control, hear, tell):
                    end.close()
                return become(json.loads(message), files)
            for file in files:
                os.close(file)
            control.send(json.dumps({"pid": pid}).encode())


def tell_ends(control: socket.socket) -> None:
    with suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            ended: dict[str, Any] = {"pid": pid, "status": os.waitstatus_to_exitcode(status)}
            with suppress(OSError):  # the tests have ended
                control.send(json.dumps(ended).encode())


def become(request: dict[str, Any], files: Sequence[int]) -> list[str]:
    """Take on the folder, the environment, the input and the output of the request."""
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    spare_processes.open_streams()
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    arguments: list[str] = request["arguments"]
    return arguments


exit_status: int | None = None


def leave() -> None:
    """End a fork whose command has ended and whose other exit handlers have run."""
    if exit_status is not None:
        with suppress(OSError):  # of which Python tells
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(exit_status)


if __name__ == "__main__":
    atexit.register(leave)  # before anybody else, so after everybody else
    sys.path[0] = str(Path.cwd())  # as ``python -m kalam`` has it
    import_what_a_server_imports()
    spare_processes.import_what_they_import()
    import_what_commands_import()
    given = serve_forks(socket.socket(fileno=int(sys.argv[1])))
    if given is not None:
        from kalam.__main__ import main

        if given[:1] == ["serve"]:
            spare_processes.keep_spares()
            spare_processes.forget_data_frames()
        elif given[:1] == ["bench"]:
            spare_processes.take_spares()
        sys.argv = ["kalam", *given]
        try:
            main()
        except SystemExit as exc:
            exit_status = exc.code if isinstance(exc.code, int) else int(exc.code is not None)
            raise
