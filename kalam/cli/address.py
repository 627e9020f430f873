"""Which server a command speaks to: one order for all commands, and a word where it may not be the one that is meant.

1. A flag: ``--url`` (of HTTP or NATS), ``--context`` (of the nats command line), ``--data-dir``.
2. ``KALAM_URL``, of HTTP or NATS.
3. The context of the nats command line that ``NATS_CONTEXT`` names.
4. The server of a data directory, ``KALAM_DATA_DIR`` or ``./kalam-data``, which writes ``kalam.json`` there.
5. ``NATS_URL``, else the default ports.

Where only one of HTTP and NATS is known and a command needs the other, the server is asked (``discovery``). Who logs in
there, and with what, is found in the order of ``kalam.credentials``.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer
from msgspec.structs import replace

from kalam.cli.failure import CommandFailed, WrongUsage
from kalam.cli.telling import tell
from kalam.credentials import NOBODY, Credentials, find_credentials, of_context
from kalam.errors import InvalidName, InvalidOption
from kalam.kept_logins import place
from kalam.urls import redacted, tls_options, without_login

DEFAULT_DATA_DIR: Final = Path("kalam-data")
DEFAULT_HTTP: Final = "http://127.0.0.1:8080"
DEFAULT_NATS: Final = "nats://127.0.0.1:4222"
ANNOUNCEMENT: Final = "kalam.json"
HTTP_SCHEMES: Final = ("http", "https")
NATS_SCHEMES: Final = ("nats", "tls", "ws", "wss")

Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        "--nats-url",
        help="Where the server is: http://, https://, nats:// or ws://.  [default: KALAM_URL, else the context that "
        "NATS_CONTEXT names, else the server of the data directory, else NATS_URL, else the default ports]",
        show_default=False,
    ),
]
User = Annotated[
    str | None,
    typer.Option(
        help="Who logs in, or with authentication off as whom.  [default: KALAM_USER, else whom --url or `kalam login` "
        "names, else admin]",
        show_default=False,
    ),
]
PasswordFile = Annotated[
    Path | None,
    typer.Option(
        help="A file with the password.  [default: what --url or the context holds, else KALAM_TOKEN, else "
        "KALAM_PASSWORD, else the token that `kalam login` keeps for this server]",
        show_default=False,
    ),
]
Context = Annotated[
    str | None,
    typer.Option(help="A context of the nats command line that says where NATS is.", show_default=False),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        help="Data directory of the server, which says where it answers.  [default: KALAM_DATA_DIR, else kalam-data]",
        show_default=False,
    ),
]


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """Where a server is, and who logs in there.

    ``source`` says who said so; ``options`` are what nats-py takes for signing in.
    """

    source: str
    http: str | None = None
    nats: str | None = None
    options: dict[str, Any] = {}
    login: Credentials = NOBODY

    def http_url(self, prefix: str | None = None) -> str:
        """Where it answers HTTP; raises CommandFailed. ``prefix`` tells it from others on the same NATS."""
        if self.http is not None:
            return self.http
        from kalam.cli.discovery import http_of

        return http_of(self.nats_url(), self.login, self.nats_options(), prefix or _prefix())

    def nats_url(self, prefix: str | None = None) -> str:
        """Where it is found in NATS; raises CommandFailed. ``prefix`` is what its subjects begin with."""
        if self.nats is not None:
            return self.nats
        from kalam.cli.discovery import nats_of

        known = self.with_name()
        return nats_of(self.http_url(), known.login, known.nats_options(), prefix or _prefix())

    def may_speak_websocket(self) -> bool:
        """Whether NATS may have to be spoken to by WebSocket, which nats-py needs another library for."""
        return self.nats is None or "ws://" in self.nats or "wss://" in self.nats

    def nats_options(self) -> dict[str, Any]:
        """What nats-py's ``connect`` takes for logging in and for TLS; raises WrongUsage."""
        if self.login.is_nameless:
            raise WrongUsage("NATS does not tell whose token this is: say it with --user, or in KALAM_USER")
        return own_tls() | self.login.nats_options() | self.options

    def with_name(self) -> Address:
        """The same where it is known who asks: of a token alone the server tells it. Raises CommandFailed."""
        if not self.login.is_nameless or self.http is None:
            return self
        from kalam.cli.http import get_readiness

        return replace(self, login=replace(self.login, user=get_readiness(self.http, self.login).get("user")))


def _prefix() -> str:
    return os.environ.get("KALAM_SUBJECT_PREFIX") or "kalam"


def own_tls() -> dict[str, Any]:
    """What nats-py's ``connect`` takes where KALAM_CA or KALAM_CLIENT_CERT is set; raises WrongUsage."""
    try:
        return dict(tls_options())
    except ValueError as exc:
        raise WrongUsage(str(exc)) from exc


