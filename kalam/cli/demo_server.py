"""The server of the demo: a real ``kalam serve`` in a process of its own, which can be killed and started again."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from kalam.cli.address import ANNOUNCEMENT, read_announcement
from kalam.cli.failure import CommandFailed
from kalam.cli.http import is_ready

READY_S: Final = 60.0
STOP_S: Final = 20.0
POLL_S: Final = 0.05
LOG_LINES_SHOWN: Final = 15


class DemoServer:
    """A server on free ports. Use it as a context manager; leaving it stops the server gently.

    With ``password`` users log in, and it is that of ``admin``; ``settings`` are further ones, by the names of their
    variables.
    """

    def __init__(
        self, data_dir: Path, log: Path, password: str | None = None, settings: Mapping[str, str] | None = None
    ) -> None:
        self.data_dir = data_dir
        self.http_url = ""
        self.nats_url = ""
        self.pg_url = ""
        self._log, self._password, self._settings = log, password, dict(settings or {})
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None) -> None:
        self._stop()

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start the server and wait until it is ready."""
        (self.data_dir / ANNOUNCEMENT).unlink(missing_ok=True)  # one killed before could not take it back
        command = [sys.executable, "-m", "kalam", "serve", "--data-dir", str(self.data_dir)]
        with self._log.open("ab") as log:
            # A session of its own: ^C is for the demo, which then stops the server in order.
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                [*command, "--http-port", "0", "--nats-port", "0", "--auth", "off" if self._password is None else "on"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**_own_environment(self._password), **self._settings},
                start_new_session=True,
            )
        self._wait_ready()

    def kill(self) -> None:
        """Kill the server and all its children as a power cut would: no signal handler runs."""
        assert self._process is not None
        self._signal_group(signal.SIGKILL)
        self._process.wait()

    def _wait_ready(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise CommandFailed(f"error: the server ended with status {self._process.returncode}\n{self.log_end()}")
            announced = read_announcement(self.data_dir)
            if announced is not None and is_ready(announced["http_url"]):
                self.http_url, self.nats_url = announced["http_url"], announced["nats_url"]
                self.pg_url = announced.get("pg_url", "")
                return
            time.sleep(POLL_S)
        raise CommandFailed(f"error: the server was not ready within {READY_S:g} s\n{self.log_end()}")

    def _stop(self) -> None:
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_S)
        self._signal_group(signal.SIGKILL)  # whatever is left of it
        self._process.wait()

    def _signal_group(self, number: signal.Signals) -> None:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def log_end(self) -> str:
        """The last lines of the server's log, for a failure that only it explains."""
        lines = self._log.read_text(errors="replace").splitlines()
        return "\n".join(f"  | {line}" for line in lines[-LOG_LINES_SHOWN:])


def _own_environment(password: str | None) -> dict[str, str]:
    """The environment without the settings of a real server, which must not reach the demo's."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("KALAM_") and name != "NATS_URL"}
    return own if password is None else {**own, "KALAM_ADMIN_PASSWORD": password}
