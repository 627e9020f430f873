"""``kalam flush``: rows of a table, or of all, into Parquet files now."""

from __future__ import annotations

import json
import time
from typing import Annotated, Any, Final

import typer

from kalam.cli.address import Context, DataDir, PasswordFile, Url, User, find_server
from kalam.cli.arguments import table_name
from kalam.cli.failure import CommandFailed
from kalam.cli.http import Refusal, ask_sql
from kalam.cli.problem_text import problem_text
from kalam.cli.telling import tell
from kalam.cli.words import counted
from kalam.credentials import Credentials

ALL: Final = "FLUSH ALL TABLES"


def flush(
    table: Annotated[
        str | None, typer.Argument(help="The table, as namespace.table; without one all tables.", show_default=False)
    ] = None,
    url: Url = None,
    context: Context = None,
    data_dir: DataDir = None,
    user: User = None,
    password_file: PasswordFile = None,
) -> None:
    """Write the rows of a table, or of all tables, into Parquet files now.

    Prints a line for each table that had rows to flush.
    """
    statement = _statement(table)
    where = find_server(url, context, data_dir, user=user, password_file=password_file)
    http_url = where.http_url()
    started = time.perf_counter()
    try:
        result = _run(http_url, statement, where.login)
    except KeyboardInterrupt as exc:
        raise CommandFailed(
            "interrupted: the server goes on with the flush; SHOW JOBS lists it, and KILL JOB ends it"
        ) from exc
    except Refusal as exc:
        raise CommandFailed(problem_text(exc.problem, statement)) from exc
    _print(result, time.perf_counter() - started)


def _statement(table: str | None) -> str:
    if table is None:
        return ALL
    return f"FLUSH TABLE {table_name(table)}"


def _run(url: str, statement: str, login: Credentials) -> dict[str, Any]:
    from kalam.cli.flush_progress import FlushProgress

    with FlushProgress(url, login, everything=statement == ALL):
        answer: dict[str, Any] = json.loads(ask_sql(url, statement, login=login))["results"][0]
    return answer


def _print(result: dict[str, Any], seconds: float) -> None:
    if not result["rows"]:
        tell(result["message"])
        return
    names = [column["name"] for column in result["columns"]]
    flushed = [dict(zip(names, row, strict=True)) for row in result["rows"]]
    for each in flushed:
        typer.echo(f"{each['table']}: {_content(each['rows_flushed'], each['segments'], each['bytes'])}")
    if len(flushed) > 1:
        rows, segments, size = (sum(each[name] for each in flushed) for name in ("rows_flushed", "segments", "bytes"))
        tell(f"{len(flushed):,} tables: {_content(rows, segments, size)} ({seconds:.1f} s)")


def _content(rows: int, segments: int, size: int) -> str:
    return f"{counted(rows)} in {segments:,} Parquet file{'' if segments == 1 else 's'}, {size:,} bytes"
