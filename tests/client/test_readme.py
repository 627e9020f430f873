"""The examples of README.md and of the manual, run as they stand there, with only the address changed."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from server_process import ServerProcess

CHECKOUT = Path(__file__).parents[2]
PAGES = [CHECKOUT / "README.md", *(CHECKOUT / "kalam" / "manual").glob("*.md")]
PAGE = "https://the.page.example"
INSTALL_S = 90
PACKAGES = ("@nats-io/nats-core@3", "ws@8")
NEEDS_WEBSOCKET = 'import WebSocket from "ws";\nglobalThis.WebSocket ??= WebSocket; // which a browser has\n'


def example(language: str, word: str) -> str:
    """The one block of code that mentions a word."""
    blocks = re.findall(rf"```{language}\n(.*?)```", "\n".join(page.read_text() for page in PAGES), re.DOTALL)
    [block] = [text for text in blocks if word in text]
    return str(block)


@pytest.fixture
def lab(start_kalam: Callable[..., ServerProcess]) -> ServerProcess:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = start_kalam(flags=(f"--nats-ws-port={port}",), KALAM_NATS_WS_ORIGINS=f"http://other.example, {PAGE}")
    server.sql("CREATE NAMESPACE lab; CREATE SHARED TABLE lab.readings (sensor TEXT NOT NULL, celsius DOUBLE)")
    server.sql("INSERT INTO lab.readings VALUES ('cellar', 11), ('attic', 25)")
    return server


@pytest.fixture
def started() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    processes: list[subprocess.Popen[str]] = []

    def start(*command: str, **options: Any) -> subprocess.Popen[str]:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        processes.append(subprocess.Popen(command, **pipes, **options))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def next_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().rstrip()


def test_the_first_lines_with_nats_py(lab: ServerProcess) -> None:
    text = example("python", '"attic"').replace("nats://127.0.0.1:4222", lab.nats_url)
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    ack, change = done.stdout.splitlines()
    assert '"rows":1,' in ack.replace(" ", "")
    assert change.startswith("kalam.shared.lab.readings.insert")
    assert "attic" in change


def test_the_python_client(lab: ServerProcess, started: Callable[..., subprocess.Popen[str]]) -> None:
    text = example("python", "import kalam.client as kalam").replace("nats://127.0.0.1:4222", lab.nats_url)
    process = started(sys.executable, "-u", "-c", text)
    assert "'mean': 21.5" in next_line(process)
    lines = iter(lambda: next_line(process), None)
    snapshots = (line for line in lines if line.startswith("snapshot None"))
    assert {word for line in islice(snapshots, 2) for word in ("roof", "attic") if word in line} == {"roof", "attic"}
    lab.sql("UPDATE lab.readings SET celsius = 30 WHERE sensor = 'attic'")
    assert next(line for line in lines if line.startswith("update")).endswith("{'celsius': 25.0}")


@pytest.fixture(scope="module")
def node_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the packages that the example needs; skips where there is no node or no registry."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("there is no node")
    folder = tmp_path_factory.mktemp("node")
    flags = ("--no-audit", "--no-fund", "--ignore-scripts", f"--prefix={folder}")
    try:
        subprocess.run([npm, "install", *flags, *PACKAGES], capture_output=True, check=True, timeout=INSTALL_S)
    except (subprocess.SubprocessError, OSError) as exc:
        pytest.skip(f"npm cannot install nats.js here: {exc}")
    return folder


def test_nats_js_over_a_web_socket(
    lab: ServerProcess, node_folder: Path, started: Callable[..., subprocess.Popen[str]]
) -> None:
    text = example("js", "wsconnect").replace("ws://localhost:8443", str(lab.announcement["nats_ws_url"]))
    script = node_folder / "example.mjs"
    script.write_text(NEEDS_WEBSOCKET + text)
    process = started("node", str(script), cwd=node_folder)
    assert next_line(process).startswith("snapshot {")
    lab.sql("UPDATE lab.readings SET celsius = 30 WHERE sensor = 'attic'")
    lines = iter(lambda: next_line(process), None)
    change = next(line for line in lines if line.startswith("update"))
    assert change.startswith("update 3 {")


@pytest.mark.parametrize(("origin", "status"), [(PAGE, 101), ("https://another.example", 403)])
def test_a_page_of_a_named_origin_may_open_a_web_socket(lab: ServerProcess, origin: str, status: int) -> None:
    connection = HTTPConnection(str(lab.announcement["nats_ws_url"]).removeprefix("ws://"), timeout=10)
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
    connection.request("GET", "/", headers={**upgrade, "Sec-WebSocket-Key": "x" * 22 + "==", "Origin": origin})
    assert connection.getresponse().status == status
    connection.close()
