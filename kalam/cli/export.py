"""``kalam export``: the rows of a table or query, as they are at one moment, into a file or a folder."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer

from kalam.cli.address import Context, DataDir, PasswordFile, Url, User, find_server
from kalam.cli.arguments import table_name
from kalam.cli.export_formats import LINES, SUFFIXES, ExportFormat
from kalam.cli.failure import INTERRUPTED, CommandFailed, WrongUsage
from kalam.cli.http import Refusal, ask_sql
from kalam.cli.problem_text import problem_text
from kalam.cli.telling import tell
from kalam.cli.words import counted
from kalam.credentials import Credentials
from kalam.names import TableName

STDOUT: Final = Path("-")
QUERY: Final = re.compile(r"\s*(?:select|with)\b", re.IGNORECASE)


def export(
    what: Annotated[str, typer.Argument(help="A table, as namespace.table, or a query: SELECT …", show_default=False)],
    file: Annotated[
        Path | None, typer.Argument(help="The file; - is stdout. Not with --snapshot.", show_default=False)
    ] = None,
    form: Annotated[
        ExportFormat | None,
        typer.Option("--format", help="How rows are written.  [default: what the name of the file ends in]"),
    ] = None,
    where: Annotated[
        str | None, typer.Option(help="Of a table only rows for which this holds, as in SQL.", show_default=False)
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a file, or the parts in a folder, that is there.")
    ] = False,
    snapshot: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Instead of a file: Parquet files in a folder, sorted by the key, without the server's own columns.",
            show_default=False,
        ),
    ] = None,
    system_columns: Annotated[
        bool, typer.Option("--system-columns", help="With --snapshot: the server's own columns too.")
    ] = False,
    url: Url = None,
    context: Context = None,
    data_dir: DataDir = None,
    user: User = None,
    password_file: PasswordFile = None,
) -> None:
    """Write the rows of a table or query, all of one moment, into a file or a folder.

    A file that is there is not replaced without --force. A file takes its name when it is whole.
    """
    if (file is None) == (snapshot is None):
        raise WrongUsage("say into which file, or into which folder with --snapshot")
    if snapshot is not None:
        if form not in (None, ExportFormat.PARQUET) or where is not None:
            raise WrongUsage("--snapshot writes a whole table as Parquet: it takes neither --format nor --where")
        from kalam.cli.export_snapshot import Snapshot

        name = table_name(what)
        server = find_server(url, context, data_dir, user=user, password_file=password_file)
        wanted = Snapshot(table=name, folder=snapshot, force=force, system_columns=system_columns, login=server.login)
        wanted.write(server.http_url())
        return
    assert file is not None
    if system_columns:
        raise WrongUsage("--system-columns belongs to --snapshot; a query names the columns that it wants")
    asked = _asked(what, where)
    form = _form(file, form)
    server = find_server(url, context, data_dir, user=user, password_file=password_file)
    _export(server.http_url(), asked, server.login, file, form, force=force)


class Asked(msgspec.Struct, frozen=True):
    """The query, and the table of which it asks all rows; those of another query are counted as they come."""

    sql: str
    whole: TableName | None


def _asked(what: str, where: str | None) -> Asked:
    """What is to be written; raises WrongUsage."""
    if QUERY.match(what):
        if where is not None:
            raise WrongUsage("--where belongs to a table; a query has a WHERE of its own")
        return Asked(what, None)
    name = table_name(what)
    condition = "" if where is None else f" WHERE ({where}\n)"
    sql = f"SELECT * FROM {name}{condition}"  # noqa: S608 - a name, and the user's own WHERE
    return Asked(sql, name if where is None else None)


def _form(file: Path, form: ExportFormat | None) -> ExportFormat:
    form = form or SUFFIXES.get(file.suffix)
    if form is None:
        raise WrongUsage(f"{file.name}: say --format, or end the name in one of {', '.join(SUFFIXES)}")
    return form


def _export(url: str, asked: Asked, login: Credentials, file: Path, form: ExportFormat, *, force: bool) -> None:
    from kalam.cli.export_progress import ExportProgress
    from kalam.cli.exported_rows import Interrupted, whole_file, write_rows

    there = file != STDOUT and file.exists()
    if there and not file.is_file():
        raise CommandFailed(f"error: {file} is there and is no file; - is stdout")
    if there and not force:
        raise CommandFailed(f"error: {file} is there already; --force replaces it")
    try:
        with ExportProgress() as progress:
            if progress.shown and asked.whole is not None:
                progress.expect(_count(url, asked.whole, login))
            if file == STDOUT:
                count = write_rows(url, asked.sql, login, sys.stdout.buffer, form, progress.note)
                sys.stdout.flush()
            else:
                with whole_file(file) as target:
                    count = write_rows(url, asked.sql, login, target, form, progress.note)
    except Interrupted as exc:
        sys.stdout.flush()
        raise CommandFailed(f"interrupted: {_left(file, form, exc.rows, there=there)}", INTERRUPTED) from exc
    except Refusal as exc:
        raise CommandFailed(problem_text(exc.problem, asked.sql)) from exc
    tell(f"{counted(count)} in {'the output' if file == STDOUT else file}")


def _left(file: Path, form: ExportFormat, rows: int, *, there: bool) -> str:
    """What is in the file after ^C."""
    if file != STDOUT:
        return f"{file} {'is what it was before' if there else 'was not written'}; {counted(rows)} had come"
    if form in LINES:
        return f"the output has {counted(rows)}, which are not all"
    return f"the output is not whole: {counted(rows)} and no end, without which {form} cannot be read"


def _count(url: str, table: TableName, login: Credentials) -> int | None:
    """About how many rows there will be; the bar needs no more, and an error is told by the query itself."""
    import json

    try:
        answer = json.loads(ask_sql(url, f"SELECT count(*) FROM {table}", login=login))  # noqa: S608 - a name
    except Refusal:
        return None
    return int(answer["results"][0]["rows"][0][0])
