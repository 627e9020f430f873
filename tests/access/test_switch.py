"""What a server asks before it takes anybody, and what it says while it asks nobody."""

from __future__ import annotations

import base64
import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from server_process import ServerProcess

from kalam.errors import InvalidOption
from kalam.settings import Settings
from kalam.start_checks import check_exposure, exposed

FIRST = "the first password"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path / "data")
    yield server
    server.kill()


def refused(server: ServerProcess, **environment: str) -> str:
    server.launch(**environment)
    assert server.wait_end() == 1, server.log_file.read_text()
    return server.log_file.read_text()


def status(server: ServerProcess, user: str = "", password: str = "") -> int:
    """What the server answers to SQL of somebody, or of nobody."""
    headers = {"Content-Type": "application/json"}
    if user:
        headers["Authorization"] = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
    body = json.dumps({"sql": "SELECT CURRENT_USER()"}).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(f"{server.http_url}/v1/sql", body, headers)) as answer:
            assert json.load(answer)["results"][0]["rows"] == [[user or "admin"]]
            return int(answer.status)
    except urllib.error.HTTPError as exc:
        with exc:
            return int(exc.code)


def test_the_first_start_makes_an_administrator_and_later_ones_ignore_what_is_given(server: ServerProcess) -> None:
    server.start(KALAM_AUTH="on", KALAM_ADMIN_PASSWORD=FIRST)
    assert [status(server), status(server, "admin", "wrong password"), status(server, "admin", FIRST)] == [
        401,
        401,
        200,
    ]
    server.stop()
    server.start(KALAM_AUTH="on", KALAM_ADMIN_PASSWORD="another password")
    assert [status(server, "admin", "another password"), status(server, "admin", FIRST)] == [401, 200]


def test_a_random_password_is_told_once(server: ServerProcess) -> None:
    server.start(KALAM_AUTH="on")
    [password] = re.findall(r"^    (\S{24})$", server.log_file.read_text(), re.MULTILINE)
    assert status(server, "admin", password) == 200
    server.stop()
    server.start(KALAM_AUTH="on")
    assert server.log_file.read_text().count(password) == 1
    assert status(server, "admin", password) == 200


def test_a_password_that_cannot_be_had_keeps_the_server_from_starting(server: ServerProcess) -> None:
    told = refused(server, KALAM_AUTH="on", KALAM_ADMIN_PASSWORD="hunter2")
    assert "KALAM_ADMIN_PASSWORD: a password has 8 to" in told
    assert "hunter2" not in told


def test_where_there_are_users_it_has_to_be_said_whether_they_are_asked_for(server: ServerProcess) -> None:
    server.start(KALAM_AUTH="on", KALAM_ADMIN_PASSWORD=FIRST)
    server.stop()
    assert "this data directory has users" in refused(server)
    server.start(KALAM_AUTH="off")
    assert status(server) == 200
    assert "neither grants nor policies count" in server.log_file.read_text()


def test_other_machines_are_kept_out_where_nobody_is_asked(server: ServerProcess) -> None:
    told = refused(server, KALAM_NATS_HOST="0.0.0.0")
    assert "nats_host is 0.0.0.0" in told
    assert "--insecure" in told
    assert not (server.data_dir / "kalam.db").exists()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, []),
        ({"http_host": "::1", "nats_host": "localhost"}, []),
        ({"http_host": "::"}, ["http_host"]),
        ({"http_host": "10.0.0.1", "nats_host": "kalam.example"}, ["http_host", "nats_host"]),
        ({"nats_host": "0.0.0.0", "nats_url": "nats://elsewhere"}, []),
        ({"http_host": "0.0.0.0", "nats_host": "0.0.0.0", "auth": "on"}, []),
        ({"pg_host": "0.0.0.0"}, []),
        ({"pg_host": "0.0.0.0", "pg_port": 0}, ["pg_host"]),
    ],
)
def test_an_address_is_open_to_other_machines_unless_it_is_loopback(settings: dict[str, str], told: list[str]) -> None:
    made = Settings(**settings)  # type: ignore[arg-type]  # texts, as in a file
    assert list(exposed(made)) == told
    if told:
        with pytest.raises(InvalidOption, match=told[0]):
            check_exposure(made)
    check_exposure(made.model_copy(update={"insecure": True}))


def test_pages_of_every_site_are_let_in_only_where_somebody_is_asked() -> None:
    every = Settings.model_construct(**Settings(cors_origins=("*",)).model_dump())
    for refused in (every, every.model_copy(update={"insecure": True})):
        with pytest.raises(InvalidOption, match=r"cors_origins is \*"):
            check_exposure(refused)
    check_exposure(every.model_copy(update={"auth": "on"}))
