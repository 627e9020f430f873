"""Which server a command speaks to: one order for all commands, and a word where it may not be the one that is meant.

1. A flag: ``--url`` (of HTTP or NATS), ``--context`` (of the nats command line), ``--data-dir``.
2. ``KALAM_URL``, of HTTP or NATS.
3. The context of the nats command line that ``NATS_CONTEXT`` names.
4. The server of a data directory, ``KALAM_DATA_DIR`` or ``./kalam-data``, which writes ``kalam.json`` there.
5. ``NATS_URL``, else the default ports.

Where only one of HTTP and NATS is known and a command needs the other, the server is asked (``discovery``).
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import msgspec
import typer

from kalam.cli.failure import CommandFailed, WrongUsage
from kalam.cli.telling import tell
from kalam.urls import redacted

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
    """Where a server is. ``source`` says who said so; ``options`` are what nats-py takes for signing in."""

    source: str
    http: str | None = None
    nats: str | None = None
    options: dict[str, Any] = {}

    def http_url(self, prefix: str | None = None) -> str:
        """Where it answers HTTP; raises CommandFailed. ``prefix`` tells it from others on the same NATS."""
        if self.http is not None:
            return self.http
        from kalam.cli.discovery import http_of

        return http_of(self.nats_url(), self.options, prefix or os.environ.get("KALAM_SUBJECT_PREFIX") or "kalam")

    def nats_url(self) -> str:
        """Where it is found in NATS; raises CommandFailed."""
        if self.nats is not None:
            return self.nats
        from kalam.cli.discovery import nats_of

        return nats_of(self.http_url())


def find_server(url: str | None, context: str | None = None, data_dir: Path | None = None) -> Address:
    """The server that a command speaks to, after its flags; tells where it may be another than is meant.

    Raises WrongUsage for what is no URL, CommandFailed where a data directory has no server.
    """
    found = _found(url, context, data_dir)
    _tell_other(found)
    return found


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
    from kalam.server import context_options

    options = context_options(name)
    first, *_ = options.pop("servers")
    return Address(source=f"{source} {name}", nats=first, options=options)


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
    known = {_same(last[name]) for name in ("http_url", "nats_url", "nats_ws_url") if last.get(name)}
    if known.isdisjoint({_same(each) for each in (found.http, found.nats) if each}):
        tell(f"{spoken}, not to the server of {here} ({redacted(str(last.get('http_url')))})")
    elif _has_ended(last.get("pid")) and _is_here(url):
        tell(f"{spoken}: the server that announced itself there has ended; whoever answers may be another")


def _same(url: str) -> tuple[str | None, int | None]:
    """What is the same in two spellings of an address."""
    try:
        parts = urlsplit(url if "://" in url else f"nats://{url}")
        host = "127.0.0.1" if parts.hostname == "localhost" else parts.hostname
        return host, parts.port
    except ValueError:
        return url, None


def _is_here(url: str) -> bool:
    return _same(url)[0] in ("127.0.0.1", "::1")


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
