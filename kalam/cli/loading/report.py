"""What became of the rows of an insert, as a person reads it: never "stored" of what was not acknowledged."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

from kalam.cli.failure import CommandFailed
from kalam.cli.loading.row_sender import Fate, Outcome
from kalam.cli.loading.skipped import SkippedRows
from kalam.cli.problem_text import problem_text
from kalam.cli.telling import tell
from kalam.cli.words import counted
from kalam.names import TableName

WORDS: Final = {Fate.STORED: "stored", Fate.REFUSED: "refused, not stored", Fate.UNKNOWN: "unknown: stored or not"}
HINTS: Final = {
    "table_not_found": "`kalam insert --create` makes a table for a file",
    "namespace_not_found": "`kalam insert --create` makes a table for a file",
    "column_not_found": "--map NAME=COLUMN says what a column is called, --columns which ones are taken",
}
_ROW: Final = re.compile(r"row (\d+): ")


def report(
    table: TableName, outcomes: Sequence[Outcome], stopped: str | None, seconds: float, skipped: SkippedRows | None
) -> None:
    """Tell what is stored; raises CommandFailed where that is not everything that was to be."""
    stored = sum(outcome.stored_rows for outcome in outcomes)
    discarded = sum(outcome.discarded_rows for outcome in outcomes)
    failures = [outcome for outcome in outcomes if outcome.fate is not Fate.STORED]
    if failures or stopped is not None:
        lines = [stopped] if stopped else []
        if failures:
            lines.append(_failure_text(failures[0]))
        raise CommandFailed("\n".join([*lines, *_ledger(table, outcomes)]))
    rate = (stored + discarded) / max(seconds, 1e-9)
    tell(f"{counted(stored, 'are')} stored in {table} ({seconds:.2f} s, {rate:,.0f} rows/s)")
    updated = sum(outcome.updated_rows for outcome in outcomes)
    if updated:
        tell(f"{counted(updated, 'were')} there already and got the columns of the file")
    left = sum(outcome.skipped_rows for outcome in outcomes)
    if left:
        tell(f"{counted(left, 'were')} there already and stayed as they are")
    if discarded:
        tell(f"{counted(discarded, 'were')} discarded: the table is EPHEMERAL and nobody listens")
    if skipped is not None and skipped.count:
        tell(f"{counted(skipped.count, 'were')} skipped: {skipped.path} has them and says why")


def _failure_text(outcome: Outcome) -> str:
    """The problem of a batch, with its place in the file instead of the one in the batch."""
    problem: dict[str, Any] = {**(outcome.problem or {})}
    detail = str(problem.get("detail"))
    row = _ROW.match(detail)
    if row is not None:
        problem["detail"] = detail[row.end() :]
        problem["at"] = outcome.batch.place(int(row[1]))
    problem.setdefault("hint", HINTS.get(str(problem.get("code"))))
    return problem_text(problem)


def _ledger(table: TableName, outcomes: Sequence[Outcome]) -> Iterator[str]:
    """What is known of the rows of the files, in their order; consecutive batches of one fate are one line."""
    runs: list[list[Outcome]] = []
    for outcome in outcomes:
        before = runs[-1][0] if runs else None
        if before is not None and (before.fate, before.batch.file) == (outcome.fate, outcome.batch.file):
            runs[-1].append(outcome)
        else:
            runs.append([outcome])
    for run in runs:
        fate, stored = run[0].fate, sum(outcome.stored_rows for outcome in run)
        partly = f", but for {counted(stored)}" if stored and fate is not Fate.STORED else ""
        first, last = run[0].batch, run[-1].batch
        file = f"{first.file}: " if first.file and len({outcome.batch.file for outcome in outcomes}) > 1 else ""
        yield f"  {file}{first.unit} {first.first_line:,}-{last.last_line:,}: {WORDS[fate]}{partly}"
    total = sum(outcome.stored_rows for outcome in outcomes)
    after = ""
    if outcomes:
        sent = outcomes[-1].batch
        after = f"; nothing after {sent.place(sent.rows)} was sent"
    yield f"{counted(total, 'are')} known to be stored in {table}{after}"
