"""A whole server with TLS: what it announces, a command that asks it, and SIGHUP."""

from __future__ import annotations

import signal
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from certificates import Authority
from guarded_server import PASSWORD, GuardedServer
from patience import PATIENCE_S
from server_process import ServerProcess
from warm_start import run_kalam

from kalam.client import connect


def serial(url: str, authority: Authority) -> int:
    parts = urlsplit(url)
    assert parts.hostname is not None
    context = ssl.create_default_context(cafile=str(authority.file))
    with (
        socket.create_connection((parts.hostname, parts.port or 443)) as plain,
        context.wrap_socket(plain, server_hostname=parts.hostname) as secured,
    ):
        shown = secured.getpeercert()
    assert shown is not None
    return int(str(shown["serialNumber"]), 16)


def test_commands_follow_https_and_sighup_brings_the_new_certificate(
    start_kalam: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    issued = authority.issue("server")
    server = start_kalam(KALAM_TLS_CERT=str(issued.cert), KALAM_TLS_KEY=str(issued.key))
    assert server.http_url.startswith("https://127.0.0.1:")
    asked = ("sql", "SELECT 1 AS one", "--data-dir", str(server.data_dir), "--format", "csv")
    answer = run_kalam(*asked, KALAM_CA=str(authority.file))
    assert (answer.returncode, answer.stdout.split()) == (0, ["one", "1"]), answer.stderr
    refused = run_kalam(*asked)
    assert refused.returncode == 1
    assert "cannot be trusted" in refused.stderr
    assert "KALAM_CA" in refused.stderr
    nowhere = run_kalam(*asked, KALAM_CA=str(tmp_path / "none.pem"))
    assert nowhere.returncode == 2
    assert "none.pem cannot be used: No such file" in nowhere.stderr
    newer = authority.issue("server")
    assert server.process is not None
    server.process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + PATIENCE_S
    while serial(server.http_url, authority) != newer.serial:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert server.stop() == 0


def test_a_server_does_not_start_with_files_that_do_not_fit(
    start_kalam: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    issued, other = authority.issue("server"), authority.issue("other")
    server = start_kalam(start=False, KALAM_TLS_CERT=str(issued.cert), KALAM_TLS_KEY=str(other.key))
    server.launch()
    assert server.wait_end() == 1
    assert "is not the key of the certificate" in server.log_text()


async def test_commands_the_client_and_doctor_trust_the_authority_over_nats_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    issued = authority.issue("server")
    server = GuardedServer(
        tmp_path / "data",
        ("--auth=on", "--http-port=0"),
        {"KALAM_ADMIN_PASSWORD": PASSWORD, "KALAM_TLS_CERT": str(issued.cert), "KALAM_TLS_KEY": str(issued.key)},
    )
    server.start()
    try:
        login = {"KALAM_PASSWORD": PASSWORD, "XDG_CONFIG_HOME": str(tmp_path)}
        trusting = {**login, "KALAM_CA": str(authority.file)}
        for door in ("http_url", "nats_url"):
            where = ("--url", server.announcement[door])
            made = run_kalam("sql", "CREATE NAMESPACE IF NOT EXISTS lab; SELECT 1 AS one", *where, **trusting)
            assert made.returncode == 0, made.stderr
            assert run_kalam("sql", "SELECT 1", *where, **login).returncode == 1
        run_kalam("sql", "CREATE STREAM TABLE lab.clicks (id BIGINT)", "--url", server.http_url, **trusting)
        file = tmp_path / "rows.ndjson"
        file.write_text('{"id": 1}')
        for door in ("http_url", "nats_url"):
            sent = run_kalam("insert", "lab.clicks", str(file), "--url", server.announcement[door], **trusting)
            assert sent.returncode == 0, sent.stderr
        found = run_kalam("doctor", "--data-dir", str(server.data_dir), **trusting)
        assert found.returncode == 0, found.stdout
        monkeypatch.setenv("KALAM_CA", str(authority.file))
        for door in ("http_url", "nats_url"):
            async with connect(server.announcement[door], user="admin", password=PASSWORD) as k:
                assert (await k.sql("SELECT count(*) AS n FROM lab.clicks")).rows == [{"n": 2}]
                assert [row async for row in k.stream("SELECT 1 AS one")] == [{"one": 1}]
    finally:
        server.kill()
