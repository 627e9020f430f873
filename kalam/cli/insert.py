"""``kalam insert``: the rows of a file into a table, over NATS."""

from __future__ import annotations

import contextlib
import io
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, Final

import typer

from kalam.cli.address import find_url
from kalam.cli.arguments import table_name, user_name
from kalam.cli.failure import CommandFailed
from kalam.cli.problem_text import problem_text
from kalam.cli.row_formats import RowFormat, file_size, format_of, read_rows
from kalam.cli.server_columns import ServerColumns
from kalam.cli.telling import tell
from kalam.cli.words import counted
from kalam.names import TableName

if TYPE_CHECKING:  # these import NATS and rich, which the command does when it runs
    from kalam.cli.row_sender import Outcome, RowSender

BATCH_BYTES_MAX: Final = 1 << 20  # times the batches in flight, this is what may wait in the broker


def insert(
    table: Annotated[str, typer.Argument(help="The table, as namespace.table.", show_default=False)],
    file: Annotated[Path, typer.Argument(help="A file of NDJSON, JSON, CSV, Parquet or Arrow; - is stdin.")] = Path(
        "-"
    ),
    row_format: Annotated[
        RowFormat | None,
        typer.Option(
            "--format", help="What the file is; else its name and its first bytes say it.", show_default=False
        ),
    ] = None,
    batch_rows: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=100_000,
            help="Rows that are sent as one message.  [default: 1,000; of CSV, Parquet and Arrow 5,000]",
        ),
    ] = None,
    nats_url: Annotated[str | None, typer.Option(envvar="NATS_URL", help="Where NATS is.")] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(envvar="KALAM_DATA_DIR", help="Data directory of the server, which says where NATS is."),
    ] = None,
    user: Annotated[str, typer.Option(help="The user as whom the rows are inserted.")] = "admin",
    subject_prefix: Annotated[
        str, typer.Option(envvar="KALAM_SUBJECT_PREFIX", help="First token of the server's subjects.")
    ] = "kalam",
) -> None:
    """Insert the rows of a file into a table.

    Stops at the first batch that is refused, and says which lines are stored. Columns that the server keeps itself,
    as in a file of `kalam export`, are left out.
    """
    name = table_name(table)
    subject = f"{subject_prefix}.api.{user_name(user)}.insert.{name.namespace}.{name.table}"
    url = find_url("nats_url", nats_url, data_dir)

    from kalam.cli.insert_progress import InsertProgress
    from kalam.cli.row_sender import RowSender

    with (
        _open(file) as rows_file,
        InsertProgress(file_size(rows_file) or None) as progress,
        RowSender(url, subject, progress.note) as sender,
    ):
        started = time.perf_counter()
        chosen = row_format or format_of(file, _head(rows_file))
        server_columns = ServerColumns()
        stopped = _send_all(rows_file, chosen, sender, batch_rows, server_columns)
        outcomes = sender.finish()
    _report(name, outcomes, stopped, time.perf_counter() - started)
    if server_columns.found:
        left_out = ", ".join(sorted(server_columns.found))
        tell(f"left out of the file, because the server keeps it itself: {left_out}")


def _send_all(
    rows_file: BinaryIO,
    row_format: RowFormat,
    sender: RowSender,
    batch_rows: int | None,
    server_columns: ServerColumns,
) -> str | None:
    """Send every batch; return why the sending stopped early, if not because of an answer."""
    from kalam.cli.rows_file import BadLine

    payload_bytes_max = sender.payload_bytes_max
    batches = read_rows(
        rows_file,
        row_format,
        rows_max=batch_rows,
        bytes_max=min(BATCH_BYTES_MAX, payload_bytes_max),
        row_bytes_max=payload_bytes_max,
        server_columns=server_columns,
    )
    try:
        for batch in batches:
            if not sender.send(batch):
                break
    except BadLine as exc:
        return f"error: {exc}"
    except CommandFailed as exc:
        return exc.text
    except KeyboardInterrupt:
        return "interrupted"
    except OSError as exc:
        return f"error: cannot read the file further: {exc.strerror}"
    return None


def _report(name: TableName, outcomes: list[Outcome], stopped: str | None, seconds: float) -> None:
    from kalam.cli.row_sender import Fate

    stored = sum(outcome.stored_rows for outcome in outcomes)
    discarded = sum(outcome.discarded_rows for outcome in outcomes)
    failures = [outcome for outcome in outcomes if outcome.fate is not Fate.STORED]
    if not failures and stopped is None:
        rate = (stored + discarded) / max(seconds, 1e-9)
        tell(f"{counted(stored, 'are')} stored in {name} ({seconds:.2f} s, {rate:,.0f} rows/s)")
        if discarded:
            tell(f"{counted(discarded, 'were')} discarded: the table is EPHEMERAL and nobody listens")
        return
    lines = [stopped] if stopped else []
    if failures:
        lines.append(problem_text(failures[0].problem or {}))
    lines += _ledger(name, outcomes)
    raise CommandFailed("\n".join(lines))


def _ledger(name: TableName, outcomes: list[Outcome]) -> Iterator[str]:
    """What is known of the lines of the file, in their order; consecutive batches of one fate are one line."""
    from kalam.cli.row_sender import Fate

    words = {Fate.STORED: "stored", Fate.REFUSED: "refused, not stored", Fate.UNKNOWN: "unknown: stored or not"}
    runs: list[list[Outcome]] = []
    for outcome in outcomes:
        if runs and runs[-1][0].fate is outcome.fate:
            runs[-1].append(outcome)
        else:
            runs.append([outcome])
    for run in runs:
        fate, stored = run[0].fate, sum(outcome.stored_rows for outcome in run)
        partly = f", but for {counted(stored)}" if stored and fate is not Fate.STORED else ""
        yield f"  {run[0].batch.unit} {run[0].batch.first_line:,}-{run[-1].batch.last_line:,}: {words[fate]}{partly}"
    total = sum(outcome.stored_rows for outcome in outcomes)
    unit = outcomes[-1].batch.unit.removesuffix("s") if outcomes else ""
    after = f"; nothing after {unit} {outcomes[-1].batch.last_line:,} was sent" if outcomes else ""
    yield f"{counted(total, 'are')} known to be stored in {name}{after}"


@contextlib.contextmanager
def _open(file: Path) -> Iterator[BinaryIO]:
    if str(file) == "-":
        yield sys.stdin.buffer
        return
    try:
        opened = file.open("rb")
    except OSError as exc:
        raise CommandFailed(f"error: cannot read {file}: {exc.strerror}") from exc
    with opened:
        yield opened


def _head(file: BinaryIO) -> bytes:
    """The first bytes, which stay to be read."""
    return file.peek(64) if isinstance(file, io.BufferedReader) else b""