def find_server(
    url: str | None,
    context: str | None = None,
    data_dir: Path | None = None,
    *,
    user: str | None = None,
    password_file: Path | None = None,
) -> Address:
    """The server that a command speaks to, and who logs in there; tells where it may be another than is meant.

    Raises WrongUsage for what is no URL or no user, CommandFailed where a data directory has no server.
    """
    try:
        found = _found(url, context, data_dir)
        found, user = _user_of_context(found, user)
        login = None if password_file is not None else of_context(found.options, user)
        urls = filter(None, [found.http, found.nats])
        login = login or find_credentials(urls, user=user, password_file=password_file)
    except (InvalidName, InvalidOption) as exc:
        hint = f"\nhint: {exc.fields['hint']}" if "hint" in exc.fields else ""
        raise WrongUsage(f"{exc.detail}{hint}") from exc
    _tell_other(found)
    http = without_login(found.http) if found.http else None
    return replace(found, http=http, login=login)


def _found(url: str | None, context: str | None, data_dir: Path | None) -> Address:
    if url:
        return _of_url(url, "--url")
    if context:
        return _of_context(context, "--context")
    if data_dir is not None:
        return _of_data_dir(data_dir)
    if url := os.environ.get("KALAM_URL"):
        return _of_url(url, "KALAM_URL")
    if context := os.environ.get("NATS_CONTEXT"):
        return _of_context(context, "NATS_CONTEXT")
    if given := os.environ.get("KALAM_DATA_DIR"):
        return _of_data_dir(Path(given))
    if read_announcement(DEFAULT_DATA_DIR) is not None:
        return _of_data_dir(DEFAULT_DATA_DIR)
    if url := os.environ.get("NATS_URL"):
        return _of_url(url, "NATS_URL")
    return Address(source="the default", http=DEFAULT_HTTP, nats=DEFAULT_NATS)


def _of_url(url: str, source: str) -> Address:
    scheme = url.partition("://")[0] if "://" in url else ""
    if scheme in HTTP_SCHEMES:
        return Address(source=source, http=url)
    if scheme in NATS_SCHEMES or (not scheme and source == "NATS_URL"):
        return Address(source=source, nats=url)
    raise WrongUsage(f"{url!r} ({source}) is no URL like {DEFAULT_HTTP} or {DEFAULT_NATS}")


def _of_context(name: str, source: str) -> Address:
    from kalam.outside import context_options

    options = context_options(name)
    first, *_ = options.pop("servers")
    return Address(source=f"{source} {name}", nats=first, options=options)


def _user_of_context(found: Address, user: str | None) -> tuple[Address, str | None]:
    """The user whom a context of ``kalam context`` names: without a password the tool takes one for a token."""
    name = found.options.get("token")
    if name is None or found.options.get("inbox_prefix") != f"_INBOX.{name}":
        return found, user
    options = {key: value for key, value in found.options.items() if key != "token"}
    return replace(found, options=options), user or name


def _of_data_dir(data_dir: Path) -> Address:
    announced = read_announcement(data_dir)
    if announced is None:
        raise CommandFailed(f"error: no server has announced itself in {data_dir}: there is no {ANNOUNCEMENT}")
    http, nats = announced.get("http_url"), announced.get("nats_url")
    return Address(source=str(data_dir), http=http or DEFAULT_HTTP, nats=nats or DEFAULT_NATS)


def read_announcement(data_dir: Path) -> dict[str, Any] | None:
    """What the server of this data directory announced, or None if none did."""
    try:
        announced = json.loads((data_dir / ANNOUNCEMENT).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as exc:
        raise CommandFailed(f"error: cannot read {data_dir / ANNOUNCEMENT}: {exc}") from exc
    return announced if isinstance(announced, dict) else None


def _tell_other(found: Address) -> None:
    """Say which server is spoken to where it is not the last one of this folder."""
    here = DEFAULT_DATA_DIR
    url = found.http or found.nats or ""
    spoken = f"speaking to {redacted(url)} ({found.source})"
    try:
        last = read_announcement(here)
    except CommandFailed:
        return
    if last is None:
        if found.source == "the default" and here.is_dir():
            tell(f"{spoken}: no server runs on {here}")
        return
    known = {place(last[name]) for name in ("http_url", "nats_url", "nats_ws_url") if last.get(name)}
    if known.isdisjoint({place(each) for each in (found.http, found.nats) if each}):
        tell(f"{spoken}, not to the server of {here} ({redacted(str(last.get('http_url')))})")
    elif _has_ended(last.get("pid")) and _is_here(url):
        tell(f"{spoken}: the server that announced itself there has ended; whoever answers may be another")


def _is_here(url: str) -> bool:
    return place(url)[0] in ("127.0.0.1", "::1")


def _has_ended(pid: Any) -> bool:
    if not isinstance(pid, int):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
