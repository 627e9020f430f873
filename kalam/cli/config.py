"""``kalam config``: which settings a server would run with, where each came from, and what is wrong with them."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from kalam.cli.failure import FAILED, CommandFailed, WrongUsage
from kalam.cli.telling import is_styled, with_flags
from kalam.errors import InvalidOption

if TYPE_CHECKING:  # pydantic takes a while, and most commands need no settings
    from kalam.settings import Settings

app = typer.Typer(help="Show or check the settings of a server.", no_args_is_help=True, rich_markup_mode=None)
COLUMNS: Final = ("setting", "value", "from")
SECRET_NAME: Final = re.compile(r"password|secret|token|credential")
IN_URL: Final = re.compile(r"(^|://|,\s*)[^/,\s]+(?=@)")
"""Who signs in, in a URL."""
MASK: Final = "***"

DataDir = Annotated[Path | None, typer.Option(help="The data directory.  [default: ./kalam-data]")]
NatsUrl = Annotated[str | None, typer.Option(help="An outside NATS (also NATS_URL).")]
Config = Annotated[Path | None, typer.Option(help="A TOML file with settings.")]


def show(data_dir: DataDir = None, nats_url: NatsUrl = None, config: Config = None) -> None:
    """Show each setting, its value and where it came from: default, the file, a variable or a flag."""
    from kalam.cli.result_formats import table_lines
    from kalam.settings import load_settings, sources

    flags = {"data_dir": data_dir, "nats_url": nats_url}
    try:
        settings = load_settings(config, **flags)
    except InvalidOption as exc:
        raise CommandFailed(f"error: {exc.detail}\n`kalam config check` shows all that is wrong.") from exc
    rows = list(_rows(settings, sources(config, os.environ, flags)))
    table = {"columns": [{"name": name, "type": "TEXT"} for name in COLUMNS], "rows": rows}
    lines = table_lines(table, styled=is_styled(sys.stdout), encoding=sys.stdout.encoding)
    sys.stdout.writelines(f"{line.rstrip()}\n" for line in lines)


def check(data_dir: DataDir = None, nats_url: NatsUrl = None, config: Config = None) -> None:
    """Say what is wrong with the settings, of which a server would not start or not take notice; exit status 1 then."""
    from kalam.settings import faults, load_settings
    from kalam.start_checks import check_exposure, doubts

    if config is not None and not config.is_file():
        raise WrongUsage(f"the settings file {config} does not exist")
    flags = {"data_dir": data_dir, "nats_url": nats_url}
    wrong = faults(config, **flags)
    if not wrong:
        try:
            check_exposure(load_settings(config, **flags))
        except InvalidOption as exc:
            wrong = [f"{exc.detail}; {exc.fields['hint']}"]
    for text in wrong:
        typer.echo(f"fail  {masked(text)}")
    if not wrong:
        for message, fields in doubts(load_settings(config, **flags), os.environ):
            level = "fail" if "variable" in fields else "warn"
            wrong += [message] if level == "fail" else []
            typer.echo(f"{level}  {_doubt(message, fields)}")
    if wrong:
        raise typer.Exit(FAILED)
    typer.echo("ok    the settings are valid")


def _doubt(message: str, fields: Mapping[str, str | None]) -> str:
    named = fields.get("variable")
    if named is None:
        shown = ", ".join(f"{name} {value}" for name, value in fields.items())
        return f"{message} ({shown})"
    meant = fields.get("meant")
    return f"{named} is no setting" + (f"; {meant} was probably meant" if meant else "")


def _rows(settings: Settings, where: Mapping[str, str]) -> Iterator[list[str]]:
    from_nats = os.environ.get("NATS_URL")
    for name in type(settings).model_fields:
        value, source = getattr(settings, name), where.get(name, "default")
        if name == "nats_url" and value is None and from_nats and settings.nats_context is None:
            value, source = from_nats, "NATS_URL"
        yield [name, _shown(name, value), source]


def _shown(name: str, value: Any) -> str:
    if value is None or value == ():
        return "none"
    if SECRET_NAME.search(name):
        return MASK
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.15g}"
    return masked(",".join(map(str, value)) if isinstance(value, tuple) else str(value))


def masked(text: str) -> str:
    """A text without the passwords and tokens of the URLs in it."""
    return IN_URL.sub(rf"\g<1>{MASK}", text)


app.command("show")(with_flags(show))
app.command("check")(with_flags(check))
