"""``kalam export --snapshot``: a table as plain Parquet files in a folder, all of one moment, sorted by its key.

The files are written into a folder beside it and moved into place when all of them are whole.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Final

import msgspec

from kalam.cli.export_formats import ExportFormat, RowWriter, row_writer
from kalam.cli.exported_rows import pieces, whole_file
from kalam.cli.failure import INTERRUPTED, CommandFailed
from kalam.cli.http import Refusal, ask_sql
from kalam.cli.problem_text import problem_text
from kalam.cli.server_columns import SERVER_COLUMNS
from kalam.cli.telling import tell
from kalam.cli.words import counted
from kalam.credentials import Credentials
from kalam.names import TableName

FILE_ROWS: Final = 1_000_000
PARTS: Final = "part-*.parquet"
COLUMNS: Final = (
    "SELECT column_name, key_ordinal FROM system.columns WHERE namespace = $1 AND table_name = $2 ORDER BY ordinal"
)


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be written, and where to."""

    table: TableName
    folder: Path
    force: bool
    system_columns: bool
    login: Credentials

    def write(self, url: str) -> None:
        """Write it; raises CommandFailed."""
        shown, folder = self.folder, self.folder.resolve()
        try:
            if folder.exists() and not folder.is_dir():
                raise CommandFailed(f"error: {shown} is there and is no folder")
            if folder.is_dir() and any(folder.iterdir()) and not self.force:
                raise CommandFailed(f"error: {shown} holds files already; --force replaces the parts in it")
            beside = folder.parent / f".{folder.name}.part"
            shutil.rmtree(beside, ignore_errors=True)
            beside.mkdir(parents=True)
            try:
                rows, files = self._write_parts(url, beside)
                self._move(beside)
            finally:
                shutil.rmtree(beside, ignore_errors=True)
        except OSError as exc:
            raise CommandFailed(f"error: cannot write {shown}: {exc.strerror or exc}") from exc
        except KeyboardInterrupt as exc:
            raise CommandFailed(f"interrupted: {shown} holds what it held before", INTERRUPTED) from exc
        except Refusal as exc:
            raise CommandFailed(problem_text(exc.problem)) from exc
        tell(f"{counted(rows)} in {files:,} Parquet file{'' if files == 1 else 's'} in {shown}")

    def _write_parts(self, url: str, folder: Path) -> tuple[int, int]:
        """How many rows and files there are."""
        count, files = 0, 0
        with pieces(url, self._sql(url), self.login) as (schema, tables):
            left: Any = next(tables, schema.empty_table())
            while left is not None:
                with whole_file(folder / PARTS.replace("*", f"{files:05}")) as target:
                    writer: RowWriter = row_writer(ExportFormat.PARQUET, target, schema)
                    room = FILE_ROWS
                    while left is not None and room:
                        writer.write_table(left.slice(0, room))
                        count += min(room, left.num_rows)
                        rest = left.slice(room)
                        room -= min(room, left.num_rows)
                        left = rest if rest.num_rows else next(tables, None)
                    writer.close()
                files += 1
        return count, files

    def _sql(self, url: str) -> str:
        answer = json.loads(ask_sql(url, COLUMNS, params=[self.table.namespace, self.table.table], login=self.login))
        columns = answer["results"][0]["rows"]
        names = [name for name, _ in columns if name not in SERVER_COLUMNS]
        shown = _quoted(names) if names and not self.system_columns else "*"
        keys = [name for _, name in sorted((place, name) for name, place in columns if place is not None)]
        order = f" ORDER BY {_quoted(keys)}" if keys else ""
        return f"SELECT {shown} FROM {self.table}{order}"  # noqa: S608 - names of the catalogue

    def _move(self, beside: Path) -> None:
        """The parts into the folder, in which nothing else is touched."""
        self.folder.mkdir(parents=True, exist_ok=True)
        written = sorted(beside.iterdir())
        for file in written:
            file.replace(self.folder / file.name)
        for old in set(self.folder.glob(PARTS)) - {self.folder / file.name for file in written}:
            old.unlink()


def _quoted(names: list[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)
