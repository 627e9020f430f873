r"""``\copy``: a file into a table, or a table or query into a file, over HTTP."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from kalam.cli.export_formats import SUFFIXES
from kalam.cli.exported_rows import Interrupted, whole_file, write_rows
from kalam.cli.failure import CommandFailed, WrongUsage
from kalam.cli.http import post_rows
from kalam.cli.row_formats import format_of, read_rows
from kalam.cli.rows_file import BadLine
from kalam.cli.server_columns import ServerColumns
from kalam.cli.words import counted
from kalam.credentials import Credentials

COPY: Final = re.compile(r"(?P<what>\(.*\)|[\w.\"]+)\s+(?P<way>from|to)\s+(?P<file>\S.*)", re.IGNORECASE | re.DOTALL)
BATCH_BYTES_MAX: Final = 1 << 20
ROW_BYTES_MAX: Final = 8 << 20
JSON: Final = "application/json"
ARROW: Final = "application/vnd.apache.arrow.stream"


def copy(url: str, login: Credentials, text: str, namespace: str | None) -> str:
    r"""Carry out ``\copy <text>``; a line that tells what was done. Raises Refusal, WrongUsage and CommandFailed."""
    found = COPY.fullmatch(text.strip())
    if found is None:
        raise WrongUsage("\\copy takes a table, then from or to, then a file: \\copy lab.readings from readings.csv")
    what, file = found["what"], Path(found["file"].strip().strip("'\"")).expanduser()
    if not what.startswith("(") and "." not in what and namespace:
        what = f"{namespace}.{what}"
    if found["way"].lower() == "to":
        return _copy_to(url, login, what, file)
    if what.startswith("(") or "." not in what:
        raise WrongUsage(f"{what!r} is no table: give it as namespace.table")
    return _copy_from(url, login, what, file)


def _copy_to(url: str, login: Credentials, what: str, file: Path) -> str:
    form = SUFFIXES.get(file.suffix)
    if form is None:
        raise WrongUsage(f"{file.name}: the name has to end in one of {', '.join(SUFFIXES)}")
    sql = what[1:-1] if what.startswith("(") else f"SELECT * FROM {what}"  # noqa: S608 - it is the user's own
    try:
        with whole_file(file) as target:
            count = write_rows(url, sql, login, target, form, lambda _: None)
    except Interrupted as exc:
        raise KeyboardInterrupt from exc
    return f"{counted(count)} copied to {file}"


def _copy_from(url: str, login: Credentials, table: str, file: Path) -> str:
    stored = 0
    try:
        with file.open("rb") as opened:
            batches = read_rows(
                opened,
                format_of(file, opened.peek(64)),
                rows_max=None,
                bytes_max=BATCH_BYTES_MAX,
                row_bytes_max=ROW_BYTES_MAX,
                server_columns=ServerColumns(),
            )
            for batch in batches:
                answer = post_rows(url, table, batch.payload, ARROW if batch.arrow else JSON, login=login)
                stored += answer["rows"]
    except BadLine as exc:
        raise CommandFailed(f"error: {exc}; {counted(stored, 'are')} stored of what is before it") from exc
    except OSError as exc:
        raise CommandFailed(f"error: cannot read {file}: {exc.strerror or exc}") from exc
    return f"{counted(stored)} copied from {file}"
