"""Somebody who follows README.md and the manual: types every block, reads what comes, and presses ^C at the end."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from manual_blocks import CHECKOUT, SERVE, Block, missing_line
from patience import PATIENCE_S
from server_process import ServerProcess, SqlFailed

from kalam_nats.broker.embedded import find_nats_server

NAMESPACES = ("lab", "quakes")
PACKAGES = ("@nats-io/nats-core@3", "@nats-io/transport-node@3", "@nats-io/jetstream@3", "ws@8")
NEEDS_WEBSOCKET = 'import WebSocket from "ws";\nglobalThis.WebSocket ??= WebSocket; // which Node has from 22 on\n'
INSTALL_S = 90
BLOCK_S = 4 * PATIENCE_S  # up to a dozen commands
PROBLEM = re.compile(r'"status": ?[45]\d\d\b')


class NoNode(Exception):
    """There is no Node here, or no registry for it."""


class Listener:
    """A block that goes on until ^C, and what it has printed so far."""

    def __init__(self, block: Block, process: subprocess.Popen[str]) -> None:
        self.block, self._process = block, process
        self.printed = ""
        self._told = threading.Condition()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._told:
                self.printed += line
                self._told.notify()

    def wait_for(self, lines: list[str]) -> None:
        """Wait until these lines are printed; without any, until one is."""
        with self._told:
            told = self._told.wait_for(
                lambda: bool(self.printed) and missing_line(lines, self.printed) is None, PATIENCE_S
            )
            assert told, f"{self.block.place} does not print {missing_line(lines, self.printed)!r}, but {self.printed}"

    def stop(self) -> None:
        """^C."""
        os.killpg(self._process.pid, signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(PATIENCE_S)
        end(self._process)
        self._thread.join(PATIENCE_S)


@dataclass
class Reader:
    """A folder in which a server has its data, and the programs that are called there by their names."""

    folder: Path
    server: ServerProcess
    variables: dict[str, str] = field(default_factory=dict)
    node_home: Reader | None = None
    listener: Listener | None = field(default=None, init=False)

    def prepare(self) -> None:
        """Lay out what the first lines of README have made."""
        activate = self.folder / ".venv" / "bin" / "activate"
        activate.parent.mkdir(parents=True)
        activate.touch()
        programs = self.folder / "bin"
        programs.mkdir()
        (programs / "kalam").write_text(f'#!/bin/sh\nexec {sys.executable} -m kalam "$@"\n')
        if shutil.which("nats") is None:
            command = CHECKOUT / "tests" / "nats_command.py"
            (programs / "nats").write_text(f'#!/bin/sh\nexec {sys.executable} {command} "$@"\n')
        for program in programs.iterdir():
            program.chmod(0o755)

    def localized(self, text: str) -> str:
        """A text with the addresses of this server, which is started already."""
        addresses = {
            "localhost:8080": self.server.http_url.removeprefix("http://"),
            "nats://127.0.0.1:4222": self.server.nats_url,
            "ws://localhost:8443": str(self.server.announcement["nats_ws_url"]),
            "localhost:5432": str(self.server.announcement["pg_url"]).removeprefix("postgresql://"),
        }
        for written, real in addresses.items():
            text = text.replace(written, real)
        return SERVE.sub(":", text)

    def command(self, block: Block) -> list[str]:
        """How a block is run: it goes into a file, as somebody would save it."""
        javascript = block.language == "js"
        name = f"{block.page}-{block.line}.{'mjs' if javascript else block.language}"
        file = (self.node_folder if javascript else self.folder) / name
        file.write_text((NEEDS_WEBSOCKET if javascript else "") + self.localized(block.text))
        match block.language:
            case "sh":
                return ["bash", "-eu", "-o", "pipefail", str(file)]
            case "sql":
                return ["kalam", "sql", "--file", str(file)]
            case "python":
                return [sys.executable, "-u", str(file)]
            case "js":
                return ["node", str(file)]
            case _:
                return [find_nats_server(), "-t", "-c", str(file)]

    def run(self, block: Block) -> str:
        """Run a block to its end; what it prints. What it left in the background ends with it."""
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as error:
            process = self.start(block, out.fileno(), error.fileno())
            try:
                process.wait(BLOCK_S)
            finally:
                end(process)
            out.seek(0)
            error.seek(0)
            printed = out.read()
            assert process.returncode == 0, f"{block.place}: {process.returncode}\n{printed}\n{error.read()}"
            assert not PROBLEM.search(printed), f"{block.place}: {printed}"  # curl ends well with any answer
            return printed

    def listen(self, block: Block, first: list[str]) -> None:
        """Run a block that goes on, until it has printed something, or these lines."""
        self.listener = Listener(block, self.start(block, subprocess.PIPE, subprocess.STDOUT))
        self.listener.wait_for(first)

    def start(self, block: Block, stdout: int, stderr: int) -> subprocess.Popen[str]:
        path = os.pathsep.join([str(self.folder / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
        own = {"PATH": path, "NATS_URL": self.server.nats_url, **self.variables}
        return subprocess.Popen(
            self.command(block),
            cwd=self.folder,
            env=os.environ | own,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            text=True,
            start_new_session=True,
        )

    def hear(self, lines: list[str]) -> None:
        """Wait until the block that listens has printed these lines, and end it with ^C."""
        listener, self.listener = self.listener, None
        assert listener is not None
        try:
            listener.wait_for(lines)
        finally:
            listener.stop()

    def forget(self) -> None:
        """Drop what a page has made."""
        if self.listener is not None:
            self.hear([])
        for number, *_ in self.server.sql("SHOW LIVE QUERIES"):
            with suppress(SqlFailed):  # it has ended meanwhile
                self.server.sql(f"KILL LIVE QUERY '{number}'")
        for name in NAMESPACES:
            self.server.sql(f"DROP NAMESPACE IF EXISTS {name} CASCADE")

    @cached_property
    def node_folder(self) -> Path:
        """A folder with the packages that the JavaScript needs; raises NoNode."""
        if self.node_home is not None:
            return self.node_home.node_folder
        npm = shutil.which("npm")
        if npm is None or shutil.which("node") is None:
            raise NoNode("there is no node")
        folder = self.folder / "node"
        flags = ("--no-audit", "--no-fund", "--ignore-scripts", f"--prefix={folder}")
        try:
            subprocess.run([npm, "install", *flags, *PACKAGES], capture_output=True, check=True, timeout=INSTALL_S)
        except (subprocess.SubprocessError, OSError) as exc:
            raise NoNode(f"npm cannot install nats.js here: {exc}") from exc
        return folder


def end(process: subprocess.Popen[str]) -> None:
    """End a block and all that it left in the background."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
