"""``kalam user reset-password`` on the data directory of a server that does not run."""

from __future__ import annotations

import asyncio
import os
import pty
import select
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path

import pytest
from login_book import CHEAP, open_database
from patience import PATIENCE_S

from kalam.access.audit import Audit
from kalam.access.book import Book
from kalam.access.first_admin import make_first_administrator
from kalam.access.passwords import Passwords
from kalam.storage.log.data_dir import locked_data_dir

NEW = "correct horse battery"
IN_TERMINAL = """
import os, runpy
os.open(os.ttyname(0), os.O_RDWR)  # the first that a session opens is its terminal
runpy.run_module("kalam", run_name="__main__", alter_sys=True)
"""


@pytest.fixture
def users_dir(tmp_path: Path) -> Path:
    """A data directory with the user admin."""
    folder = tmp_path / "data"
    folder.mkdir()
    database = open_database(folder)

    async def make() -> None:
        book = Book(database)
        environment = {"KALAM_ADMIN_PASSWORD": "the first password"}
        await make_first_administrator(book, Audit(database), Passwords(CHEAP), environment, print)

    asyncio.run(make())
    database.close()
    return folder


def has_password(folder: Path, password: str) -> bool:
    with closing(sqlite3.connect(folder / "kalam.db")) as conn:
        [encoded] = conn.execute("SELECT password FROM users WHERE name = 'admin'").fetchone()
    return asyncio.run(Passwords().verify(encoded, password))


def read(terminal: int) -> bytes:
    assert select.select([terminal], [], [], PATIENCE_S)[0], "the terminal shows nothing more"
    return os.read(terminal, 1_024)


def reset(folder: Path, *arguments: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "kalam", "user", "reset-password", "--data-dir", str(folder), *arguments]
    return subprocess.run(command, input=given, capture_output=True, timeout=PATIENCE_S)


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n", b"\nmore lines\n"])
def test_a_line_of_standard_input_is_the_password(users_dir: Path, end: bytes) -> None:
    done = reset(users_dir, "admin", given=NEW.encode() + end)
    assert (done.returncode, done.stdout) == (0, b""), done.stderr
    assert NEW.encode() not in done.stderr
    assert has_password(users_dir, NEW)


def test_a_file_holds_the_password_and_the_audit_tells_of_it(users_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(f"{NEW}\n")
    assert reset(users_dir, "admin", "--password-file", str(file)).returncode == 0
    assert has_password(users_dir, NEW)
    with closing(sqlite3.connect(users_dir / "kalam.db")) as conn:
        told = conn.execute("SELECT user, door, action, object, outcome FROM audit ORDER BY entry_id DESC").fetchone()
    assert told == (None, "command", "ALTER USER", "admin", "ok")


def test_a_terminal_asks_twice_and_shows_nothing(users_dir: Path) -> None:
    ours, theirs = pty.openpty()
    arguments = ["user", "reset-password", "admin", "--data-dir", str(users_dir)]
    process = subprocess.Popen(
        [sys.executable, "-c", IN_TERMINAL, *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    seen = b""
    for _ in range(2):
        while not seen.endswith(b": "):  # the space comes once nothing is shown any more
            seen += read(ours)
        os.write(ours, f"{NEW}\n".encode())
        seen += b"|"
    with suppress(OSError):  # its other end is closed
        while True:
            seen += read(ours)
    os.close(ours)
    assert process.wait(PATIENCE_S) == 0, seen
    assert NEW.encode() not in seen
    assert has_password(users_dir, NEW)


@pytest.mark.parametrize(
    ("arguments", "given", "status", "told"),
    [
        (("nobody",), b"long enough\n", 1, b"there is no user 'nobody'"),
        (("admin",), b"", 1, b"a password has 8 to 1,024 characters"),
        (("admin",), b"hunter2\n", 1, b"a password has 8 to 1,024 characters"),
        (("admin",), b"hunter2\xff\xfe\n", 2, b"no UTF-8 text"),
        (("admin", "--password-file", "nowhere"), b"", 2, b"cannot be read"),
    ],
)
def test_what_cannot_be_done_is_told_and_changes_nothing(
    users_dir: Path, arguments: tuple[str, ...], given: bytes, status: int, told: bytes
) -> None:
    done = reset(users_dir, *arguments, given=given)
    assert (done.returncode, done.stdout) == (status, b"")
    assert told in done.stderr
    assert b"hunter2" not in done.stderr
    assert b"Traceback" not in done.stderr
    assert has_password(users_dir, "the first password")


def test_a_folder_that_is_none_of_ours_stays_as_it_is(tmp_path: Path) -> None:
    done = reset(tmp_path / "nowhere", "admin", given=b"long enough\n")
    assert done.returncode == 1
    assert b"no data directory" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_while_a_server_runs_it_is_refused(users_dir: Path) -> None:
    with locked_data_dir(users_dir):
        done = reset(users_dir, "admin", given=b"long enough\n")
    assert done.returncode == 1
    assert b"another server runs" in done.stderr
    assert has_password(users_dir, "the first password")
