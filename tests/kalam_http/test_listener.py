from __future__ import annotations

import asyncio
import signal
import socket
from typing import Any

import httpx
import pytest
from patience import PATIENCE_S
from starlette.responses import PlainTextResponse

from kalam.errors import InvalidOption, TooBusy
from kalam.settings import Settings
from kalam_http import serve_http

FREE = Settings(http_port=0)


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await PlainTextResponse("hello")(scope, receive, send)


async def get(url: str) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as client:
        return await client.get(url)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
async def test_the_url_leads_to_the_server(host):
    async with serve_http(hello, Settings(http_port=0, http_host=host)) as listening:
        assert (await get(listening.url)).text == "hello"


async def test_an_ipv6_address_stands_in_brackets():
    async with serve_http(hello, Settings(http_port=0, http_host="::1")) as listening:
        assert listening.url.startswith("http://[::1]:")
        assert (await get(listening.url)).text == "hello"


async def test_an_address_in_use_is_a_plain_error():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InvalidOption, match=f"127.0.0.1:{port}: Address already in use"):
            async with serve_http(hello, Settings(http_port=port)):
                pass


@pytest.mark.parametrize("host", ["203.0.113.1", "no-such-host.invalid"])
async def test_a_host_that_is_not_this_machine_is_a_plain_error(host):
    with pytest.raises(InvalidOption, match=host):
        async with serve_http(hello, Settings(http_port=0, http_host=host)):
            pass


async def test_the_port_is_free_again_afterwards():
    async with serve_http(hello, FREE) as listening:
        port = int(listening.url.rpartition(":")[2])
    async with serve_http(hello, Settings(http_port=port)) as again:
        assert again.url == listening.url


async def test_signals_stay_with_the_process():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    async with serve_http(hello, FREE):
        assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


async def test_an_error_of_the_body_comes_out_as_it_is():
    with pytest.raises(TooBusy):
        async with serve_http(hello, FREE):
            raise TooBusy("as it is")


async def test_a_request_in_flight_is_answered_before_the_server_stops():
    entered, leave = asyncio.Event(), asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        entered.set()
        await leave.wait()
        await hello(scope, receive, send)

    async with serve_http(slow, FREE) as listening:
        asked = asyncio.create_task(get(listening.url))
        await entered.wait()
        asyncio.get_running_loop().call_later(0.2, leave.set)
    assert (await asked).text == "hello"


async def test_a_request_that_never_ends_does_not_keep_the_server(monkeypatch):
    monkeypatch.setattr("kalam_http.listener.DRAIN_S", 1)
    entered = asyncio.Event()

    async def endless(scope: Any, receive: Any, send: Any) -> None:
        entered.set()
        await asyncio.Event().wait()

    async with asyncio.timeout(PATIENCE_S):
        async with serve_http(endless, FREE) as listening:
            asked = asyncio.create_task(get(listening.url))
            await entered.wait()
    assert (await asked).status_code == 500
