"""What a person is told whom a server does not let in."""

from __future__ import annotations

from kalam.cli.failure import CommandFailed
from kalam.cli.problem_text import problem_text
from kalam.credentials import Credentials
from kalam.errors import Unauthenticated
from kalam.urls import redacted

REFUSED = "authorization violation"
"""What NATS says of a login, and nothing more."""


def who_to_be(url: str, login: Credentials) -> dict[str, str]:
    """The ``detail`` and ``hint`` of the problem object that a person reads."""
    named = f" --user {login.user}" if login.user else ""
    hint = f"log in with kalam login{named}"
    if login.secret is None:
        return {"detail": f"{redacted(url)} lets in only who logs in", "hint": hint}
    who = login.login or login.user or "the token"
    return {"detail": f"{redacted(url)} does not let {who} in: {login.source} is wrong, or has ended", "hint": hint}


def not_let_in(url: str, login: Credentials) -> CommandFailed:
    """The failure of a command whose login was refused."""
    return CommandFailed(problem_text({"code": Unauthenticated.code, **who_to_be(url, login)}))


def is_refused(error: Exception | None) -> bool:
    """Whether NATS has refused a login with this error."""
    return REFUSED in str(error).lower()
