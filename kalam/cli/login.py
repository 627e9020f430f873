"""``kalam login``, ``kalam logout`` and ``kalam context``: a token of this machine's, its end, and NATS's own tool."""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from msgspec.structs import replace

from kalam.cli.address import Context, DataDir, PasswordFile, Url, User, find_server
from kalam.cli.failure import CommandFailed, WrongUsage
from kalam.cli.http import Refusal, ask_sql, get_json, get_readiness
from kalam.cli.problem_text import problem_text
from kalam.cli.telling import tell
from kalam.credentials import PASSWORD, Credentials, without_line_end
from kalam.errors import AlreadyExists, NotFound, Unauthenticated
from kalam.kept_logins import KeptLogin, forget, keep, kept_login
from kalam.urls import CA

NAMES_MAX: Final = 20
"""Tokens of one machine that may be there already; another one is not made beyond."""
NAME_LENGTH: Final = 60


def login(
    url: Url = None,
    context: Context = None,
    data_dir: DataDir = None,
    user: User = None,
    password_file: Annotated[
        Path | None,
        typer.Option(
            help="A file with the password.  [default: KALAM_PASSWORD, else a terminal asks, else standard input]",
            show_default=False,
        ),
    ] = None,
    expires: Annotated[str, typer.Option(help="How long the token is good for, such as 12h or 90d.")] = "90d",
) -> None:
    """Log in: commands and Python programs on this machine are let in from now on, without a password.

    The server makes a token, which is kept in the configuration folder (XDG_CONFIG_HOME, else ~/.config) in a file
    that only you can read; SHOW TOKENS shows the machine's name. `kalam logout` ends it.
    """
    where = find_server(url, context, data_dir, user=user, password_file=password_file)
    where = replace(where, login=_by_password(where.login, user))
    http_url = where.http_url()
    try:
        if not get_json(http_url, "/v1/me", login=where.login)["authentication"]:
            raise CommandFailed(
                f"error: {http_url} asks nobody who they are (its setting auth is off): no need to log in"
            )
        name, token, until = _make_token(http_url, where.login, expires)
    except Refusal as exc:
        raise CommandFailed(problem_text(exc.problem)) from exc
    urls = tuple({http_url, *filter(None, [where.nats, _nats_url(http_url, where.login)])})
    before = kept_login(urls, where.login.name)
    file = keep(KeptLogin(user=where.login.name, token=token, name=name, urls=urls))
    if before is not None:
        _drop(http_url, where.login, before.name)
    tell(f"logged in as {where.login.name} at {http_url}, until {until}; the token is in {file}")


def logout(
    url: Url = None,
    context: Context = None,
    data_dir: DataDir = None,
    user: Annotated[
        str | None, typer.Option(help="Who logs out.  [default: who logged in last]", show_default=False)
    ] = None,
) -> None:
    """Log out: drop the token that `kalam login` keeps, at the server and on this machine."""
    where = find_server(url, context, data_dir, user=user)
    kept = kept_login(filter(None, [where.http, where.nats]), user)
    if kept is None:
        who = user or "nobody"
        raise CommandFailed(f"error: {who} is {'not ' if user else ''}logged in at {where.http or where.nats}")
    where = replace(where, login=_credentials_of(kept))
    try:
        _drop(where.http_url(), where.login, kept.name)
    except CommandFailed as exc:
        raise CommandFailed(
            f"{exc.text}\nThe token is not kept here any more, and lives on at the server: DROP TOKEN '{kept.name}'"
        ) from exc
    finally:
        forget(kept)
    tell(f"{kept.user} is logged out; the token {kept.name!r} is dropped")


