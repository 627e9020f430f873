"""``kalam doctor``: the flags, the order of the examinations, the lines."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from kalam.cli.address import PasswordFile, User, read_announcement
from kalam.cli.failure import FAILED, CommandFailed, WrongUsage
from kalam.credentials import NOBODY, Credentials, find_credentials
from kalam.errors import InvalidName, InvalidOption

if TYPE_CHECKING:
    from kalam.cli.doctor.finding import Finding

WIDTH: Final = 16


def doctor(
    data_dir: Annotated[Path | None, typer.Option(help="The data directory.  [default: ./kalam-data]")] = None,
    nats_url: Annotated[str | None, typer.Option(help="An outside NATS (also NATS_URL).")] = None,
    config: Annotated[Path | None, typer.Option(help="A TOML file with settings.")] = None,
    user: User = None,
    password_file: PasswordFile = None,
) -> None:
    """Say what is wrong and what to do, whether the server runs or not; exit status 1 if something is.

    Looks at the machine, the data directory, the broker and the server, and changes nothing. A server whose users log
    in tells administrators which tables are in trouble.
    """
    from kalam.cli.doctor import broker, directory, lake, machine, running, segments
    from kalam.cli.doctor.finding import Patient, examine
    from kalam.settings import load_settings

    try:
        settings = load_settings(config, data_dir=data_dir, nats_url=nats_url)
    except InvalidOption as exc:
        raise WrongUsage(exc.detail) from exc
    announced = _announced(settings.data_dir)
    patient = Patient(settings, settings.data_dir, announced, _login(announced, user, password_file))
    failed = 0
    for examination in (
        machine.versions,
        machine.nats_server,
        machine.sqlite,
        machine.open_files,
        machine.ports,
        machine.disk,
        directory.data_directory,
        directory.database,
        directory.unclaimed_files,
        segments.segments,
        broker.broker,
        running.server,
        running.tables,
        running.lost_events,
        lake.lake,
    ):
        for finding in examine(examination, patient):
            _print(finding)
            failed += finding.level == "fail"
    raise typer.Exit(FAILED if failed else 0)


def _login(announced: dict[str, Any] | None, user: str | None, password_file: Path | None) -> Credentials:
    if announced is None:
        return NOBODY
    try:
        return find_credentials((announced["http_url"], announced["nats_url"]), user=user, password_file=password_file)
    except (InvalidName, InvalidOption) as exc:
        raise WrongUsage(exc.detail) from exc


def _announced(data_dir: Path) -> dict[str, Any] | None:
    """What the server says that holds the lock of the data directory; None if none does."""
    try:
        descriptor = os.open(data_dir / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        announced = read_announcement(data_dir)
        if announced is None:
            raise CommandFailed(f"error: a server is starting or stopping on {data_dir}; try again") from None
        return announced
    finally:
        os.close(descriptor)
    return None


def _print(finding: Finding) -> None:
    typer.echo(f"{finding.level:<4}  {finding.what:<{WIDTH}} {finding.text}")
    if finding.advice and finding.level != "ok":
        typer.echo(f"{'':<4}  {'':<{WIDTH}} → {finding.advice}")
