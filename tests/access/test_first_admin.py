"""The first start makes an administrator, with a password that is given or told once."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from login_book import CHEAP

from kalam.access.audit import Audit
from kalam.access.book import Book
from kalam.access.first_admin import make_first_administrator
from kalam.access.passwords import Passwords
from kalam.credentials import without_line_end
from kalam.errors import InvalidOption
from kalam.storage.log.database import Database

FIRST, SECOND = "first password", "second password"


async def start(database: Database, **environment: str) -> tuple[Book, str]:
    """What a start with an environment finds and tells."""
    told: list[str] = []
    book = Book(database)
    book.load()
    await make_first_administrator(book, Audit(database), Passwords(CHEAP), environment, told.append)
    return book, "".join(told)


async def has_password(book: Book, password: str) -> bool:
    return await Passwords(CHEAP).verify(book.users["admin"].password_hash, password)


async def test_a_password_of_the_environment_is_taken_and_not_told(database: Database) -> None:
    book, told = await start(database, KALAM_ADMIN_PASSWORD=FIRST)
    assert told == ""
    assert book.users["admin"].admin
    assert await has_password(book, FIRST)


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
async def test_a_password_of_a_file_is_taken_without_its_line_end(database: Database, tmp_path: Path, end: str) -> None:
    file = tmp_path / "password"
    file.write_bytes(f" {FIRST}\n {end}".encode())
    book, told = await start(database, KALAM_ADMIN_PASSWORD_FILE=str(file))
    assert told == ""
    assert await has_password(book, f" {FIRST}\n ")


async def test_without_one_a_random_one_is_told_once(database: Database) -> None:
    book, told = await start(database)
    found = re.search(r"^    (\S{24})$", told, re.MULTILINE)
    assert found is not None
    assert await has_password(book, found[1])
    again, told = await start(database)
    assert told == ""
    assert again.users == book.users


async def test_later_starts_ignore_what_is_given(database: Database) -> None:
    await start(database, KALAM_ADMIN_PASSWORD=FIRST)
    book, told = await start(database, KALAM_ADMIN_PASSWORD=SECOND, KALAM_ADMIN_PASSWORD_FILE="/nowhere")
    assert told == ""
    assert await has_password(book, FIRST)


async def test_the_audit_tells_of_it_without_a_word_of_it(database: Database) -> None:
    await start(database, KALAM_ADMIN_PASSWORD=FIRST)
    with database.reading() as conn:
        [entry] = conn.execute("SELECT user, door, action, object, outcome, detail FROM audit").fetchall()
    assert entry == (None, "server", "CREATE USER", "admin", "ok", "")


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"KALAM_ADMIN_PASSWORD": "hunter2"}, "KALAM_ADMIN_PASSWORD: a password has 8 to"),
        ({"KALAM_ADMIN_PASSWORD": "hunter2" * 1_000}, "KALAM_ADMIN_PASSWORD: a password has 8 to"),
        ({"KALAM_ADMIN_PASSWORD_FILE": "{folder}/short"}, "KALAM_ADMIN_PASSWORD_FILE: a password has 8 to"),
        ({"KALAM_ADMIN_PASSWORD_FILE": "{folder}/empty"}, "KALAM_ADMIN_PASSWORD_FILE: a password has 8 to"),
        ({"KALAM_ADMIN_PASSWORD_FILE": "{folder}/nowhere"}, "cannot be read: No such file"),
        ({"KALAM_ADMIN_PASSWORD_FILE": "{folder}"}, "cannot be read: Is a directory"),
        ({"KALAM_ADMIN_PASSWORD_FILE": "{folder}/binary"}, "no UTF-8 text"),
        ({"KALAM_ADMIN_PASSWORD": "hunter2hunter2", "KALAM_ADMIN_PASSWORD_FILE": "{folder}/short"}, "are both set"),
    ],
)
async def test_what_cannot_be_taken_is_told_and_makes_nobody(
    database: Database, tmp_path: Path, environment: dict[str, str], told: str
) -> None:
    (tmp_path / "short").write_text("hunter2\n")
    (tmp_path / "empty").touch()
    (tmp_path / "binary").write_bytes(b"hunter2\xff\xfe")
    with pytest.raises(InvalidOption, match=told) as caught:
        await start(database, **{name: value.format(folder=tmp_path) for name, value in environment.items()})
    assert "hunter2" not in str(caught.value)
    book = Book(database)
    book.load()
    assert book.users == {}


@pytest.mark.parametrize(
    ("text", "without"),
    [
        ("a\n", "a"),
        ("a\r\n", "a"),
        ("a\n\n", "a\n"),
        ("a\r", "a\r"),
        ("a", "a"),
        ("\n", ""),
        ("", ""),
        (" a \n", " a "),
    ],
)
def test_one_line_end_is_none_of_the_password(text: str, without: str) -> None:
    assert without_line_end(text) == without
