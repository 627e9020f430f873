"""Nothing that is kept, shown or told of a server holds a password, a token or the secret of a session."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from login_book import CHEAP, open_database
from patience import PATIENCE_S
from server_process import ServerProcess

from kalam.access.book import Book
from kalam.access.model import Token, User
from kalam.access.passwords import Passwords
from kalam.access.secrets import make_secret
from kalam_nats.access.keys import FOLDER

PASSWORDS = {
    "first": "first-sesame-4711",
    "literal": "literal-sesame-4711",
    "parameter": "parameter-sesame-4711",
    "changed": "changed-sesame-4711",
    "guessed": "guessed-sesame-4711",
    "mistyped": "mistyped-sesame-4711",
    "running": "running-sesame-4711",
    "unknown": "unknown-sesame-4711",
}
MARK = "sesame"
MISTYPED = (
    "CREATE USER eve PASSWORD {}",
    "CREATE USER eve PASSWORD '{}' NONSENSE",
    "CREATE USER eve PASSWORD '{}",
    'ALTER USER ada PASSWORD "{}"',
    "ALTER USER ada PASSWORT '{}'",
    "ALTER USER ada '{}'",
    "ALTER USER nobody PASSWORD '{}'",
    "CREATE USER ada PASSWORD '{}'",
    "EXPLAIN ALTER USER ada PASSWORD '{}'",
    "SELECT 1; ALTER USER ada PASSWORD '{}', ADMIN",
)
SLOW = "SELECT count(*) FROM generate_series(1, 100000) a, generate_series(1, 100000) b WHERE a.value * b.value = 7"


class Http:
    """Requests to a server, and all that it ever answered but what tells a secret on purpose."""

    def __init__(self, url: str) -> None:
        self.url, self.answers = url, list[bytes]()

    def ask(
        self, path: str, body: Any = None, *, keep: bool = True, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        data = None if body is None else json.dumps(body).encode()
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(f"{self.url}{path}", data, {"Content-Type": "application/json", **names})
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
                found = answer.status, dict(answer.headers), answer.read()
        except urllib.error.HTTPError as exc:
            with exc:
                found = exc.code, dict(exc.headers), exc.read()
        if keep:
            self.answers += [found[2], repr(found[1]).encode()]
        return found

    def sql(self, text: str, *params: Any, keep: bool = True, **headers: str) -> list[list[Any]]:
        status, _, body = self.ask("/v1/sql", {"sql": text, "params": params}, keep=keep, **headers)
        assert status == 200, body
        rows: list[list[Any]] = json.loads(body)["results"][-1]["rows"]
        return rows


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


ADMIN = basic("admin", PASSWORDS["first"])


@pytest.fixture
def tokens(tmp_path: Path) -> list[str]:
    """The tokens of a data directory with the users admin and ada, made while no server runs."""
    (tmp_path / "data").mkdir()
    database = open_database(tmp_path / "data")
    made = [make_secret(), make_secret()]

    async def make() -> None:
        book, now = Book(database), datetime.now(UTC)
        book.load()
        for name, password in (("admin", PASSWORDS["first"]), ("ada", PASSWORDS["literal"])):
            encoded = await Passwords(CHEAP).hash(password)
            await book.put_user(User(name=name, admin=True, password_hash=encoded, password_us=1, created_at=now))
        for number, each in enumerate(made):
            token = Token(id=each.id, name=f"ci{number}", user="ada", hash=each.hash, created_at=now)
            await book.put_token(token)

    asyncio.run(make())
    database.close()
    return [each.text for each in made]


@pytest.fixture
def server(tmp_path: Path, tokens: list[str]) -> Iterator[ServerProcess]:
    environment = {
        "KALAM_AUTH": "on",
        "KALAM_ADMIN_PASSWORD": PASSWORDS["first"],
        "KALAM_LOG_FORMAT": "json",
        "KALAM_LOG_LEVEL": "debug",
    }
    server = ServerProcess(tmp_path / "data", environment=environment).start()
    yield server
    server.kill()


def kalam(*arguments: str, environment: dict[str, str]) -> bytes:
    command = [sys.executable, "-m", "kalam", *arguments]
    done = subprocess.run(command, capture_output=True, env=environment, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def session_of_ada(http: Http) -> str:
    """The secret of a session that is opened and used."""
    status, headers, _ = http.ask("/v1/login", {"user": "ada", "password": PASSWORDS["literal"]}, keep=False)
    assert status == 200
    found = re.search(r"session_[0-9a-f]{12}_[\w-]{43}", headers["set-cookie"])
    assert found is not None
    cookie = headers["set-cookie"].partition(";")[0]
    assert http.ask("/v1/sql", {"sql": "SELECT 1"}, Cookie=cookie, Sec_Fetch_Site="same-origin")[0] == 200
    return found[0]


def wrong(http: Http) -> None:
    """Everything that goes wrong with a secret in it."""
    for statement in MISTYPED:
        status, _, _ = http.ask("/v1/sql", {"sql": statement.format(PASSWORDS["mistyped"])}, Authorization=ADMIN)
        assert 400 <= status < 500, statement
    for value in (12345678, [PASSWORDS["mistyped"]], {"password": PASSWORDS["mistyped"]}, "short"):
        status, _, _ = http.ask(
            "/v1/sql", {"sql": "CREATE USER eve PASSWORD $1", "params": [value]}, Authorization=ADMIN
        )
        assert status == 400
    for user, password in (("ada", PASSWORDS["guessed"]), (PASSWORDS["unknown"], "long enough"), ("x", "kalam_x_y")):
        assert http.ask("/v1/sql", {"sql": "SELECT 1"}, Authorization=basic(user, password))[0] == 401
    assert http.ask("/v1/login", {"user": "ada", "password": PASSWORDS["guessed"], "more": 1})[0] in (400, 401)


def log_in_to_nats(server: ServerProcess, user: str, secret: str) -> bytes:
    """What the broker answers to a login and a request."""
    host, port = server.nats_url.removeprefix("nats://").split(":")
    login = {"user": user, "pass": secret, "verbose": False, "pedantic": False, "headers": True}
    with socket.create_connection((host, int(port)), PATIENCE_S) as connection:
        reader = connection.makefile("rb")
        assert reader.readline().startswith(b"INFO")
        connection.sendall(f"CONNECT {json.dumps(login)}\r\nPING\r\n".encode())
        return reader.readline()


def running(http: Http) -> list[list[Any]]:
    """The list of queries while a text runs that has a password in it."""
    text = f"{SLOW}; ALTER USER ada PASSWORD '{PASSWORDS['running']}'"
    thread = threading.Thread(target=http.ask, args=("/v1/sql", {"sql": text}), kwargs={"Authorization": ADMIN})
    thread.start()
    while not (listed := [row for row in http.sql("SHOW QUERIES", Authorization=ADMIN) if SLOW in str(row)]):
        pass
    http.sql(f"KILL QUERY '{listed[0][0]}'", Authorization=ADMIN)
    thread.join(PATIENCE_S)
    return listed


def test_no_secret_is_found_again(server: ServerProcess, tokens: list[str], tmp_path: Path) -> None:
    http = Http(server.http_url)
    for token in tokens:
        assert http.sql("SELECT CURRENT_USER()", Authorization=f"Bearer {token}") == [["ada"]]
    tails = [secret[-43:] for secret in (*tokens, session_of_ada(http))]
    for sql, *params in (
        ["CREATE USER ben PASSWORD $1", PASSWORDS["parameter"]],
        [f"ALTER USER ben PASSWORD '{PASSWORDS['changed']}'"],
    ):
        http.ask("/v1/sql", {"sql": sql, "params": params}, Authorization=ADMIN)
    assert log_in_to_nats(server, "ada", tokens[0]) == b"PONG\r\n"
    for user, secret in (("ada", PASSWORDS["guessed"]), (PASSWORDS["unknown"], "long enough"), ("", tokens[1][:-1])):
        assert b"Authorization Violation" in log_in_to_nats(server, user, secret)
    wrong(http)
    [[_, _, _, shown, *_]] = running(http)
    assert shown.endswith("ALTER USER ada PASSWORD '…'")
    tables = http.sql("SHOW TABLES IN system", Authorization=ADMIN)
    for row in tables:
        http.sql(f"SELECT * FROM system.{row[1]}", Authorization=ADMIN)
    for statement in ("SHOW USERS", "SHOW TOKENS", "SHOW SESSIONS", "SHOW QUERIES", "SHOW JOBS"):
        http.ask("/v1/sql", {"sql": statement}, Authorization=ADMIN)
    for path in ("/metrics", "/v1/overview", "/v1/catalogue", "/readyz", "/openapi.json"):
        assert http.ask(path, Authorization=ADMIN)[0] == 200, path
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "KALAM_ADMIN_PASSWORD": PASSWORDS["first"]}
    backup, data = tmp_path / "backup", str(server.data_dir)
    told = kalam("nats-config", "--data-dir", data, environment=environment)
    seeds = [file.read_text() for file in (server.data_dir / FOLDER).iterdir()]
    assert len(seeds) == 4
    told += kalam("backup", str(backup), "--data-dir", data, environment=environment)
    told += kalam("config", "show", "--data-dir", data, environment=environment)
    [audit] = http.sql("SELECT count(*) FROM system.audit WHERE action = 'login'", Authorization=ADMIN)
    assert audit[0] >= 4
    assert server.stop() == 0
    places = {"answers": b"\n".join(http.answers), "commands": told, "log": server.log_file.read_bytes()}
    for folder in (server.data_dir, backup):
        places |= {str(file): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    places = {place: content for place, content in places.items() if Path(place).parent.name != FOLDER}
    assert not (backup / FOLDER).exists()
    [broker_log] = [place for place in places if place.endswith("nats.log")]  # the broker names each user that comes
    places[broker_log] = places[broker_log].replace(PASSWORDS["unknown"].encode(), b"")
    assert len(places) > 6
    for place, content in places.items():
        for secret in (MARK, *tails, *seeds):
            assert secret.encode() not in content, (place, content[max(0, content.find(secret.encode()) - 200) :][:400])
