"""``kalam serve``: run a server until it is told to stop."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from kalam.cli.failure import WrongUsage
from kalam.cli.lean_start import lean_start, unused_packages
from kalam.errors import InvalidOption


def serve(
    data_dir: Annotated[Path | None, typer.Option(help="Where everything is kept.  [default: ./kalam-data]")] = None,
    http_host: Annotated[str | None, typer.Option(help="Address of the HTTP API.  [default: 127.0.0.1]")] = None,
    http_port: Annotated[int | None, typer.Option(help="Its port; 0 takes a free one.  [default: 8080]")] = None,
    nats_host: Annotated[
        str | None, typer.Option(help="Address of the embedded nats-server.  [default: 127.0.0.1]")
    ] = None,
    nats_port: Annotated[int | None, typer.Option(help="Its port; 0 takes a free one.  [default: 4222]")] = None,
    nats_ws_port: Annotated[int | None, typer.Option(help="Its WebSocket port; 0 for none.  [default: 0]")] = None,
    nats_url: Annotated[
        str | None, typer.Option(help="An outside NATS instead of the embedded one (also NATS_URL).")
    ] = None,
    nats_context: Annotated[str | None, typer.Option(help="A context of the nats CLI that says where NATS is.")] = None,
    config: Annotated[Path | None, typer.Option(help="A TOML file with settings.")] = None,
    log_format: Annotated[str | None, typer.Option(help="text or json.  [default: text]")] = None,
) -> None:
    """Run the server: NATS, the tables, HTTP.

    Every setting is also an environment variable KALAM_<NAME> and a key of the TOML file; flags win.
    """
    with lean_start(()):
        from kalam.settings import load_settings

    flags = {
        "data_dir": data_dir,
        "http_host": http_host,
        "http_port": http_port,
        "nats_host": nats_host,
        "nats_port": nats_port,
        "nats_ws_port": nats_ws_port,
        "nats_url": nats_url,
        "nats_context": nats_context,
        "log_format": log_format,
    }
    try:
        settings = load_settings(config, **flags)
    except InvalidOption as exc:
        raise WrongUsage(exc.detail) from exc
    urls = (settings.nats_url, os.environ.get("NATS_URL"))
    with lean_start([] if settings.nats_context else unused_packages(urls)):
        from kalam.server import run

    raise typer.Exit(run(settings))
