"""The first administrator, whom the first start with authentication makes."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from kalam.access.audit import Audit
from kalam.access.book import Book
from kalam.access.entry import Entry
from kalam.access.model import ADMIN, User
from kalam.access.passwords import Passwords
from kalam.credentials import read_password
from kalam.errors import InvalidOption, InvalidValue

PASSWORD: Final = "KALAM_ADMIN_PASSWORD"  # noqa: S105 - the variable's name
PASSWORD_FILE: Final = "KALAM_ADMIN_PASSWORD_FILE"  # noqa: S105 - the variable's name
RANDOM_BYTES: Final = 18


async def make_first_administrator(
    book: Book, audit: Audit, passwords: Passwords, environment: Mapping[str, str], tell: Callable[[str], None]
) -> None:
    """Make ``admin`` where there is no user yet; a password that nobody has given is told once, and kept by nobody.

    Raises InvalidOption for a password that cannot be read or had.
    """
    if book.users:
        return
    given = given_password(environment)
    password = secrets.token_urlsafe(RANDOM_BYTES) if given is None else given
    try:
        encoded = await passwords.hash(password)
    except InvalidValue as exc:
        raise InvalidOption(f"{PASSWORD if environment.get(PASSWORD) else PASSWORD_FILE}: {exc.detail}") from exc
    now = datetime.now(UTC)
    admin = User(
        name=ADMIN, admin=True, password_hash=encoded, password_us=int(now.timestamp() * 1_000_000), created_at=now
    )
    with audit.telling(Entry(at_us=0, user=None, door="server", action="CREATE USER", object=ADMIN)):
        await book.put_user(admin, await passwords.verifier(password, book.salt_of(ADMIN)))
    if given is None:
        tell(f"\nThe user {ADMIN} was made. The password is shown only now:\n\n    {password}\n\n")


def given_password(environment: Mapping[str, str]) -> str | None:
    """The password that the environment, or the file that it names, gives to the first administrator; None for none."""
    password, file = environment.get(PASSWORD), environment.get(PASSWORD_FILE)
    if password and file:
        raise InvalidOption(f"{PASSWORD} and {PASSWORD_FILE} are both set; leave one out")
    return read_password(Path(file), PASSWORD_FILE) if file else password or None
