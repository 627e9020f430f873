"""``kalam insert``: the rows of files into a table, over NATS."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer
from msgspec.structs import replace

from kalam.cli.address import Context, DataDir, PasswordFile, Url, User, find_server
from kalam.cli.arguments import table_name
from kalam.cli.failure import WrongUsage
from kalam.cli.parquet_reader import ParquetReader
from kalam.cli.row_formats import RowFormat
from kalam.imports import WEBSOCKETS, without


class OnConflict(enum.StrEnum):
    """What becomes of a row whose key is there already."""

    NOTHING = "nothing"
    UPDATE = "update"


Files = Annotated[
    list[str] | None,
    typer.Argument(
        help="Files of NDJSON, JSON, CSV, Parquet or Arrow, also .gz and .zst; folders, patterns; - is stdin.",
        show_default="-",
    ),
]
Format = Annotated[
    RowFormat | None,
    typer.Option("--format", help="What the files are; else their names and first bytes say it.", show_default=False),
]
BatchRows = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=100_000,
        help="Rows that are sent as one message, if they fit into one.  [default: 1,000; of CSV, Parquet and Arrow "
        "20,000; with --skip-bad at most 100]",
    ),
]
Conflict = Annotated[
    OnConflict | None,
    typer.Option(
        help="A row whose key is there already: leave that as it is, or set the columns that the file has.",
        show_default=False,
    ),
]
SkipBad = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Leave out rows that are refused, and write them and why into FILE.", show_default=False
    ),
]
Create = Annotated[
    bool, typer.Option("--create", help="Make the table if there is none, guessed from the first 1,000 rows; asks.")
]
Key = Annotated[
    str | None,
    typer.Option(metavar="A,B", help="With --create: the primary key, of one column or several.", show_default=False),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="With --create: do not ask.")]
Columns = Annotated[
    str | None,
    typer.Option(
        metavar="A,B",
        help="Take these columns of the file only; with --no-header their names, in order.",
        show_default=False,
    ),
]
Maps = Annotated[
    list[str] | None,
    typer.Option(
        "--map",
        metavar="NAME=COLUMN",
        help="What NAME in the file is called in the table.",
        show_default=False,
    ),
]
Booleans = Annotated[
    bool, typer.Option("--booleans", help="Take yes, no, t, f, 1 and 0 for true and false in BOOLEAN columns.")
]
Lossless = Annotated[bool, typer.Option("--lossless", help='Take 5.0 and "5" for integers, where nothing is lost.')]
Delimiter = Annotated[
    str | None,
    typer.Option(
        help="CSV: what stands between fields (also: tab).  [default: as the first line shows]", show_default=False
    ),
]
Quote = Annotated[str, typer.Option(help="CSV: what stands around a field; '' for nothing.")]
Nulls = Annotated[
    list[str] | None,
    typer.Option("--null", metavar="WORD", help="CSV: what means NULL besides an empty field.", show_default=False),
]
NoHeader = Annotated[bool, typer.Option("--no-header", help="CSV: the first line is a row; give --columns.")]
Encoding = Annotated[
    str | None,
    typer.Option(help="What texts are in, such as cp1252 or utf-16.  [default: utf-8]", show_default=False),
]
Prefix = Annotated[str, typer.Option(envvar="KALAM_SUBJECT_PREFIX", help="First token of the server's subjects.")]


def insert(
    table: Annotated[str, typer.Argument(help="The table, as namespace.table.", show_default=False)],
    files: Files = None,
    row_format: Format = None,
    batch_rows: BatchRows = None,
    on_conflict: Conflict = None,
    skip_bad: SkipBad = None,
    create: Create = False,
    key: Key = None,
    yes: Yes = False,
    columns: Columns = None,
    maps: Maps = None,
    booleans: Booleans = False,
    lossless: Lossless = False,
    delimiter: Delimiter = None,
    quote: Quote = '"',
    nulls: Nulls = None,
    no_header: NoHeader = False,
    encoding: Encoding = None,
    url: Url = None,
    context: Context = None,
    data_dir: DataDir = None,
    user: User = None,
    password_file: PasswordFile = None,
    subject_prefix: Prefix = "kalam",
) -> None:
    """Insert the rows of files into a table.

    Stops at the first batch that is refused, and says which rows are stored. Columns that the server keeps itself,
    as in a file of `kalam export`, are left out; a column whose name differs in case is found.
    """
    name = table_name(table)
    chosen = _listed(columns)
    if no_header and not chosen:
        raise WrongUsage("--no-header needs --columns, which names the columns in their order")
    if key and not create:
        raise WrongUsage("--key belongs to --create")
    server = find_server(url, context, data_dir, user=user, password_file=password_file).with_name()
    with ParquetReader() as parquet:
        if any(file.endswith(".parquet") for file in files or []):
            parquet.start()  # which takes as long as the imports that follow
        with without(*(() if server.may_speak_websocket() else (WEBSOCKETS,))):
            from kalam.cli.loading.dialects import checked_encoding, one_character
            from kalam.cli.loading.load import Asked, Making, Where, load
            from kalam.cli.loading.reading import Reading

        form = Reading(
            row_format=row_format, encoding=checked_encoding(encoding), booleans=booleans, rows_max=batch_rows
        )
        mark = None if delimiter is None else one_character("--delimiter", delimiter)
        around = one_character("--quote", quote, may_be_empty=True)
        names, taken = (chosen, None) if no_header else (None, chosen)
        reading = replace(form, delimiter=mark, quote=around, nulls=nulls or [], names=names)
        where = Where(subject_prefix=subject_prefix, server=server)
        asked = Asked(table=name, files=files or ["-"], reading=reading, where=where, chosen=taken)
        taking = replace(
            asked, on_conflict=on_conflict, skip_bad=skip_bad, lossless=lossless, mapped=_mapped(maps or [])
        )
        load(replace(taking, making=Making(key=_listed(key) or [], yes=yes) if create else None), parquet)


def _listed(columns: str | None) -> list[str] | None:
    return [column.strip() for column in (columns or "").split(",") if column.strip()] or None


def _mapped(maps: list[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in maps]
    for name, equals, column in pairs:
        if not (name and equals and column):
            raise WrongUsage(f"--map takes NAME=COLUMN, found {name + equals + column!r}")
    return {name.strip(): column.strip().lower() for name, _, column in pairs}
