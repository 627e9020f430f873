"""``kalam export``: the rows of a table, as they are at one moment, into a file.

The rows come as the Arrow stream of ``POST /v1/sql``, which has no bound in rows and whose end says that it is whole;
each piece is written before the next is read. The file takes its name only when it is complete.
"""

from __future__ import annotations

import enum
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from kalam.cli.address import find_url
from kalam.cli.arguments import table_name, user_name
from kalam.cli.failure import CommandFailed, WrongUsage
from kalam.cli.http import Refusal, ask_sql, stream_sql
from kalam.cli.problem_text import problem_text
from kalam.cli.telling import tell
from kalam.cli.words import counted

if TYPE_CHECKING:  # these import pyarrow and rich, which the command does when it runs
    from kalam.cli.export_progress import ExportProgress

ARROW_STREAM = "application/vnd.apache.arrow.stream"
STDOUT = Path("-")


class ExportFormat(enum.StrEnum):
    """How rows are written."""

    NDJSON = "ndjson"
    CSV = "csv"
    PARQUET = "parquet"
    ARROW = "arrow"


SUFFIXES = {".jsonl": ExportFormat.NDJSON, **{f".{form}": form for form in ExportFormat}}


def export(
    table: Annotated[str, typer.Argument(help="The table, as namespace.table.", show_default=False)],
    file: Annotated[Path, typer.Argument(help="The file; - is stdout.", show_default=False)],
    form: Annotated[
        ExportFormat | None,
        typer.Option("--format", help="How rows are written.  [default: what the name of the file ends in]"),
    ] = None,
    url: Annotated[str | None, typer.Option(envvar="KALAM_URL", help="Where the server answers HTTP.")] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(envvar="KALAM_DATA_DIR", help="Data directory of the server, which says where it answers."),
    ] = None,
    user: Annotated[str, typer.Option(help="The user whose rows are written.")] = "admin",
) -> None:
    """Write the rows of a table into a file, all of one moment."""
    name = table_name(table)
    form = form or SUFFIXES.get(file.suffix)
    if form is None:
        raise WrongUsage(f"{file.name}: say --format, or end the name in one of {', '.join(SUFFIXES)}")
    user_name(user)
    sql = f"SELECT * FROM {name}"  # noqa: S608 - it is a name
    where = find_url("http_url", url, data_dir)
    try:
        if file == STDOUT:
            count = _export(where, sql, user, sys.stdout.buffer, form)
            sys.stdout.flush()
        else:
            count = export_file(where, sql, user, file, form)
    except KeyboardInterrupt as exc:
        kept = "what was written is not whole" if file == STDOUT else f"{file} was not written"
        raise CommandFailed(f"interrupted: {kept}") from exc
    except Refusal as exc:
        raise CommandFailed(problem_text(exc.problem, sql)) from exc
    tell(f"{counted(count)} of {table} in {'the output' if file == STDOUT else file}")


def export_file(url: str, sql: str, user: str, file: Path, form: ExportFormat) -> int:
    """Write what a query gives into a file, which takes its name when it is whole; how many rows that was."""
    temporary = file.with_name(f".{file.name}.part")
    try:
        with temporary.open("wb") as part:
            count = _export(url, sql, user, part, form)
            part.flush()
            os.fsync(part.fileno())
        os.replace(temporary, file)  # noqa: PTH105 - the point is that it replaces
    except OSError as exc:
        raise CommandFailed(f"error: cannot write {file}: {exc.strerror or exc}") from exc
    finally:
        temporary.unlink(missing_ok=True)
    return count


def _export(url: str, sql: str, user: str, target: BinaryIO, form: ExportFormat) -> int:
    """Write what the query gives; how many rows that was. Raises Refusal, CommandFailed and OSError of the target."""
    from kalam.cli.export_progress import ExportProgress

    with ExportProgress() as progress:
        if progress.shown:
            progress.expect(_count(url, sql, user))
        with stream_sql(url, sql, user=user, accept=ARROW_STREAM) as answer:
            return _copy(answer, target, form, progress)


def _count(url: str, sql: str, user: str) -> int:
    """About how many rows there will be; the bar needs no more."""
    import json

    answer = json.loads(ask_sql(url, sql.replace("*", "count(*)", 1), user=user))
    return int(answer["results"][0]["rows"][0][0])


def _copy(answer: Any, target: BinaryIO, form: ExportFormat, progress: ExportProgress) -> int:
    import http.client

    import pyarrow as pa

    try:
        stream = pa.ipc.open_stream(answer)
        write, close = _writer(form, target, stream.schema)
        count = 0
        while (batch := _next(stream)) is not None:
            batch.validate(full=True)
            write(pa.Table.from_batches([batch]))
            count += batch.num_rows
            progress.note(count)
        close()
    except (pa.ArrowInvalid, http.client.HTTPException, ConnectionError) as exc:
        raise CommandFailed(
            "error: the server broke the answer off before all rows had come; its log has the reason. Try again."
        ) from exc
    return count


def _next(stream: Any) -> Any:
    try:
        return stream.read_next_batch()
    except StopIteration:
        return None


def _writer(form: ExportFormat, target: BinaryIO, schema: Any) -> tuple[Callable[[Any], object], Callable[[], object]]:
    """What writes a piece, and what finishes the file."""
    import pyarrow as pa
    import pyarrow.parquet

    from kalam.query.row_text import csv, ndjson

    match form:
        case ExportFormat.NDJSON:
            return lambda rows: target.write(ndjson(rows)), lambda: None
        case ExportFormat.CSV:
            target.write(csv(schema.empty_table(), header=True))
            return lambda rows: target.write(csv(rows, header=False)), lambda: None
        case ExportFormat.PARQUET:
            parquet = pyarrow.parquet.ParquetWriter(target, schema, compression="zstd")
            return parquet.write_table, parquet.close
        case ExportFormat.ARROW:
            arrow = pa.ipc.new_file(target, schema)
            return arrow.write_table, arrow.close
