"""One insert, from its files to the report: which rows go where, and what became of them."""

from __future__ import annotations

import contextlib
import functools
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from kalam.cli.address import Address
from kalam.cli.failure import CommandFailed
from kalam.cli.loading.creation import confirm_creation, create_statement
from kalam.cli.loading.fitting import Fitting
from kalam.cli.loading.inference import ROWS_MIN, merged_types
from kalam.cli.loading.insert_progress import InsertProgress
from kalam.cli.loading.names import NameMatch, column_names
from kalam.cli.loading.reading import Reading
from kalam.cli.loading.report import report
from kalam.cli.loading.row_sender import IN_FLIGHT_MAX, Outcome, RowSender
from kalam.cli.loading.skipped import SkippedRows
from kalam.cli.loading.sources import STDIN, find_files
from kalam.cli.parquet_reader import ParquetReader
from kalam.cli.problem_text import problem_text
from kalam.cli.server_columns import ServerColumns
from kalam.cli.telling import tell
from kalam.imports import DATA_FRAMES, forgo
from kalam.names import TableName, listed

BATCH_BYTES_MAX: Final = 1 << 20  # times the batches in flight, this is what may wait in the broker
SKIPPING_ROWS_MAX: Final = 100
"""Rows of a message of which bad ones are skipped: so many refused rows an answer tells."""
SKIPPING_IN_FLIGHT_MAX: Final = 64
NO_TABLE: Final = frozenset({"table_not_found", "namespace_not_found"})


class Where(msgspec.Struct, frozen=True, kw_only=True):
    """The server, and as whom it is asked."""

    subject_prefix: str
    server: Address

    @property
    def requests(self) -> str:
        """What the subjects of all requests begin with."""
        return f"{self.subject_prefix}.api.{self.server.login.name}"


