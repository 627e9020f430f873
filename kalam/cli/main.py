"""``kalam``: the commands, and what becomes of their failures.

A command's module is imported at the start so that ``--help`` can describe it, and therefore imports only what is
light; a command imports its heavy libraries when it runs.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Annotated, Final

import typer

from kalam import __version__
from kalam.bench import command as bench
from kalam.cli import (
    backup,
    completion,
    config,
    demo,
    export,
    flush,
    insert,
    login,
    manual,
    nats_config,
    serve,
    sql,
    tail,
    user,
)
from kalam.cli.doctor import command as doctor
from kalam.cli.failure import CommandFailed
from kalam.cli.shell import command as shell
from kalam.cli.telling import NoColor, Quiet, choose, with_flags
from kalam.errors import Internal, KalamError
from kalam.urls import redacted_text

TRACEBACK: Final = "KALAM_TRACEBACK"

app = typer.Typer(
    name="kalam",
    help="SQL tables on NATS.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def version() -> None:
    """Print the version."""
    typer.echo(__version__)


for name, command in (
    ("serve", serve.serve),
    ("demo", demo.demo),
    ("sql", sql.sql),
    ("shell", shell.shell),
    ("help", manual.show_page),
    ("insert", insert.insert),
    ("tail", tail.tail),
    ("export", export.export),
    ("flush", flush.flush),
    ("login", login.login),
    ("logout", login.logout),
    ("context", login.context),
    ("backup", backup.backup),
    ("restore", backup.restore),
    ("doctor", doctor.doctor),
    ("bench", bench.bench),
    ("nats-config", nats_config.nats_config),
    ("completion", completion.completion),
    ("version", version),
):
    app.command(name)(with_flags(command))
app.add_typer(config.app, name="config")
app.add_typer(user.app, name="user")


def _version_option(given: bool) -> None:
    if given:
        version()
        raise typer.Exit


@app.callback()
def options(
    _: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_version_option, is_eager=True)
    ] = False,
    quiet: Quiet = False,
    no_color: NoColor = False,
) -> None:
    """SQL tables on NATS."""
    choose(quiet, no_color)


def main() -> None:
    """Run the command line and end the process."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal without some character is no reason to fail
    # What nats-py has to say is raised, too; what it logs when a command is interrupted is noise. `serve` sets its own.
    for noisy in ("nats", "asyncio"):  # and what its transport of WebSockets leaves behind when nobody answers
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    try:
        app(prog_name="kalam")
    except CommandFailed as exc:
        sys.stdout.flush()  # results that came before a failure stand before it, also where both go to one place
        typer.echo(exc.text, err=True)
        sys.exit(exc.status)
    except KalamError as exc:
        typer.echo(redacted_text(f"error [{exc.code}]: {exc.detail}"), err=True)
        if "hint" in exc.fields:
            typer.echo(f"hint: {exc.fields['hint']}", err=True)
        sys.exit(1)
    except Exception as exc:
        if os.environ.get(TRACEBACK):
            raise
        sys.stdout.flush()
        typer.echo(redacted_text(f"error [{Internal.code}]: {type(exc).__name__}: {exc}"), err=True)
        typer.echo(f"hint: this is a defect of Kalam; with {TRACEBACK}=1 it shows where it lies", err=True)
        sys.exit(1)
