"""The meta commands: lines that begin with a backslash, named as psql names them where psql has one."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from kalam.cli.failure import CommandFailed, WrongUsage

if TYPE_CHECKING:
    from kalam.cli.shell.session import Session


JOBS: Final = (
    "SELECT status, job_type, namespace, table_name, started_at, finished_at, coalesce(error, result) AS result, "
    "job_id FROM system.jobs ORDER BY created_at DESC"
)
JOBS_SHOWN: Final = 100


class Quit(Exception):
    """The shell is to end."""


class Meta(msgspec.Struct, frozen=True):
    """A meta command: how it is called, what it does, and the function that does it."""

    usage: str
    does: str
    run: Callable[[Session, str], None]


def _list_namespaces(session: Session, _: str) -> None:
    session.execute("SHOW NAMESPACES")


def _list_tables(session: Session, text: str) -> None:
    session.execute(f"SHOW TABLES IN {text}" if text else "SHOW TABLES")


def _describe(session: Session, text: str) -> None:
    if text:
        session.execute(f"DESCRIBE TABLE {text}")
    else:
        _list_tables(session, "")


def _expanded(session: Session, text: str) -> None:
    session.screen.expanded = _switch(text, now=session.screen.expanded)
    session.screen.say(f"Expanded display is {'on' if session.screen.expanded else 'off'}.")


def _timing(session: Session, text: str) -> None:
    session.screen.timing = _switch(text, now=session.screen.timing)
    session.screen.say(f"Timing is {'on' if session.screen.timing else 'off'}.")


def _switch(text: str, *, now: bool) -> bool:
    if text not in ("", "on", "off"):
        raise WrongUsage(f"on or off, not {text!r}")
    return not now if not text else text == "on"


def _watch(session: Session, text: str) -> None:
    try:
        pause_s = float(text or "2")
    except ValueError:
        pause_s = 0
    if not 0.1 <= pause_s <= 86_400:
        raise WrongUsage(f"\\watch takes seconds from 0.1 to 86400, not {text!r}")
    if session.last is None:
        raise CommandFailed("error: there is no statement yet that could be repeated")
    try:
        while True:
            session.screen.say(time.strftime("%F %T"))
            session.execute(session.last)
            time.sleep(pause_s)
    except KeyboardInterrupt:
        session.screen.say("")


def _include(session: Session, text: str) -> None:
    try:
        content = Path(_needed(text, "\\i takes a file")).expanduser().read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as exc:
        raise CommandFailed(f"error: cannot read {text}: {getattr(exc, 'strerror', None) or exc}") from exc
    session.run_script(content)


def _edit(session: Session, text: str) -> None:
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(text).expanduser() if text else Path(folder) / "statement.sql"
        if not text:
            file.write_text(f"{session.last or ''}\n")
        try:
            done = subprocess.run([*shlex.split(editor), str(file)], check=False)  # noqa: S603 - the user's editor
        except OSError as exc:
            raise CommandFailed(f"error: cannot start {editor}: {exc.strerror}; set EDITOR") from exc
        if done.returncode:
            raise CommandFailed(f"error: {editor} ended with status {done.returncode}; nothing is run")
        session.run_script(file.read_text())


def _output(session: Session, text: str) -> None:
    session.screen.open_file(text or None)


def _copy(session: Session, text: str) -> None:
    from kalam.cli.shell.copying import copy

    session.screen.say(copy(session.http_url(), session.login, text, session.namespace))


def _connect(session: Session, text: str) -> None:
    session.execute("USE " + _needed(text, "\\c takes a namespace"))


def _live(session: Session, text: str) -> None:
    session.follow(_needed(text, "\\live takes a SELECT over one table"))


def _jobs(session: Session, _: str) -> None:
    session.execute(f"{JOBS} LIMIT {JOBS_SHOWN}")


def _list_users(session: Session, _: str) -> None:
    session.execute("SHOW USERS; SHOW ROLES")


def _list_grants(session: Session, text: str) -> None:
    on = f" ON {text}" if text else ""
    session.execute(f"SHOW GRANTS{on}; SHOW POLICIES{on}")


def _flush(session: Session, text: str) -> None:
    session.execute(f"FLUSH TABLE {text}" if text else "FLUSH ALL TABLES")


def _help(session: Session, _: str) -> None:
    wide = max(len(meta.usage) for meta in COMMANDS.values())
    lines = [f"  {meta.usage.ljust(wide)}  {meta.does}" for meta in COMMANDS.values()]
    session.screen.text("\n".join(["Statements end with a semicolon. Besides:", *lines, ""]))


def _quit(session: Session, _: str) -> None:
    raise Quit


def _needed(text: str, otherwise: str) -> str:
    if not text:
        raise WrongUsage(otherwise)
    return text


COMMANDS: Final = {
    "l": Meta("\\l", "list namespaces", _list_namespaces),
    "dt": Meta("\\dt [namespace]", "list tables", _list_tables),
    "d": Meta("\\d [table]", "describe a table", _describe),
    "du": Meta("\\du", "list users and roles", _list_users),
    "dp": Meta("\\dp [table]", "list grants and policies", _list_grants),
    "x": Meta("\\x [on|off]", "a line for each column of a row", _expanded),
    "timing": Meta("\\timing [on|off]", "say how long a statement took", _timing),
    "watch": Meta("\\watch [seconds]", "repeat the last statement until ^C", _watch),
    "i": Meta("\\i file", "run the statements of a file", _include),
    "e": Meta("\\e [file]", "edit the last statement, or a file, and run it", _edit),
    "o": Meta("\\o [file]", "write results into a file; without one, here again", _output),
    "copy": Meta("\\copy table from|to file", "rows out of a file, or into one", _copy),
    "c": Meta("\\c namespace", "look tables without a namespace up there", _connect),
    "live": Meta("\\live SELECT …", "follow a live query until ^C", _live),
    "jobs": Meta("\\jobs", "list the newest jobs", _jobs),
    "flush": Meta("\\flush [table]", "write hot rows to Parquet", _flush),
    "?": Meta("\\?", "this list", _help),
    "q": Meta("\\q", "leave (as ^D does)", _quit),
}


def run(session: Session, line: str) -> None:
    """Carry out a line that begins with a backslash; raises WrongUsage for one that is none."""
    name, _, text = line.strip()[1:].partition(" ")
    command = COMMANDS.get(name)
    if command is None:
        raise WrongUsage(f"there is no \\{name}: \\? lists what there is")
    command.run(session, text.strip().rstrip(";").strip())