class Making(msgspec.Struct, frozen=True, kw_only=True):
    """A table is to be made where there is none, with a key of these columns and without a question."""

    key: list[str]
    yes: bool


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What the user wants. ``chosen`` are the columns that are taken, None for all; ``mapped`` what names mean."""

    table: TableName
    files: Sequence[str]
    reading: Reading
    where: Where
    chosen: Sequence[str] | None = None
    mapped: Mapping[str, str] = msgspec.field(default_factory=dict)
    on_conflict: str | None = None
    skip_bad: Path | None = None
    lossless: bool = False
    making: Making | None = None

    @property
    def subject(self) -> str:
        """Where rows are sent."""
        where, table = self.where, self.table
        return f"{where.requests}.insert.{table.namespace}.{table.table}"

    @property
    def headers(self) -> dict[str, str]:
        """How the rows are to be taken."""
        asked = {
            "Kalam-On-Invalid": "skip" if self.skip_bad else None,
            "Kalam-On-Conflict": self.on_conflict,
            "Kalam-Coerce": "lossless" if self.lossless else None,
        }
        return {header: word for header, word in asked.items() if word}


class Server:
    """What the server is asked besides taking rows."""

    def __init__(self, sender: RowSender, asked: Asked) -> None:
        self._sender, self._table = sender, asked.table
        self._subject = f"{asked.where.requests}.sql"

    @functools.cached_property
    def columns(self) -> dict[str, str] | None:
        """The columns of the table and the names of their types; None where there is no table."""
        answer = self._sender.ask(self._subject, {"sql": f"DESCRIBE TABLE {self._table}"})
        match answer:
            case {"results": [{"rows": [*rows]}]}:
                return {name: text.split()[0] for section, name, text, _ in rows if section == "column"}
            case {"code": code} if code in NO_TABLE:
                return None
        raise CommandFailed(problem_text(answer if isinstance(answer, dict) else {}))

    def run(self, sql: str) -> None:
        """Run statements that answer nothing."""
        answer = self._sender.ask(self._subject, {"sql": sql})
        if "code" in answer:
            raise CommandFailed(problem_text(answer, sql))
        self.__dict__.pop("columns", None)


def load(asked: Asked, parquet: ParquetReader) -> None:
    """Insert the rows of the files; raises CommandFailed, which says what is stored."""
    forgo(DATA_FRAMES)
    names, left_out = find_files(asked.files)
    for name in left_out:
        tell(f"left out: {name} (its name says nothing of a format)")
    if asked.skip_bad and asked.skip_bad.exists() and any(map(asked.skip_bad.samefile, _real(names))):
        raise CommandFailed(f"error: --skip-bad {asked.skip_bad} is one of the files that are to be read")
    where = asked.where.server
    url = where.nats_url(asked.where.subject_prefix)
    with contextlib.ExitStack() as stack:
        skipped = stack.enter_context(SkippedRows(asked.skip_bad)) if asked.skip_bad else None
        progress = stack.enter_context(InsertProgress(_total_bytes(names)))
        note = functools.partial(_note, progress, skipped)
        in_flight = SKIPPING_IN_FLIGHT_MAX if skipped else IN_FLIGHT_MAX
        sender = stack.enter_context(RowSender(url, asked.subject, note, asked.headers, in_flight, where))
        started = time.perf_counter()
        reading = _bounded(asked.reading, sender.payload_bytes_max, skipped)
        server = Server(sender, asked)
        mapped = dict(asked.mapped)
        if asked.making:
            reading, made = _with_table(stack, asked, asked.making, server, reading, names)
            mapped = {**made, **mapped}
        match = NameMatch(lambda: server.columns, mapped, asked.chosen)
        server_columns = ServerColumns()
        fitting = Fitting(match, booleans=reading.booleans)
        stopped = _send_all(reading.files(names, fitting, server_columns, parquet), sender, skipped)
        outcomes = sender.finish()
        if skipped is not None:
            skipped.close()
            stopped = stopped or skipped.failure
    seconds = time.perf_counter() - started
    if match.told:
        told = [f"{name or '(no name)'} is {column}" for name, column in sorted(match.told.items())]
        tell(f"columns of other names in the file: {listed(told)}")
    report(asked.table, outcomes, stopped, seconds, skipped)
    if server_columns.found:
        tell(f"left out of the file, because the server keeps it itself: {', '.join(sorted(server_columns.found))}")
    if stopped is None:
        match.check_seen()


def _real(names: Sequence[str]) -> Iterator[Path]:
    return (Path(name) for name in names if name != STDIN)


def _note(progress: InsertProgress, skipped: SkippedRows | None, outcome: Outcome) -> None:
    progress.note(outcome)
    if skipped is not None:
        skipped.note_refused(outcome.batch, outcome.refused)


def _total_bytes(names: Sequence[str]) -> int | None:
    """What there is to read; None where that is not known."""
    from kalam.cli.loading.sources import PACKED

    if any(name == STDIN or Path(name).suffix.lower() in PACKED for name in names):
        return None
    return sum(path.stat().st_size for path in _real(names)) or None


def _bounded(reading: Reading, payload_bytes_max: int, skipped: SkippedRows | None) -> Reading:
    reading = replace(reading, bytes_max=min(BATCH_BYTES_MAX, payload_bytes_max), row_bytes_max=payload_bytes_max)
    if skipped is None:
        return reading
    rows_max = min(reading.rows_max or SKIPPING_ROWS_MAX, SKIPPING_ROWS_MAX)
    return replace(reading, rows_max=rows_max, on_bad=skipped.note)


def _with_table(
    stack: contextlib.ExitStack,
    asked: Asked,
    making: Making,
    server: Server,
    reading: Reading,
    names: Sequence[str],
) -> tuple[Reading, dict[str, str]]:
    """Make the table if there is none; how to read the files from now on, and what their names mean."""
    if server.columns is not None:
        tell(f"{asked.table} is there already")
        return reading, {}
    if STDIN in names:  # which is read twice
        reading = replace(reading, spooled=_spooled(stack))
    guesses: list[Mapping[str, str]] = []
    rows = 0
    for name in names:
        types, found = reading.guess(name)
        guesses.append(types)
        rows += found
        if rows >= ROWS_MIN:
            break
    types = merged_types(guesses)
    columns = column_names(list(types)) | {name: asked.mapped[name] for name in types if name in asked.mapped}
    if asked.chosen is not None:
        wanted = set(map(str.lower, asked.chosen))
        columns = {name: column for name, column in columns.items() if wanted & {name.lower(), column}}
    made = {column: types[name] for name, column in columns.items()}
    key = [_key_column(name, columns) for name in making.key]
    statement = create_statement(asked.table, made, key)
    confirm_creation(statement, rows, yes=making.yes, stdin_is_rows=STDIN in names)
    server.run(f"CREATE NAMESPACE IF NOT EXISTS {asked.table.namespace}; {statement}")
    return reading, {name: column for name, column in columns.items() if name != column}


def _key_column(asked: str, columns: Mapping[str, str]) -> str:
    """A column of the key, by its name in the file or in the table."""
    for name, column in columns.items():
        if asked.lower() in (name.lower(), column):
            return column
    raise CommandFailed(f"error: --key: the file has no column {asked!r}; it has {listed(list(columns))}")


def _spooled(stack: contextlib.ExitStack) -> Path:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kalam-insert-")))
    with (folder / "stdin").open("wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
    return folder / "stdin"


def _send_all(batches: Iterator[Any], sender: RowSender, skipped: SkippedRows | None) -> str | None:
    """Send every batch; return why the sending stopped early, if not because of an answer."""
    try:
        for batch in batches:
            if not sender.send(batch) or (skipped is not None and skipped.failure):
                break
    except CommandFailed as exc:
        return exc.text
    except KeyboardInterrupt:
        return "interrupted"
    return None
