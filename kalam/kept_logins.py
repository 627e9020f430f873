"""The logins that ``kalam login`` keeps: a token for each user and server, in a file that only its owner may read.

A server is known by the addresses at which it answered when the login was made, of HTTP and of NATS.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec

from kalam.errors import InvalidOption

FOLDER: Final = "kalam"
FILE: Final = "logins.json"
PORTS: Final = {"http": 80, "https": 443, "nats": 4222, "tls": 4222, "ws": 80, "wss": 443}
_OTHERS: Final = 0o077


class KeptLogin(msgspec.Struct, frozen=True, kw_only=True):
    """A user's token at a server. ``name`` is what the token is called in SHOW TOKENS, ``urls`` where the server is."""

    user: str
    token: str
    name: str
    urls: tuple[str, ...]

    def __repr__(self) -> str:
        """Without the token."""
        return f"KeptLogin(user={self.user!r}, name={self.name!r}, urls={self.urls!r})"

    def is_at(self, urls: Iterable[str]) -> bool:
        """Whether it is a login at the server of one of these URLs."""
        return not {place(url) for url in self.urls}.isdisjoint(map(place, urls))


def logins_file() -> Path:
    """Where they are kept: in the user's configuration folder."""
    configured = os.environ.get("XDG_CONFIG_HOME")
    return (Path(configured) if configured else Path("~/.config").expanduser()) / FOLDER / FILE


def kept_logins() -> tuple[KeptLogin, ...]:
    """All of them, the newest first; raises InvalidOption for a file that others may read, or that is none."""
    file = logins_file()
    try:
        with file.open("rb") as opened:
            if os.fstat(opened.fileno()).st_mode & _OTHERS:
                raise InvalidOption(f"{file} holds tokens, and others may read it", hint=f"chmod 600 {file}")
            return msgspec.json.decode(opened.read(), type=tuple[KeptLogin, ...])
    except (FileNotFoundError, NotADirectoryError):
        return ()
    except OSError as exc:
        raise InvalidOption(f"{file} cannot be read: {exc.strerror}") from exc
    except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
        raise InvalidOption(f"{file} is no list of logins", hint="remove it, and log in with kalam login") from exc


def kept_login(urls: Iterable[str], user: str | None = None) -> KeptLogin | None:
    """The newest login of a user, or of anybody, at the server of one of these URLs; raises InvalidOption."""
    urls = tuple(urls)
    return next((kept for kept in kept_logins() if kept.is_at(urls) and user in (None, kept.user)), None)


def keep(login: KeptLogin) -> Path:
    """Keep a login, in place of an older one of the user at this server; where. Raises InvalidOption."""
    return _write([login, *without(login)])


def forget(login: KeptLogin) -> None:
    """Keep it no longer; raises InvalidOption."""
    _write(without(login))


def without(login: KeptLogin) -> list[KeptLogin]:
    """The logins but those of this user at this server."""
    return [kept for kept in kept_logins() if kept.user != login.user or not kept.is_at(login.urls)]


def place(url: str) -> tuple[str | None, int | None]:
    """The host and port of a URL, the same in each spelling."""
    try:
        parts = urlsplit(url if "://" in url else f"nats://{url}")
        host = "127.0.0.1" if parts.hostname == "localhost" else parts.hostname
        return host, parts.port or PORTS.get(parts.scheme)
    except ValueError:
        return url, None


def _write(logins: Sequence[KeptLogin]) -> Path:
    file = logins_file()
    temporary = file.with_name(f".{FILE}.{os.getpid()}")
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(msgspec.json.format(msgspec.json.encode(logins)) + b"\n")
        temporary.replace(file)
    except OSError as exc:
        raise InvalidOption(f"{file} cannot be written: {exc.strerror}") from exc
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
    return file
