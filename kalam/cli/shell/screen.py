"""How results reach a person: as a table or a line for each column, through a pager where they are long."""

from __future__ import annotations

import io
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, TextIO

import msgspec

from kalam.cli.failure import CommandFailed
from kalam.cli.result_formats import expanded_lines, row_count_line, table_lines, width_of
from kalam.cli.telling import is_quiet, is_styled


class Screen(msgspec.Struct):
    """Where output goes. ``interactive`` is a person at a terminal; only then is there a pager."""

    interactive: bool
    expanded: bool = False
    timing: bool = False
    file: TextIO | None = None

    def results(self, results: list[dict[str, Any]]) -> None:
        """Show what a statement answered."""
        for result in results:
            if result["columns"]:
                self.text(self._rows(result))
            elif result["message"]:
                self.say(result["message"])

    def say(self, line: str) -> None:
        """A line that is no result: beside the results where a program reads them."""
        if not is_quiet():
            print(line, file=sys.stdout if self.interactive else sys.stderr, flush=True)

    def text(self, text: str) -> None:
        r"""Results: to the file of ``\o``, through a pager, or as they are."""
        if self.file is not None:
            self.file.write(text)
            self.file.flush()
            return
        if self.interactive and self._is_large(text) and (pager := _pager()):
            subprocess.run(pager, input=text.encode(), env={"LESS": "-SRFX", **os.environ}, check=False)  # noqa: S603 - $PAGER
            return
        sys.stdout.write(text)
        sys.stdout.flush()

    def open_file(self, name: str | None) -> None:
        """Write results to a file from now on; without a name to the terminal again."""
        if self.file is not None:
            self.file.close()
            self.file = None
        if name:
            try:
                self.file = Path(name).expanduser().open("w", encoding="utf-8")
            except OSError as exc:
                raise CommandFailed(f"error: cannot write {name}: {exc.strerror}") from exc

    def _rows(self, result: dict[str, Any]) -> str:
        styled = self.interactive and self.file is None and is_styled(sys.stdout)
        out = io.StringIO()
        lines = expanded_lines if self.expanded else table_lines
        out.writelines(f"{line}\n" for line in lines(result, styled=styled, encoding="utf-8"))
        if self.interactive:
            out.write(f"{row_count_line(result)}\n")
        return out.getvalue()

    @staticmethod
    def _is_large(text: str) -> bool:
        size = shutil.get_terminal_size()
        lines = text.split("\n")
        return len(lines) > size.lines or any(width_of(line) > size.columns for line in lines[:200])


def _pager() -> list[str] | None:
    """The command of the pager: ``$PAGER``, else less, else none."""
    words = shlex.split(os.environ.get("PAGER", "less"))
    return words if words and shutil.which(words[0]) else None
