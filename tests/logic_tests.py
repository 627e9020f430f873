"""Reads files of SQLite's sqllogictest, and says whether an answer is the one that a file expects."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

DATABASE = "postgresql"
"""The database that ``skipif`` and ``onlyif`` are read for."""


@dataclass(frozen=True)
class Record:
    """A statement, or with ``types`` (a letter of I, T, R per column) a query; ``expected`` are lines of its answer."""

    text: str
    line: int
    types: str = ""
    order: str = "nosort"
    expected: tuple[str, ...] = ()
    fails: bool = False

    def is_answered_by(self, rows: Sequence[Sequence[Any]]) -> bool:
        """Whether these rows are what the file expects."""
        if any(len(row) != len(self.types) for row in rows):
            return False
        shown = [[_shown(value, kind) for value, kind in zip(row, self.types, strict=True)] for row in rows]
        if self.order == "rowsort":
            shown.sort()
        values = [value for row in shown for value in row]
        if self.order == "valuesort":
            values.sort()
        if len(self.expected) == 1 and " values hashing to " in self.expected[0]:
            digest = hashlib.md5("".join(f"{value}\n" for value in values).encode()).hexdigest()
            return self.expected[0] == f"{len(values)} values hashing to {digest}"
        return list(self.expected) == values


def _shown(value: Any, kind: str) -> str:
    if value is None:
        return "NULL"
    if kind == "I":
        return str(int(Decimal(str(value))))
    if kind == "R":
        return f"{float(value):.3f}"
    return "".join(char if " " <= char <= "~" else "@" for char in str(value)) or "(empty)"


def records(file: Path) -> Iterator[Record]:
    """The statements and queries of a file that are meant for ``DATABASE``, in their order."""
    line = 1
    for block in file.read_text().replace("\r\n", "\n").split("\n\n"):
        start, lines = line, block.split("\n")
        line += len(lines) + 1
        lines = [each for each in lines if not each.startswith("#")]
        if "halt" in lines:
            return
        conditions = [each.split() for each in lines if each.startswith(("skipif ", "onlyif "))]
        body = [each for each in lines if each and not each.startswith(("skipif ", "onlyif ", "hash-threshold "))]
        if not body or any((word == "onlyif") is (name != DATABASE) for word, name, *_ in conditions):
            continue
        head, *rest = body
        if head.startswith("statement "):
            yield Record("\n".join(rest), start, fails=head.split()[1] == "error")
        elif head.startswith("query "):
            _, types, *order = head.split()
            middle = rest.index("----")
            yield Record("\n".join(rest[:middle]), start, types, (order or ["nosort"])[0], tuple(rest[middle + 1 :]))
