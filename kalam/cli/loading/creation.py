"""A table for a file: its statement, shown and asked for before it is run."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Final

import typer

from kalam.cli.failure import CommandFailed
from kalam.cli.words import counted
from kalam.names import TableName

WIDTH_MAX: Final = 100


def create_statement(table: TableName, types: Mapping[str, str], key: Sequence[str]) -> str:
    """CREATE TABLE with columns of these types; ``key`` are the columns of the primary key, none for none."""
    columns = [f'"{name}" {kind}{" PRIMARY KEY" if [name] == [*key] else ""}' for name, kind in types.items()]
    if len(key) > 1:
        columns.append("PRIMARY KEY ({})".format(", ".join(f'"{name}"' for name in key)))
    one_line = ", ".join(columns)
    listed = one_line if len(one_line) <= WIDTH_MAX else "\n  " + ",\n  ".join(columns) + "\n"
    return f"CREATE TABLE {table} ({listed})"


def confirm_creation(statement: str, rows: int, *, yes: bool, stdin_is_rows: bool) -> None:
    """Show the statement and ask; raises CommandFailed unless it is wanted."""
    typer.echo(f"{statement}\n  -- guessed from {counted(rows)}", err=True)
    if yes:
        return
    if stdin_is_rows or not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise CommandFailed("error: nothing was created: there is no terminal to ask at\nhint: say --yes")
    if not typer.confirm("Create it?", default=False, err=True):
        raise CommandFailed("nothing was created")
