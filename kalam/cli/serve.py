"""``kalam serve``: run a server until it is told to stop."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kalam.allocator import choose_allocator
from kalam.cli.failure import WrongUsage
from kalam.cli.telling import is_quiet
from kalam.errors import InvalidOption
from kalam.imports import DATA_FRAMES, OBJECT_STORES, TRACEBACKS, WEBSOCKETS, forgo, without

if TYPE_CHECKING:
    from kalam.settings import Settings


def serve(
    data_dir: Annotated[Path | None, typer.Option(help="Where everything is kept.  [default: ./kalam-data]")] = None,
    http_host: Annotated[str | None, typer.Option(help="Address of the HTTP API.  [default: 127.0.0.1]")] = None,
    http_port: Annotated[int | None, typer.Option(help="Its port; 0 takes a free one.  [default: 8080]")] = None,
    nats_host: Annotated[str | None, typer.Option(help="Address of its own NATS.  [default: 127.0.0.1]")] = None,
    nats_port: Annotated[int | None, typer.Option(help="Its port; 0 takes a free one.  [default: 4222]")] = None,
    nats_ws_port: Annotated[int | None, typer.Option(help="Its WebSocket port; 0 for none.  [default: 0]")] = None,
    nats_url: Annotated[str | None, typer.Option(help="An outside NATS instead of its own (also NATS_URL).")] = None,
    nats_context: Annotated[str | None, typer.Option(help="A context of the nats CLI that says where NATS is.")] = None,
    pg_host: Annotated[str | None, typer.Option(help="Address of the PostgreSQL door.  [default: 127.0.0.1]")] = None,
    pg_port: Annotated[int | None, typer.Option(help="Its port, e.g. 5432; 0: a free one.  [default: none]")] = None,
    accept_loss: Annotated[
        bool | None,
        typer.Option("--accept-loss", help="Start although something is missing or older than it was."),
    ] = None,
    auth: Annotated[
        str | None, typer.Option(help="on: who comes has to log in, and may do what was granted.  [default: off]")
    ] = None,
    insecure: Annotated[
        bool | None, typer.Option("--insecure", help="Let other machines connect although authentication is off.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="A TOML file with settings.")] = None,
    log_format: Annotated[str | None, typer.Option(help="text or json.  [default: text]")] = None,
) -> None:
    """Run the server: NATS, the tables, HTTP.

    Every setting is also an environment variable KALAM_<NAME> and a key of the TOML file; flags win.
    """
    choose_allocator()
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy's threads, which wait by spinning, have nothing to do
    from kalam.settings import load_settings

    flags = {
        "data_dir": data_dir,
        "http_host": http_host,
        "http_port": http_port,
        "nats_host": nats_host,
        "nats_port": nats_port,
        "nats_ws_port": nats_ws_port,
        "nats_url": nats_url,
        "pg_host": pg_host,
        "pg_port": pg_port,
        "nats_context": nats_context,
        "accept_loss": accept_loss,
        "auth": auth,
        "insecure": insecure,
        "log_format": log_format,
        "log_level": "warning" if is_quiet() else None,
    }
    try:
        settings = load_settings(config, **flags)
    except InvalidOption as exc:
        raise WrongUsage(exc.detail) from exc
    forgo(DATA_FRAMES, *OBJECT_STORES)
    with without(TRACEBACKS, *(() if _may_speak_websocket(settings) else (WEBSOCKETS,))):
        from kalam.process import run

    raise typer.Exit(run(settings))


def _may_speak_websocket(settings: Settings) -> bool:
    urls = (settings.nats_url, os.environ.get("NATS_URL"))
    return settings.nats_context is not None or any("ws://" in url or "wss://" in url for url in urls if url)
