"""``kalam demo``: a real server, a week of real earthquakes, and what one would show a colleague."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer


class Authentication(enum.StrEnum):
    """As the setting ``auth`` of a server."""

    OFF = "off"
    ON = "on"


def demo(
    fast: Annotated[bool, typer.Option("--fast", help="Do not wait: replay the week as quickly as possible.")] = False,
    data_dir: Annotated[
        Path | None, typer.Option(help="Where to keep the data.  [default: a temporary folder]", show_default=False)
    ] = None,
    auth: Annotated[Authentication, typer.Option(help="Whether users log in, and may do what was granted.")] = (
        Authentication.OFF
    ),
    keep: Annotated[bool, typer.Option("--keep", help="Do not remove the temporary folder at the end.")] = False,
) -> None:
    """Show Kalam at work on a week of real earthquakes."""
    from kalam.cli.demo_story import run_demo

    raise typer.Exit(run_demo(fast=fast, data_dir=data_dir, keep=keep, guarded=auth is Authentication.ON))
