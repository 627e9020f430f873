"""Each command at a server whose users log in: who is let in by what, and what they are told who are not."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_process import environment
from guarded_server import PASSWORD, GuardedServer
from patience import PATIENCE_S

Run = Callable[..., subprocess.CompletedProcess[str]]
As = Callable[..., subprocess.CompletedProcess[str]]
WRONG = "wrong-password"
COUNT = "SELECT count(*) AS n FROM lab.readings"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuardedServer]:
    server = GuardedServer.started(tmp_path_factory.mktemp("guarded") / "data")
    server.sql("INSERT INTO lab.readings VALUES ('roof', 21.5)")
    yield server
    server.kill()


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """The environment of somebody with a configuration folder of their own."""
    return {"XDG_CONFIG_HOME": str(tmp_path / "config")}


@pytest.fixture
def asked(kalam: Run, server: GuardedServer, home: dict[str, str]) -> As:
    """Run a command at the server as a user with a password, given as a variable."""

    def run(user: str | None, *arguments: str, password: str | None = PASSWORD, **options: Any) -> Any:
        command, *rest = arguments
        env = dict(home) | ({} if user is None else {"KALAM_USER": user})
        env |= {} if user is None or password is None else {"KALAM_PASSWORD": password}
        where = ("--url", server.http_url) if command != "doctor" else ("--data-dir", str(server.data_dir))
        return kalam(command, *where, *rest, env=env, **options)

    return run


def commands(folder: Path) -> dict[str, tuple[tuple[str, ...], str]]:
    """What each command is asked of ``lab.readings``, and its standard input."""
    return {
        "sql": (("sql", COUNT), ""),
        "shell": (("shell",), f"{COUNT};"),
        "insert": (
            ("insert", "lab.readings", "--on-conflict", "nothing"),
            json.dumps({"sensor": "attic", "celsius": 30}),
        ),
        "export": (("export", "lab.readings", str(folder / "rows.ndjson"), "--force"), ""),
        "snapshot": (("export", "lab.readings", "--snapshot", str(folder / "rows"), "--force"), ""),
        "flush": (("flush", "lab.readings"), ""),
    }


NAMES = tuple(commands(Path()))
OWNERS = {"flush"}
WRITERS = {"insert"}


@pytest.mark.parametrize("name", NAMES)
def test_each_command_serves_whom_may_and_tells_the_others_why(asked: As, tmp_path: Path, name: str) -> None:
    arguments, stdin = commands(tmp_path)[name]
    for user in ("admin", "ada", "ben", "eve"):
        done = asked(user, *arguments, stdin=stdin)
        denied = (user == "ben" and name in OWNERS | WRITERS) or (user == "ada" and name in OWNERS)
        if user == "eve":
            assert (done.returncode, "_not_found]" in done.stderr) == (1, True), done.stderr
        elif denied:
            assert (done.returncode, "[permission_denied]" in done.stderr) == (1, True), done.stderr
        else:
            assert done.returncode == 0, done.stderr
        assert PASSWORD not in done.stdout + done.stderr


@pytest.mark.parametrize("door", ["http_url", "nats_url"])
@pytest.mark.parametrize("name", NAMES)
def test_who_is_not_let_in_is_told_to_log_in(
    kalam: Run, server: GuardedServer, home: dict[str, str], tmp_path: Path, name: str, door: str
) -> None:
    (command, *rest), stdin = commands(tmp_path)[name]
    file = tmp_path / "password"
    file.write_text(WRONG)
    for given in ((), ("--user", f"{name}-{door}", "--password-file", str(file))):  # failed logins are held up by user
        done = kalam(command, "--url", server.announcement[door], *rest, *given, stdin=stdin, env=home)
        assert (done.returncode, "hint: log in with kalam login" in done.stderr) == (1, True), done.stderr
        assert "[unauthenticated]" in done.stderr
        assert WRONG not in done.stderr


def test_the_password_comes_from_a_file_a_variable_or_the_url(
    kalam: Run, server: GuardedServer, home: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "password"
    file.write_text(f"{PASSWORD}\n")
    who = "SELECT current_user() AS me"
    server.sql("CREATE USER simple WITH PASSWORD 'simple-password'")
    for door in ("http_url", "nats_url"):
        url = str(server.announcement[door])
        own = url.replace("://", "://simple:simple-password@")
        token = server.token("ada", f"by {door}")
        for given, env, user in (
            (("--url", url, "--user", "ada", "--password-file", str(file)), {"KALAM_TOKEN": "wrong"}, "ada"),
            (("--url", own), {"KALAM_USER": "ben", "KALAM_PASSWORD": WRONG}, "simple"),
            (("--url", url), {"KALAM_USER": "ada", "KALAM_TOKEN": token, "KALAM_PASSWORD": WRONG}, "ada"),
            (("--url", url), {"KALAM_PASSWORD": PASSWORD}, "admin"),
        ):
            done = kalam("sql", who, *given, "--format", "csv", env=home | env)
            assert done.stdout.split() == ["me", user], done.stderr
            assert "simple-password" not in done.stderr
    for given in ("--user=a.b", "--password-file=/no/such/file"):
        assert kalam("sql", who, "--url", server.http_url, given, env=home).returncode == 2
    whose = {"KALAM_TOKEN": server.token("ada", "whose")}
    done = kalam("sql", who, "--url", server.http_url, "--format", "csv", env=home | whose)
    assert done.stdout.split() == ["me", "ada"], done.stderr
    done = kalam("tail", "lab.clicks", "--url", server.nats_url, env=home | whose)
    assert (done.returncode, "KALAM_USER" in done.stderr) == (2, True)


def test_no_command_takes_a_password_as_a_flag(kalam: Run) -> None:
    for command in ("sql", "shell", "insert", "export", "flush", "tail", "doctor", "login"):
        told = kalam(command, "--help").stdout
        assert "--password-file" in told
        assert "--password " not in told


@pytest.mark.parametrize("door", ["http_url", "nats_url"])
def test_a_login_is_kept_for_its_owner_alone_and_ends_with_the_logout(
    kalam: Run, server: GuardedServer, home: dict[str, str], door: str
) -> None:
    url = ("--url", str(server.announcement[door]))
    told = kalam("login", *url, "--user", "ada", stdin=f"{PASSWORD}\n", env=home)
    assert (told.returncode, "logged in as ada" in told.stderr) == (0, True), told.stderr
    file = Path(home["XDG_CONFIG_HOME"]) / "kalam" / "logins.json"
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    [kept] = json.loads(file.read_text())
    assert kept["token"] not in told.stdout + told.stderr
    tokens = "SELECT 1; SHOW TOKENS"
    mine = kalam("sql", tokens, *url, "--format", "csv", env=home)
    assert os.uname().nodename in mine.stdout
    assert kept["token"] not in mine.stdout
    for each in ("http_url", "nats_url"):  # by either address
        there = ("--url", str(server.announcement[each]))
        assert kalam("insert", "lab.clicks", *there, stdin='{"id": 1}', env=home).returncode == 0
        assert "ada" in kalam("sql", "SELECT current_user()", *there, env=home).stdout
    again = kalam("login", *url, "--user", "ada", stdin=PASSWORD, env=home)
    assert again.returncode == 0, again.stderr
    [kept] = json.loads(file.read_text())
    assert sum("kalam login on" in row[1] for row in server.sql("SHOW TOKENS")) == 1
    other = kalam("sql", "SELECT 1", *url, "--user", "ben", env=home)
    assert "hint: log in with kalam login --user ben" in other.stderr
    gone = kalam("logout", *url, env=home)
    assert (gone.returncode, "ada is logged out" in gone.stderr) == (0, True), gone.stderr
    assert json.loads(file.read_text()) == []
    assert not [row for row in server.sql("SHOW TOKENS") if "kalam login on" in row[1]]
    assert kalam("sql", "SELECT 1", *url, env=home).returncode == 1
    nobody = kalam("logout", *url, env=home)
    assert (nobody.returncode, "nobody is logged in" in nobody.stderr) == (1, True)


def test_a_wrong_login_keeps_nothing(kalam: Run, server: GuardedServer, home: dict[str, str]) -> None:
    done = kalam("login", "--url", server.http_url, "--user", "ada", stdin=WRONG, env=home)
    assert (done.returncode, "[unauthenticated]" in done.stderr) == (1, True), done.stderr
    assert not (Path(home["XDG_CONFIG_HOME"]) / "kalam").exists()


def test_a_file_of_logins_that_others_may_read_is_refused(
    kalam: Run, server: GuardedServer, home: dict[str, str]
) -> None:
    url = ("--url", server.http_url)
    assert kalam("login", *url, "--user", "ben", stdin=PASSWORD, env=home).returncode == 0
    file = Path(home["XDG_CONFIG_HOME"]) / "kalam" / "logins.json"
    file.chmod(0o640)
    done = kalam("sql", "SELECT 1", *url, env=home)
    assert (done.returncode, f"chmod 600 {file}" in done.stderr) == (2, True)
    file.chmod(0o600)
    assert kalam("logout", *url, env=home).returncode == 0


def test_a_server_that_asks_nobody_needs_no_login(
    kalam: Run, shared_server: GuardedServer, home: dict[str, str]
) -> None:
    done = kalam("login", "--url", shared_server.http_url, stdin=PASSWORD, env=home)
    assert (done.returncode, "asks nobody who they are" in done.stderr) == (1, True)


def test_a_context_of_nats_leads_back_to_the_server_as_the_user(
    kalam: Run, server: GuardedServer, home: dict[str, str]
) -> None:
    data_dir = ("--data-dir", str(server.data_dir))
    assert kalam("login", *data_dir, "--user", "ben", stdin=PASSWORD, env=home).returncode == 0
    plain = kalam("context", "ben", *data_dir, env=home)
    written = json.loads(plain.stdout)
    expected = {"url": server.nats_url, "user": "ben", "inbox_prefix": "_INBOX.ben"}
    assert {name: written[name] for name in expected} == expected
    assert "password" not in written
    contexts = Path(home["XDG_CONFIG_HOME"]) / "nats" / "context"
    contexts.mkdir(parents=True)
    (contexts / "ben.json").write_text(plain.stdout)
    whole = kalam("context", "ben", *data_dir, "--with-token", env=home)
    (contexts / "whole.json").write_text(whole.stdout)
    assert kalam("logout", *data_dir, env={**home, "KALAM_USER": ""}).returncode == 0
    assert kalam("login", *data_dir, "--user", "ben", stdin=PASSWORD, env=home).returncode == 0
    for name, env in (("ben", {"KALAM_PASSWORD": PASSWORD}), ("ben", {})):
        shown = kalam("sql", "SELECT current_user() AS me", "--context", name, "--format", "csv", env=home | env)
        assert shown.stdout.split() == ["me", "ben"], shown.stderr
    ended = kalam("sql", "SELECT 1", "--context", "whole", env=home)
    assert (ended.returncode, "the context is wrong" in ended.stderr) == (1, True), ended.stderr


@pytest.mark.parametrize("user", ["ada", "ben", "eve"])
def test_tail_follows_what_may_be_seen(
    start: Callable[..., subprocess.Popen[bytes]], server: GuardedServer, home: dict[str, str], user: str
) -> None:
    env = {**home, "KALAM_USER": user, "KALAM_PASSWORD": PASSWORD}
    pipes = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
    process = start("tail", "lab.readings", "--format", "json", "--url", server.nats_url, env=env, **pipes)
    assert process.stdout is not None
    if user == "eve":
        _, told = process.communicate(timeout=PATIENCE_S)
        assert (process.returncode, b"_not_found]" in told) == (1, True)
        return
    assert json.loads(process.stdout.readline())["op"] == "snapshot"
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, f"as {user}".encode() in told) == (0, True), told


def test_tail_says_why_it_ends_when_the_right_is_taken(
    start: Callable[..., subprocess.Popen[bytes]], server: GuardedServer, home: dict[str, str]
) -> None:
    server.sql(
        "CREATE TABLE IF NOT EXISTS lab.taken (id BIGINT PRIMARY KEY); INSERT INTO lab.taken VALUES (1);"
        "GRANT SELECT ON TABLE lab.taken TO eve"
    )
    env = {**home, "KALAM_USER": "eve", "KALAM_PASSWORD": PASSWORD}
    pipes = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
    process = start("tail", "lab.taken", "--url", server.nats_url, env=env, **pipes)
    assert process.stdout is not None
    process.stdout.readline()
    server.sql("REVOKE SELECT ON TABLE lab.taken FROM eve")
    _, told = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert b"permission" in told or b"table_not_found" in told, told


@pytest.mark.parametrize("user", [None, "admin", "ben"])
def test_doctor_finds_nothing_wrong_whoever_asks(asked: As, server: GuardedServer, user: str | None) -> None:
    done = asked(user, "doctor")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "where users log in" in done.stdout
    warned = "of damaged ones and those in trouble the server tells administrators alone" in done.stdout
    assert warned == (user != "admin")
    wrong = asked("admin", "doctor", password=WRONG)
    assert (wrong.returncode, "fail" in wrong.stdout) == (0, False), wrong.stdout


def test_a_backup_needs_no_login_and_holds_no_secret(
    kalam: Run, server: GuardedServer, home: dict[str, str], tmp_path: Path
) -> None:
    done = kalam("backup", str(tmp_path / "copy"), "--data-dir", str(server.data_dir), env=home)
    assert done.returncode == 0, done.stderr
    found = b"".join(file.read_bytes() for file in (tmp_path / "copy").rglob("*") if file.is_file())
    assert PASSWORD.encode() not in found


def test_secrets_are_in_no_settings_and_in_no_list_of_processes(
    kalam: Run, start: Callable[..., subprocess.Popen[bytes]], server: GuardedServer, home: dict[str, str]
) -> None:
    token = server.token("ada", "shown")
    env = {**home, "KALAM_USER": "ada", "KALAM_PASSWORD": PASSWORD, "KALAM_TOKEN": token}
    shown = kalam("config", "show", env=env)
    assert shown.returncode == 0
    checked = kalam("config", "check", env=env)
    assert (checked.returncode, "is no setting" in checked.stdout) == (0, False)
    assert not [secret for secret in (PASSWORD, token) if secret in shown.stdout + checked.stdout]
    pipes = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
    process = start("tail", "lab.readings", "--url", server.nats_url, env=env, **pipes)
    assert process.stdout is not None
    process.stdout.readline()
    line = Path(f"/proc/{process.pid}/cmdline").read_bytes()
    assert PASSWORD.encode() not in line
    assert token.encode() not in line
    assert not [secret for secret in (PASSWORD, token) if secret in server.log_text()]


def test_a_terminal_is_asked_for_user_and_password(server: GuardedServer, home: dict[str, str], tmp_path: Path) -> None:
    import pty

    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        command = [sys.executable, "-m", "kalam", "login", "--url", server.http_url]
        os.execve(sys.executable, command, environment(**home))
    told = b""

    def read_until(words: bytes) -> None:
        nonlocal told
        deadline = time.monotonic() + PATIENCE_S
        while words not in told:
            assert time.monotonic() < deadline, told
            select.select([terminal], [], [], deadline - time.monotonic())
            try:
                told += os.read(terminal, 4096)
            except OSError:
                raise AssertionError(told) from None

    read_until(b"User [admin]")
    os.write(terminal, b"ada\n")
    read_until(b"Password of ada: ")  # what is written before echoing ends is lost
    os.write(terminal, PASSWORD.encode() + b"\n")
    read_until(b"logged in as ada")
    assert os.waitpid(pid, 0)[1] == 0
    os.close(terminal)
    assert PASSWORD.encode() not in told
