"""``kalam tail``: the rows of a live query, and then every change, until ^C."""

from __future__ import annotations

import enum
import json
import re
import signal
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kalam.cli.address import Address, Context, DataDir, PasswordFile, Url, User, find_server
from kalam.cli.failure import CommandFailed, WrongUsage
from kalam.cli.telling import tell
from kalam.names import NAME_PATTERN

if TYPE_CHECKING:  # the client imports NATS, which the command does when it runs
    from kalam.client import Change, LiveRows

_AGE = re.compile(r"([0-9]{1,5})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
END_S = 2.0  # how long the last change may still take to be printed


class TailFormat(enum.StrEnum):
    """How changes are written."""

    TEXT = "text"
    JSON = "json"


def tail(
    what: Annotated[str, typer.Argument(help="A table, as namespace.table, or a query: SELECT …")],
    last: Annotated[int, typer.Option("--last", "-n", min=0, help="Rows to begin with, those changed last.")] = 10,
    form: Annotated[TailFormat, typer.Option("--format", help="How changes are written.")] = TailFormat.TEXT,
    token: Annotated[
        str | None, typer.Option(help="Go on where an earlier tail ended: the token that it printed.")
    ] = None,
    since: Annotated[
        str | None, typer.Option(help="Begin with the events of a STREAM table that are not older, such as 5m or 2h.")
    ] = None,
    url: Url = None,
    context: Context = None,
    data_dir: DataDir = None,
    user: User = None,
    password_file: PasswordFile = None,
    subject_prefix: Annotated[
        str, typer.Option(envvar="KALAM_SUBJECT_PREFIX", help="First token of the server's subjects.")
    ] = "kalam",
) -> None:
    """Print the rows of a table or query, and then every change as it happens.

    ^C ends it and prints a token, with which --token goes on later without missing a change.
    """
    sql = _sql(what)
    if since is not None and token is not None:
        raise WrongUsage("--since and --token each say where to begin: give one")
    began = None if since is None else _moment(since)
    import asyncio

    where = find_server(url, context, data_dir, user=user, password_file=password_file).with_name()
    nats_url = where.nats_url(subject_prefix)
    ended = asyncio.run(_follow(nats_url, where, subject_prefix, sql, last, token, began, form))
    if ended:
        typer.echo(f"resume with --token {ended}", err=True)


def _moment(age: str) -> datetime:
    """When something of this age began."""
    found = _AGE.fullmatch(age.strip())
    if found is None:
        raise WrongUsage(f"--since {age[:40]!r} is no time like 90s, 5m, 2h or 7d")
    return datetime.now(UTC) - timedelta(**{_UNITS[found[2]]: int(found[1])})


def _sql(what: str) -> str:
    namespace, dot, table = what.strip().partition(".")
    if dot and NAME_PATTERN.fullmatch(namespace) and NAME_PATTERN.fullmatch(table):
        return f"SELECT * FROM {namespace}.{table}"  # noqa: S608 - both are names
    if what.lstrip()[:6].upper() != "SELECT":
        raise WrongUsage(f"{what[:80]!r} is neither namespace.table nor a SELECT")
    return what


async def _follow(
    url: str,
    where: Address,
    prefix: str,
    sql: str,
    last: int,
    token: str | None,
    since: datetime | None,
    form: TailFormat,
) -> str | None:
    """Print changes until ^C; the token to go on with."""
    import asyncio

    from kalam.cli.connection import connected
    from kalam.client import LiveClosed

    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with connected(where, url, prefix) as kalam:
        begins = token is not None or since is not None
        live = kalam.live(sql, last_rows=None if begins else last, token=token, from_time=since)
        tell(f"listening to {sql} as {where.login.name}; ^C ends it")
        printing = asyncio.create_task(_print_all(live, form))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait((printing, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        printing.cancel()
        await asyncio.wait((printing,), timeout=END_S)
        failure = printing.exception() if printing.done() and not printing.cancelled() else None
        if isinstance(failure, LiveClosed):
            raise CommandFailed(f"error: {failure}") from failure
        if isinstance(failure, BrokenPipeError):
            return None
        if failure is not None:
            raise failure
        return live.token


async def _print_all(live: LiveRows, form: TailFormat) -> None:
    write = _json_line if form is TailFormat.JSON else _text_line
    async for change in live:
        sys.stdout.write(write(change) + "\n")
        sys.stdout.flush()


def _json_line(change: Change) -> str:
    members: dict[str, Any] = {"op": change.op, "seq": change.seq, "row": change.row, "old": change.old}
    return json.dumps({name: value for name, value in members.items() if value is not None}, ensure_ascii=False)


MARKS = {"snapshot": " ", "insert": "+", "update": "~", "delete": "-"}


def _text_line(change: Change) -> str:
    if change.op == "reset":
        return "! the changes in between are not kept any more; the rows as they are now:"
    shown = json.dumps(change.row, ensure_ascii=False)
    former = f"  was {json.dumps(change.old, ensure_ascii=False)}" if change.old else ""
    return f"{MARKS[change.op]} {shown}{former}"
