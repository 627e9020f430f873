"""The bench's side of its processes: a module is started with a task, prepares, begins at ``go``, and answers."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

import msgspec

from kalam.cli.failure import CommandFailed

PREPARE_S: Final = 300.0
LOG_LINES_SHOWN: Final = 15
Answer = TypeVar("Answer")


class Process:
    """One process. Use it as a context manager: whatever still runs at its end is killed."""

    def __init__(self, module: str, task: msgspec.Struct, log: Path) -> None:
        self._module = f"kalam.bench.{module}"
        self._log = log
        self._unread = b""
        with log.open("ab") as errors:
            # A session of its own: ^C is for the bench, which then ends its processes in order.
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                [sys.executable, "-m", self._module, msgspec.json.encode(task).decode()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()

    def wait_ready(self, patience_s: float = PREPARE_S) -> None:
        """Wait until it has prepared everything."""
        if self._line(patience_s) != b"ready":
            raise self._failed("could not prepare")

    def go(self) -> None:
        """Let it begin."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(b"go\n")
            self._process.stdin.flush()
        except BrokenPipeError as exc:
            raise self._failed("ended early") from exc

    def stop(self) -> None:
        """Ask one that waits for more than came to answer with what it has."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def answer(self, kind: type[Answer], patience_s: float) -> Answer | None:
        """What it measured; None if it does not answer in time."""
        line = self._line(patience_s)
        if line is None:
            return None
        if not line:
            raise self._failed("ended without an answer")
        return msgspec.json.decode(line, type=kind)

    def result(self, kind: type[Answer], patience_s: float = PREPARE_S) -> Answer:
        """What it measured; raises CommandFailed if it does not answer in time."""
        answer = self.answer(kind, patience_s)
        if answer is None:
            raise self._failed(f"did not finish within {patience_s:g} s")
        return answer

    def _line(self, patience_s: float) -> bytes | None:
        """The next line that it prints, empty at the end of its output, None if nothing comes in time."""
        assert self._process.stdout is not None
        output = self._process.stdout.fileno()
        deadline = time.monotonic() + patience_s
        while b"\n" not in self._unread:
            readable, _, _ = select.select([output], [], [], max(0.0, deadline - time.monotonic()))
            if not readable:
                return None
            part = os.read(output, 1 << 16)
            if not part:
                return b""
            self._unread += part
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def _failed(self, how: str) -> CommandFailed:
        lines = self._log.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:]
        return CommandFailed("\n".join([f"error: {self._module} {how}", *(f"  | {line}" for line in lines)]))
