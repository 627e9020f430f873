"""A real ``kalam serve`` in a process of its own, as tests start, cut off and start again."""

from __future__ import annotations

import json
import os
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from patience import PATIENCE_S, START_S
from warm_start import Process, start_kalam_process


class SqlFailed(Exception):
    """The problem object that the server answered with."""

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        super().__init__(f"{status} {problem.get('code')}: {problem.get('detail')}")
        self.status, self.problem, self.code = status, problem, problem.get("code")


def cpu_s(pid: int) -> float:
    """What /proc/<pid>/stat says of user and system time."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def family(pid: int) -> list[int]:
    """A process, its children and theirs."""
    children = [
        int(child) for file in Path(f"/proc/{pid}/task").glob("*/children") for child in file.read_text().split()
    ]
    return [pid, *(member for child in children for member in family(child))]


@dataclass
class ServerProcess:
    """The server of one data directory; ``environment`` is added to the process's own."""

    data_dir: Path
    flags: Sequence[str] = ()
    environment: dict[str, str] = field(default_factory=dict)
    process: Process | None = None
    announcement: dict[str, Any] = field(default_factory=dict)

    @property
    def http_url(self) -> str:
        return str(self.announcement["http_url"])

    @property
    def nats_url(self) -> str:
        return str(self.announcement["nats_url"])

    @property
    def log_file(self) -> Path:
        return self.data_dir.parent / f"{self.data_dir.name}.log"

    def start(self, **environment: str) -> ServerProcess:
        """Start the server and wait until it has announced itself."""
        self.launch(**environment)
        return self.wait_announced()

    def wait_announced(self) -> ServerProcess:
        """Wait until a server that was launched has announced itself."""
        deadline = time.monotonic() + START_S
        file = self.data_dir / "kalam.json"
        assert self.process is not None
        while not file.exists():
            assert self.process.poll() is None, f"the server ended: {self.log_file.read_text()[-3000:]}"
            assert time.monotonic() < deadline, f"the server did not start: {self.log_file.read_text()[-3000:]}"
            time.sleep(0.01)
        self.announcement = json.loads(file.read_text())
        return self

    def launch(self, **environment: str) -> None:
        """Start the server without waiting."""
        self.data_dir.parent.mkdir(parents=True, exist_ok=True)
        (self.data_dir / "kalam.json").unlink(missing_ok=True)
        with self.log_file.open("ab") as log:
            self.process = start_kalam_process(
                ["serve", f"--data-dir={self.data_dir}", "--http-port=0", "--nats-port=0", *self.flags],
                self.environment | environment,
                log,
            )

    def stop(self) -> int:
        """SIGTERM, and the exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(START_S)

    def kill(self) -> None:
        """SIGKILL, as a power cut for the process."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(START_S)

    def wait_end(self) -> int:
        """Wait until the process ends by itself; its exit status."""
        assert self.process is not None
        return self.process.wait(START_S)

    def restart(self) -> None:
        """Start again after ``kill`` or ``stop``."""
        self.start()

    def cpu_s(self) -> float:
        """The CPU time that the server and its processes have taken, in seconds."""
        assert self.process is not None
        return sum(cpu_s(pid) for pid in family(self.process.pid))

    def wait_cpu(self, seconds: float) -> None:
        """Wait until ``cpu_s`` is past ``seconds``: that something works is seen by nothing else from outside."""
        deadline = time.monotonic() + PATIENCE_S
        while self.cpu_s() < seconds:
            assert time.monotonic() < deadline, "the server does not work"
            time.sleep(0.005)

    def sql(self, text: str, *params: Any, user: str = "admin", namespace: str | None = None) -> list[Any]:
        """The rows of the last statement, or its message; raises SqlFailed."""
        last = self.results(text, *params, user=user, namespace=namespace)[-1]
        return last["rows"] if last["columns"] else last["message"]

    def named(self, user: str) -> dict[str, str]:
        """The headers that say who asks."""
        return {"X-Kalam-User": user}

    def results(
        self, text: str, *params: Any, user: str = "admin", namespace: str | None = None
    ) -> list[dict[str, Any]]:
        """Every result of a text; raises SqlFailed."""
        body: dict[str, Any] = {"sql": text, "params": list(params)}
        if namespace is not None:
            body["namespace"] = namespace
        headers = {"Content-Type": "application/json", **self.named(user)}
        request = urllib.request.Request(f"{self.http_url}/v1/sql", json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
                results: list[dict[str, Any]] = json.load(response)["results"]
                return results
        except urllib.error.HTTPError as exc:
            with exc:
                raise SqlFailed(exc.code, json.load(exc)) from None

    def metrics(self) -> str:
        """What Prometheus reads."""
        with urllib.request.urlopen(f"{self.http_url}/metrics") as response:
            return str(response.read().decode())

    def log_text(self) -> str:
        return self.log_file.read_text()