def context(
    user: Annotated[
        str | None, typer.Argument(help="The user.  [default: who is logged in]", show_default=False)
    ] = None,
    url: Url = None,
    nats_context: Annotated[
        str | None,
        typer.Option("--context", help="Another context, which says where NATS is.", show_default=False),
    ] = None,
    data_dir: DataDir = None,
    password_file: PasswordFile = None,
    with_token: Annotated[
        bool, typer.Option("--with-token", help="Put in the token of `kalam login`, too; keep the file to yourself.")
    ] = False,
) -> None:
    """Print a context of the nats command line: where NATS is, the user, and the inbox prefix that is theirs.

    `kalam context ada > ~/.config/nats/context/ada.json`, and then `nats --context ada --password …`, or NATS_PASSWORD.
    """
    where = find_server(url, nats_context, data_dir, user=user, password_file=password_file).with_name()
    name, address = where.login.name, where.nats_url()
    written = {"description": f"Kalam as {name}", "url": address, "user": name, "inbox_prefix": f"_INBOX.{name}"}
    if with_token:
        kept = kept_login(filter(None, [where.http, where.nats]), name)
        if kept is None:
            raise CommandFailed(f"error: {name} is not logged in at {address}: kalam login --user {name}")
        written["password"] = kept.token
    if ca := os.environ.get(CA):
        written["ca"] = str(Path(ca).resolve())
    typer.echo(json.dumps(written, indent=2))


def _by_password(found: Credentials, user: str | None) -> Credentials:
    """Who logs in with which password: as it was found, or as it is asked for."""
    if found.secret is not None and not found.is_token:
        return found
    at_terminal = sys.stdin.isatty()
    name = user or found.user or (typer.prompt("User", default="admin", err=True) if at_terminal else "admin")
    return Credentials(user=name, secret=_asked_password(name, at_terminal), source="the password")


def _asked_password(name: str, at_terminal: bool) -> str:
    if given := os.environ.get(PASSWORD):
        return given
    if at_terminal:
        return str(typer.prompt(f"Password of {name}", hide_input=True, err=True))
    try:
        return without_line_end(sys.stdin.buffer.readline().decode())
    except UnicodeDecodeError as exc:
        raise WrongUsage("standard input is no UTF-8 text") from exc


def _make_token(http_url: str, login: Credentials, expires: str) -> tuple[str, str, str]:
    """A new token under a name that says which machine it is of; the name, the token and its end. Raises Refusal."""
    machine = f"kalam login on {socket.gethostname()}"[:NAME_LENGTH]
    for number in range(1, NAMES_MAX + 1):
        name = machine if number == 1 else f"{machine} {number}"
        try:
            [made] = _run(http_url, login, f"CREATE TOKEN {_quoted(name)} EXPIRES {_quoted(expires)}")
        except Refusal as exc:
            if exc.problem["code"] != AlreadyExists.code or number == NAMES_MAX:
                raise
        else:
            return name, made["token"], str(made["expires_at"])
    raise AssertionError


def _drop(http_url: str, login: Credentials, name: str) -> None:
    """End a token, unless it has ended."""
    try:
        _run(http_url, login, f"DROP TOKEN {_quoted(name)} FOR {_quoted_user(login.name)}")
    except Refusal as exc:
        if exc.problem["code"] not in (NotFound.code, Unauthenticated.code):
            raise CommandFailed(problem_text(exc.problem)) from exc


def _run(http_url: str, login: Credentials, sql: str) -> list[dict[str, Any]]:
    [result] = json.loads(ask_sql(http_url, sql, login=login))["results"]
    names = [column["name"] for column in result["columns"]]
    return [dict(zip(names, row, strict=True)) for row in result["rows"]]


def _nats_url(http_url: str, login: Credentials) -> str | None:
    from kalam.client.whereabouts import seen_from

    url = get_readiness(http_url, login).get("server", {}).get("nats_url")
    return None if url is None else seen_from(http_url, url)


def _credentials_of(kept: KeptLogin) -> Credentials:
    return Credentials(user=kept.user, secret=kept.token, is_token=True, source="kalam login")


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _quoted_user(name: str) -> str:
    return f'"{name}"'
