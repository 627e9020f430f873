"""Shared fixtures: a real nats-server of the test's own, and a data directory."""

from __future__ import annotations

import asyncio
import gc
import inspect
import json
import os
import shutil
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import nats
import pytest

pytest.register_assert_rewrite(
    "change_feed", "failing_calls", "full_disk_rounds", "live_subscriber", "small_disk", "table_model"
)

from patience import PATIENCE_S  # noqa: E402
from server_process import ServerProcess  # noqa: E402

from kalam_nats.broker.embedded import find_nats_server  # noqa: E402

nats.connect = partial(nats.connect, connect_timeout=PATIENCE_S)  # 2 s are too few on a machine that is busy


class NatsServer:
    """An outside broker with JetStream and otherwise nats-server's defaults, on a free port that it keeps."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._port = -1
        self.ports: dict[str, list[str]] = {}
        self.added = ""
        """What is written behind its configuration, from the next start on."""
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self, **configuration: object) -> None:
        """Start it, again on the same port and store; further configuration keys may be given, None drops one."""
        file = self.folder / "nats.conf"
        fixed = {
            "host": "127.0.0.1",
            "port": self._port,
            "ports_file_dir": str(self.folder),
            "jetstream": {"store_dir": str(self.folder)},
        }
        text = json.dumps({name: value for name, value in (fixed | configuration).items() if value is not None})
        file.write_text(f"{text[1:-1]}\n{self.added}" if self.added else text)
        with (self.folder / "nats.log").open("ab") as log:
            self._process = subprocess.Popen([find_nats_server(), "-c", file], stdout=log, stderr=log)
        self.ports = self._wait_ports()
        self._port = int(self.ports["nats"][0].rsplit(":", 1)[1])

    def stop(self) -> None:
        self._end(force=False)

    def kill(self) -> None:
        self._end(force=True)

    def _end(self, *, force: bool) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if force:
            process.kill()
        else:
            process.terminate()
        process.wait(PATIENCE_S)

    def _wait_ports(self) -> dict[str, list[str]]:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            for file in self.folder.glob(f"*_{self.pid}.ports"):
                if text := file.read_text():
                    return dict(json.loads(text))
            assert self._process is not None
            assert self._process.poll() is None, (self.folder / "nats.log").read_text()
            time.sleep(0.005)
        raise TimeoutError("nats-server did not listen")


CHECKOUT = Path(__file__).parents[1]

LONGEST = frozenset(
    {
        "test_bench.py",
        "test_crash.py",
        "test_demo.py",
        "test_faults.py",
        "test_feed_kills.py",
        "test_full_disk_rounds.py",
        "test_ledger.py",
        "test_merge_model.py",
        "test_mutilated.py",
        "test_outbox.py",
        "test_pauses.py",
        "test_manual_blocks.py",
        "test_wheel.py",
    }
)
"""Files that take minutes. They are begun first: one that is begun last is waited for while the other cores idle."""
QUICKEST = frozenset({"rows", "sql"})
"""Folders whose files take a second or two. They come last, when a core that has nothing more to do would wait."""


def pytest_configure(config: pytest.Config) -> None:
    """Where the environment wants no bytecode kept, remove the checkout's when the tests have ended.

    Without any, each of a thousand processes would compile Kalam anew, which is a quarter of its start; and in a folder
    of its own (``PYTHONPYCACHEPREFIX``) that of the installed packages would not be found.
    """
    if os.environ.pop("PYTHONDONTWRITEBYTECODE", ""):
        before = bytecode_folders()
        config.add_cleanup(lambda: remove(bytecode_folders() - before))


def bytecode_folders() -> set[Path]:
    """Those of the checkout."""
    sources = (CHECKOUT / name for name in ("kalam", "bridges", "migrations", "tests"))
    return {found for folder in sources for found in folder.rglob("__pycache__")}


def remove(folders: set[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def pytest_xdist_auto_num_workers() -> int | None:
    """One process more than there are cores: a test waits a third of its time, for a disk or for what has to come."""
    return None if os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS") else len(os.sched_getaffinity(0)) + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: (item.path.name not in LONGEST, item.path.parent.name in QUICKEST))


def pytest_collection() -> None:
    gc.disable()


def pytest_collection_finish() -> None:
    """What was collected stays to the end: the garbage collector need not look at it, now and with every test."""
    gc.freeze()
    gc.enable()


def pytest_sessionstart(session: pytest.Session) -> None:
    """Tell whoever runs all tests that they run: the first dot comes after some time."""
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    if terminal is not None and session.config.getoption("numprocesses", None):  # the process that distributes them
        terminal.write_line(
            "Kalam's tests run on all cores, for some minutes. First each process collects them, then comes a dot for "
            "each test, with the share that is done."
        )


@pytest.fixture
def wait_until() -> Callable[[Callable[[], Any]], Awaitable[None]]:
    """Waits until a condition, plain or async, is true; raises TimeoutError after a minute."""

    async def wait_until(condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                met = condition()
                if await met if inspect.isawaitable(met) else met:
                    return
                await asyncio.sleep(0.005)

    return wait_until


@pytest.fixture
def start_nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., NatsServer]]:
    """Starts nats-servers of the test's own; takes further configuration keys."""
    servers: list[NatsServer] = []

    def start(**configuration: object) -> NatsServer:
        servers.append(NatsServer(tmp_path_factory.mktemp("nats")))
        servers[-1].start(**configuration)
        return servers[-1]

    yield start
    for server in servers:
        server.kill()


@pytest.fixture
def nats_server(start_nats_server: Callable[..., NatsServer]) -> NatsServer:
    """A nats-server of the test's own: ``url``, ``stop()``, ``kill()``, ``start()`` again on its port and store."""
    return start_nats_server()


@pytest.fixture
def nats_url(nats_server: NatsServer) -> str:
    return nats_server.url


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """An empty data directory."""
    folder = tmp_path / "kalam-data"
    folder.mkdir()
    return folder


@pytest.fixture
def start_kalam(tmp_path: Path) -> Iterator[Callable[..., ServerProcess]]:
    """Start real Kalam servers: ``start_kalam(name="data", flags=(), environment={}, start=True)``."""
    servers: list[ServerProcess] = []

    def start(
        name: str = "data", flags: Sequence[str] = (), *, start: bool = True, **environment: str
    ) -> ServerProcess:
        server = ServerProcess(tmp_path / name, flags, environment)
        servers.append(server)
        return server.start() if start else server

    yield start
    for server in servers:
        server.kill()


@pytest.fixture
def kalam_server(start_kalam: Callable[..., ServerProcess]) -> ServerProcess:
    """A real server on an empty data directory."""
    return start_kalam()


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A real server that the tests of a module share; each uses a namespace of its own."""
    server = ServerProcess(tmp_path_factory.mktemp("kalam") / "data").start()
    yield server
    server.kill()
