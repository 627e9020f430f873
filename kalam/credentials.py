"""Who logs in, and with what: the credentials of a client or a command, and where they are found.

One order for all of them:

1. what is given: a password, a file with one, a token;
2. what the server's URL, or its context of the nats command line, holds;
3. ``KALAM_TOKEN``, ``KALAM_PASSWORD``;
4. the token that ``kalam login`` keeps for this server (``kalam.kept_logins``).

The user is who is named for them, else ``KALAM_USER``, else whom the URL or the kept login names, else ``admin``.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import msgspec

from kalam.errors import InvalidName, InvalidOption
from kalam.kept_logins import kept_login
from kalam.names import USER_PATTERN, check_user

USER: Final = "KALAM_USER"
PASSWORD: Final = "KALAM_PASSWORD"  # noqa: S105 - the variable's name
TOKEN: Final = "KALAM_TOKEN"  # noqa: S105 - the variable's name
DEFAULT_USER: Final = "admin"
KALAM_TOKEN: Final = "kalam_"  # noqa: S105 - what a token of Kalam's begins with; a NATS may have others


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """A password or token (``secret``) and whose it is, or neither.

    Args:
        user: as whom requests are made; None where a token is all that is known, and says by itself whose it is.
        login: who logs in with the secret, ``user`` where it is None; they differ in an outside NATS with users of its
            own, and for administrators over HTTP, who may act for others.
        in_address: the URL or context brings the secret by itself, over NATS.
        source: where the secret was found, for people.
    """

    user: str | None = None
    login: str | None = None
    secret: str | None = None
    is_token: bool = False
    in_address: bool = False
    source: str = ""

    def __repr__(self) -> str:
        """Without the secret: what is shown in a traceback is read by others."""
        return f"Credentials(user={self.user!r}, source={self.source!r})"

    @property
    def name(self) -> str:
        """The user as whom requests over NATS are made."""
        return self.user or DEFAULT_USER

    @property
    def is_nameless(self) -> bool:
        """Whether it is a token of Kalam's of which it is not known whose it is, which NATS does not tell."""
        return self.user is None and self._is_kalams

    @property
    def _is_kalams(self) -> bool:
        return self.is_token and (self.secret or "").startswith(KALAM_TOKEN)

    def headers(self) -> dict[str, str]:
        """What a request over HTTP says of who asks."""
        asking = {} if self.user is None else {"X-Kalam-User": self.user}
        if self.secret is None:
            return asking
        if self.is_token:
            return {**asking, "Authorization": f"Bearer {self.secret}"}
        pair = base64.b64encode(f"{self.login or self.name}:{self.secret}".encode()).decode()
        return {**asking, "Authorization": f"Basic {pair}"}

    def nats_options(self) -> dict[str, Any]:
        """What nats-py's ``connect`` takes of them; answers come to inboxes of the user's own."""
        own: dict[str, Any] = {"inbox_prefix": f"_INBOX.{self.name}"}
        if self.secret is None or self.in_address:
            return own
        if self.user is None or (self.is_token and not self._is_kalams):
            return {**own, "token": self.secret}
        return {**own, "user": self.login or self.user, "password": self.secret}


NOBODY: Final = Credentials()


def find_credentials(
    urls: Iterable[str],
    *,
    user: str | None = None,
    password: str | None = None,
    password_file: Path | None = None,
    token: str | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Credentials:
    """The credentials for the server at these URLs, which may be several of one server.

    Raises InvalidOption where two secrets are given or a file cannot be read, InvalidName for what is no user's name.
    """
    if sum(each is not None for each in (password, password_file, token)) > 1:
        raise InvalidOption("give one of password, password_file and token")
    if user is not None:
        check_user(user)
    named = user or _user_in(environment)
    if password_file is not None:
        password = read_password(password_file, "the password file")
    if token is not None:
        return Credentials(user=named, secret=token, is_token=True, source="the token that was given")
    if password is not None:
        return Credentials(user=named or DEFAULT_USER, secret=password, source="the password that was given")
    urls = list(urls)
    return _in_urls(urls, user, named) or _in_environment(environment, named) or _kept(urls, named)


def of_context(options: Mapping[str, Any], user: str | None) -> Credentials | None:
    """Those that a context of the nats command line holds, as nats-py's options; None if there are none."""
    if (token := options.get("token")) is not None:
        return Credentials(user=user, secret=token, is_token=True, in_address=True, source="the context")
    if (password := options.get("password")) is not None:
        return _of_login(options["user"], password, user, "the context")
    return None


def read_password(path: Path, named: str) -> str:
    """The password in a file, without the line end behind it; raises InvalidOption, which says what named the file."""
    try:
        return without_line_end(path.read_text("utf-8"))
    except UnicodeDecodeError as exc:
        raise InvalidOption(f"{named}: {path} is no UTF-8 text") from exc
    except OSError as exc:
        raise InvalidOption(f"{named}: {path} cannot be read: {exc.strerror}") from exc


def without_line_end(text: str) -> str:
    """A text without the one line end that an editor or ``echo`` puts behind it."""
    return text.removesuffix("\n").removesuffix("\r") if text.endswith("\n") else text


def _user_in(environment: Mapping[str, str]) -> str | None:
    named = environment.get(USER)
    if not named:
        return None
    try:
        return check_user(named)
    except InvalidName as exc:
        raise InvalidName(f"{USER}: {exc.detail}") from exc


def _in_urls(urls: Iterable[str], user: str | None, named: str | None) -> Credentials | None:
    for url in urls:
        parts = urlsplit(url if "://" in url else f"nats://{url}")
        if parts.username is None:
            continue
        if parts.password is not None:
            found = _of_login(unquote(parts.username), unquote(parts.password), user, "the URL")
            return found if found.user else msgspec.structs.replace(found, user=named)
        token = unquote(parts.username)  # as NATS has it, a name alone is a token
        return Credentials(user=user or named, secret=token, is_token=True, in_address=True, source="the URL")
    return None


def _of_login(login: str, password: str, user: str | None, source: str) -> Credentials:
    own = login if USER_PATTERN.fullmatch(login) else None
    return Credentials(user=user or own, login=login, secret=password, in_address=True, source=source)


def _in_environment(environment: Mapping[str, str], user: str | None) -> Credentials | None:
    if token := environment.get(TOKEN):
        return Credentials(user=user, secret=token, is_token=True, source=TOKEN)
    if password := environment.get(PASSWORD):
        return Credentials(user=user or DEFAULT_USER, secret=password, source=PASSWORD)
    return None


def _kept(urls: Iterable[str], user: str | None) -> Credentials:
    kept = kept_login(urls, user)
    if kept is None:
        return Credentials(user=user)
    return Credentials(user=kept.user, secret=kept.token, is_token=True, source="kalam login")
