"""``kalam user``: what is done to users without a server."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from kalam.cli.address import DEFAULT_DATA_DIR
from kalam.cli.failure import WrongUsage
from kalam.cli.telling import tell, with_flags
from kalam.errors import InvalidOption

app = typer.Typer(help="Help a user of a stopped server.", no_args_is_help=True, rich_markup_mode=None)


def reset_password(
    name: Annotated[str, typer.Argument(help="The user.")],
    data_dir: Annotated[
        Path, typer.Option(envvar="KALAM_DATA_DIR", help="The data directory; its server is stopped.")
    ] = DEFAULT_DATA_DIR,
    password_file: Annotated[
        Path | None, typer.Option(help="A file that holds the new password.  [default: a terminal asks, else stdin]")
    ] = None,
) -> None:
    """Give a user another password, on the data directory of a stopped server.

    A terminal asks for it, twice; otherwise it is the first line of standard input, or it is in a file. Sessions of
    the user end, tokens stay.
    """
    password = _new_password(name, password_file)
    from kalam.access.offline import reset_password as reset

    reset(data_dir, name, password)
    tell(f"{name} has another password; sessions have ended")


def _new_password(name: str, file: Path | None) -> str:
    from kalam.credentials import read_password, without_line_end

    if file is not None:
        try:
            return read_password(file, "--password-file")
        except InvalidOption as exc:
            raise WrongUsage(exc.detail) from exc
    if sys.stdin.isatty():
        return str(typer.prompt(f"New password of {name}", hide_input=True, confirmation_prompt=True, err=True))
    try:
        return without_line_end(sys.stdin.buffer.readline().decode())
    except UnicodeDecodeError as exc:
        raise WrongUsage("standard input is no UTF-8 text") from exc


app.command("reset-password")(with_flags(reset_password))
