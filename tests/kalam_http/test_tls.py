"""HTTPS: whom a client meets, certificates that change meanwhile, handshakes that are never finished."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import httpx
import pytest
from certificates import Authority, Issued
from cryptography.hazmat.primitives import serialization
from patience import PATIENCE_S
from starlette.responses import PlainTextResponse

from kalam.errors import InvalidOption
from kalam.settings import Settings
from kalam.tls import Certificates
from kalam_http import serve_http


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tls")


@pytest.fixture(scope="module")
def authority(folder: Path) -> Authority:
    return Authority(folder)


@pytest.fixture
def issued(authority: Authority) -> Issued:
    return authority.issue("server")


async def scheme(scope: Any, receive: Any, send: Any) -> None:
    await PlainTextResponse(scope["scheme"])(scope, receive, send)


def trusting(authority: Authority, own: Path | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.file))
    if own is not None:
        context.load_cert_chain(own)
    return context


async def serial(url: str, context: ssl.SSLContext) -> int:
    """The number of the certificate that the server shows now."""
    _, writer = await asyncio.open_connection(*address(url), ssl=context)
    shown = writer.get_extra_info("ssl_object").getpeercert()
    writer.close()
    return int(shown["serialNumber"], 16)


def address(url: str) -> tuple[str, int]:
    parsed = httpx.URL(url)
    assert parsed.port is not None
    return parsed.host, parsed.port


async def test_it_answers_over_https_and_to_nothing_else(authority, issued):
    settings = Settings(http_port=0)
    async with (
        serve_http(scheme, settings, certificates=Certificates(issued.cert, issued.key)) as listening,
        httpx.AsyncClient(verify=trusting(authority), trust_env=False) as client,
    ):
        assert listening.url.startswith("https://127.0.0.1:")
        assert (await client.get(listening.url)).text == "https"
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get(listening.url.replace("https", "http"))
        with pytest.raises(ssl.SSLCertVerificationError):
            await serial(listening.url, ssl.create_default_context())


async def test_a_new_certificate_is_shown_to_new_connections_and_the_old_ones_go_on(authority, issued):
    certificates, told = Certificates(issued.cert, issued.key), []
    certificates.on_reload(lambda: told.append("told"))
    context = trusting(authority)
    async with serve_http(scheme, Settings(http_port=0), certificates=certificates) as listening:
        reader, writer = await asyncio.open_connection(*address(listening.url), ssl=context)
        assert await serial(listening.url, context) == issued.serial
        newer = authority.issue("server")
        certificates.reload()
        assert await serial(listening.url, context) == newer.serial
        assert told == ["told"]
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).endswith(b"https")
        issued.key.write_text("half a key")
        certificates.reload()
        assert await serial(listening.url, context) == newer.serial
        assert told == ["told"]


async def test_clients_have_to_be_signed_by_the_authority_that_is_named_now(authority, issued, folder):
    others = Authority(folder, "other")
    own, foreign = authority.issue("client", "ada"), others.issue("foreign", "eve")
    named = folder / "clients.pem"
    named.write_bytes(authority.file.read_bytes())
    certificates = Certificates(issued.cert, issued.key, named)

    async def answered(client_cert: Path | None) -> bool:
        async with httpx.AsyncClient(verify=trusting(authority, client_cert), trust_env=False) as client:
            try:
                return (await client.get(listening.url)).text == "https"
            except (httpx.ReadError, httpx.ConnectError, httpx.RemoteProtocolError):
                return False

    async with serve_http(scheme, Settings(http_port=0), certificates=certificates) as listening:
        assert [await answered(cert) for cert in (own.both, foreign.both, None)] == [True, False, False]
        named.write_bytes(others.file.read_bytes())
        certificates.reload()
        assert [await answered(cert) for cert in (own.both, foreign.both, None)] == [False, True, False]


async def test_handshakes_that_are_never_finished_count_and_end(authority, issued):
    settings = Settings(http_port=0, http_connections_per_address_max=2, http_request_s=0.5)
    context = trusting(authority)
    async with serve_http(scheme, settings, certificates=Certificates(issued.cert, issued.key)) as listening:
        silent = [await asyncio.open_connection(*address(listening.url)) for _ in range(2)]
        refused, writer = await asyncio.open_connection(*address(listening.url))
        assert await asyncio.wait_for(refused.read(), PATIENCE_S) == b""
        for reader, _ in silent:
            assert await asyncio.wait_for(reader.read(), PATIENCE_S) == b""
        assert await serial(listening.url, context) == issued.serial
        for each in (writer, *(writer for _, writer in silent)):
            each.close()
        await asyncio.open_connection(*address(listening.url))  # still at it while the server stops


CASES: dict[str, tuple[Any, str]] = {
    "no key": (lambda good, folder: (good.cert, None, None), "tls_cert without tls_key: TLS needs"),
    "no certificate": (lambda good, folder: (None, good.key, None), "tls_key without tls_cert: TLS needs"),
    "only clients": (lambda good, folder: (None, None, good.cert), "tls_client_ca without tls_cert and tls_key"),
    "not there": (lambda good, folder: (folder / "none.pem", good.key, None), "tls_cert .*none.pem cannot be read: No"),
    "a folder": (lambda good, folder: (good.cert, folder, None), "tls_key .* cannot be read: Is a directory"),
    "another's key": (lambda good, folder: (good.cert, folder / "other.key.pem", None), "is not the key of"),
    "exchanged": (lambda good, folder: (good.key, good.cert, None), "tls_cert .* holds no certificate in PEM"),
    "no key in it": (lambda good, folder: (good.cert, good.cert, None), "are no certificate in PEM and its key"),
    "empty": (lambda good, folder: (folder / "empty.pem", good.key, None), "holds no certificate in PEM"),
    "encrypted": (lambda good, folder: (good.cert, folder / "encrypted.pem", None), "is encrypted: nobody"),
    "no authority": (lambda good, folder: (good.cert, good.key, good.key), "tls_client_ca .* holds no certificate"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_does_not_fit_is_refused_and_says_what_it_is(authority, issued, folder, case):
    authority.issue("other")
    (folder / "empty.pem").write_text("")
    key = serialization.load_pem_private_key(issued.key.read_bytes(), None)
    locked = serialization.BestAvailableEncryption(b"secret")
    (folder / "encrypted.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked)
    )
    change, message = CASES[case]
    cert, key_file, client_ca = change(issued, folder)
    with pytest.raises(InvalidOption, match=message):
        Certificates.of(Settings(tls_cert=cert, tls_key=key_file, tls_client_ca=client_ca))


def test_without_files_there_is_no_tls():
    assert Certificates.of(Settings()) is None
