"""TLS at the embedded broker: its listeners, Kalam's own connections, clients' certificates, and a reload."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import nats
import pytest
from certificates import Authority
from guarded_broker import Users, guarded_broker

from kalam.settings import Settings
from kalam.tls import Certificates
from kalam_nats.access.permissions import Reach
from kalam_nats.broker.connection import broker_connection
from kalam_nats.broker.embedded import EmbeddedBroker, embedded_broker
from kalam_nats.broker.tls import own_context

WaitUntil = Callable[[Callable[[], object]], Awaitable[None]]
FREE_PORT = Settings(nats_port=0)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def certificates(authority: Authority, client_ca: Path | None = None) -> Certificates:
    issued = authority.issue("server")
    return Certificates(issued.cert, issued.key, client_ca)


def trusting(authority: Authority, own: Path | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.file))
    if own is not None:
        context.load_cert_chain(own)
    return context


async def connects(url: str, context: ssl.SSLContext | None, **options: Any) -> bool:
    async def ignore(_: Exception) -> None:
        return

    try:
        client = await nats.connect(url, tls=context, allow_reconnect=False, error_cb=ignore, **options)
        await client.flush()
    except (nats.errors.Error, OSError, asyncio.IncompleteReadError):
        return False
    await client.close()
    return True


async def shown(broker: EmbeddedBroker, authority: Authority) -> int:
    """The number of the certificate that the broker shows now."""
    client = await nats.connect(broker.url, tls=trusting(authority), allow_reconnect=False)
    (certificate,) = [client._transport._io_writer.get_extra_info("ssl_object").getpeercert()]  # noqa: SLF001
    await client.close()
    return int(certificate["serialNumber"], 16)


async def test_clients_come_by_tls_and_not_without(data_dir: Path, authority: Authority) -> None:
    files = certificates(authority)
    async with embedded_broker(FREE_PORT, data_dir, certificates=files) as broker:
        assert broker.url.startswith("tls://")
        assert await connects(broker.url, trusting(authority))
        assert not await connects(broker.url, ssl.create_default_context())
        async with broker_connection(broker.url, tls=own_context(files)) as connection:
            assert await connection.answers()


async def test_clients_show_a_certificate_where_an_authority_is_set(data_dir: Path, authority: Authority) -> None:
    folder = data_dir.parent / "clients"
    folder.mkdir()
    clients = Authority(folder, "an authority of clients")
    files = certificates(authority, clients.file)
    async with embedded_broker(FREE_PORT, data_dir, certificates=files) as broker:
        assert await connects(broker.url, trusting(authority, clients.issue("client").both))
        assert not await connects(broker.url, trusting(authority))
        assert not await connects(broker.url, trusting(authority, authority.issue("stranger").both))
        async with broker_connection(broker.url, tls=own_context(files)) as connection:
            assert await connection.answers()


async def test_certificates_that_are_read_anew_are_shown_to_new_connections(
    data_dir: Path, authority: Authority, wait_until: WaitUntil
) -> None:
    files = certificates(authority)
    async with (
        embedded_broker(FREE_PORT, data_dir, certificates=files) as broker,
        broker_connection(broker.url, tls=own_context(files)) as connection,
    ):
        before = await shown(broker, authority)
        issued = authority.issue("server")
        files.reload()

        async def is_shown() -> bool:
            return await shown(broker, authority) == issued.serial

        await wait_until(is_shown)
        assert before != issued.serial
        os.kill(broker.pid, signal.SIGKILL)
        await wait_until(lambda: connection.losses)
        await connection.wait_connected(20)
        assert await connection.answers()


async def test_logins_go_on_after_certificates_were_read_anew(
    data_dir: Path, authority: Authority, wait_until: WaitUntil
) -> None:
    files = certificates(authority)
    users = Users({"ada": Reach(user="ada")})
    async with guarded_broker(data_dir, users, certificates=files) as guarded:
        ways = {"tls": trusting(authority), "allow_reconnect": True, "max_reconnect_attempts": -1}
        async with guarded.client("ada", reconnect_time_wait=0.2, **ways) as ada:
            issued = authority.issue("server")
            files.reload()
            await wait_until(lambda: ada.client.stats["reconnects"] and ada.client.is_connected)
            assert await ada.may_say("kalam.api.ada.sql")
            assert not await ada.may_say("kalam.api.ben.sql")
        await guarded.kalam.wait_connected(20)
        assert await guarded.kalam.answers()
        assert issued.serial


async def test_a_websocket_is_served_with_tls(data_dir: Path, authority: Authority) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    settings = Settings(nats_port=0, nats_ws_port=port)
    async with embedded_broker(settings, data_dir, certificates=certificates(authority)) as broker:
        assert broker.ws_url == f"wss://127.0.0.1:{port}"
        async with aiohttp.ClientSession() as session:
            async with session.ws_connect(f"https://127.0.0.1:{port}", ssl=trusting(authority)) as connection:
                assert (await connection.receive(10)).data.startswith(b"INFO")
            with pytest.raises(aiohttp.ClientError):
                await session.ws_connect(f"http://127.0.0.1:{port}")
