"""``kalam sql``: run statements on a server and print their results."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from kalam.cli.address import Context, DataDir, PasswordFile, Url, User, find_server
from kalam.cli.failure import INTERRUPTED, CommandFailed, WrongUsage
from kalam.cli.http import Refusal, ask_sql
from kalam.cli.problem_text import problem_text
from kalam.cli.result_formats import Format, machine_stdout, write_results
from kalam.cli.telling import tell

HOW_TO_GIVE: Final = 'give either SQL, as in kalam sql "SELECT 1", or a file with -f, or send it to standard input'


def sql(
    text: Annotated[str | None, typer.Argument(help="Statements, separated by semicolons.", show_default=False)] = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="Read them from a file; - is stdin.")] = None,
    form: Annotated[Format, typer.Option("--format", help="How results are written.")] = Format.TABLE,
    url: Url = None,
    context: Context = None,
    data_dir: DataDir = None,
    user: User = None,
    password_file: PasswordFile = None,
    namespace: Annotated[str | None, typer.Option(help="Where tables without a namespace are looked up.")] = None,
    param: Annotated[
        list[str] | None, typer.Option(help="A value for $1, $2, …: JSON, or else plain text.", show_default=False)
    ] = None,
) -> None:
    """Run SQL and print the results."""
    statements = _statements(text, file)
    values = [parameter(item) for item in param or []]
    where = find_server(url, context, data_dir, user=user, password_file=password_file)
    try:
        body = ask_sql(
            where.http_url(),
            statements,
            login=where.login,
            params=values,
            namespace=namespace,
            for_people=form is Format.TABLE,
        )
    except KeyboardInterrupt as exc:
        raise CommandFailed(
            "interrupted: the connection is closed, which cancels a query; what writes may have taken effect",
            INTERRUPTED,
        ) from exc
    except Refusal as exc:
        _print_answer(exc.problem.get("results", []), form)
        raise CommandFailed(problem_text(exc.problem, statements)) from exc
    if form is Format.JSON:
        _print_bytes(body)
        _print_messages(json.loads(body)["results"])
    else:
        _print_answer(json.loads(body)["results"], form)


def parameter(text: str) -> Any:
    """The value of a ``--param``: what the text is as JSON, else the text itself."""
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
        json.dumps(value, allow_nan=False)
    except (ValueError, RecursionError):
        return text
    return value


def _refuse_constant(word: str) -> None:
    raise ValueError(word)  # NaN and Infinity are texts in Kalam's JSON


def _statements(text: str | None, file: Path | None) -> str:
    piped = text is None and file is None and not sys.stdin.isatty()
    if piped:
        file = Path("-")
    if (text is None) == (file is None):
        raise WrongUsage(HOW_TO_GIVE)
    if file is None:
        content = (text or "").encode("utf-8", "surrogateescape")
    else:
        try:
            content = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
        except OSError as exc:
            raise CommandFailed(f"error: cannot read {file}: {exc.strerror}") from exc
        if piped and not content.strip():
            raise WrongUsage(HOW_TO_GIVE)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise CommandFailed(f"error: the SQL is not UTF-8 text: {exc}") from exc


def _print_answer(results: list[dict[str, Any]], form: Format) -> None:
    """The results and messages of a text; for people in the order of its statements."""
    if form is not Format.TABLE:
        _print_results(results, form)
        _print_messages(results)
        return
    shown = False
    for result in results:
        # "nothing to flush" says more than an empty table
        if result["columns"] and (result["rows"] or not result.get("message")):
            if shown:
                sys.stdout.write("\n")
            shown = True
            _print_results([result], form)
        _print_messages([result])


def _print_results(results: list[dict[str, Any]], form: Format) -> None:
    if form is Format.JSON:
        if results:
            _print_bytes(json.dumps({"results": results}, ensure_ascii=False, separators=(",", ":")).encode())
        return
    write_results(results, form, sys.stdout if form is Format.TABLE else machine_stdout())
    sys.stdout.flush()


def _print_bytes(body: bytes) -> None:
    sys.stdout.buffer.write(body + b"\n")
    sys.stdout.flush()


def _print_messages(results: list[dict[str, Any]]) -> None:
    for result in results:
        if result.get("message"):
            tell(result["message"])
