"""The blocks of code of README.md and of the manual, as they are written there.

What stands behind the language tells how a block is run: ``listens`` goes on until ^C; a ``text`` block marked
``output`` is what the block before it prints, one marked ``heard`` what the last one that listens prints.
``users`` says that it speaks to a server whose users log in. A comment
that begins with ``→`` is a line of output too. ``…`` stands for anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]
PAGES = {"README": CHECKOUT / "README.md"} | {
    file.stem: file for file in sorted((CHECKOUT / "kalam" / "manual").glob("*.md"))
}
FENCE = re.compile(r"^```(\w*)([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SERVE = re.compile(r"^((?:KALAM_\w+=\S+ )*)kalam serve\b([^#&\n]*)", re.MULTILINE)
ARROW = re.compile(r"(?:#|//|--) → (.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Block:
    """A block of code: where it stands, its language and marks, its text, and lines that it prints, in their order."""

    page: str
    line: int
    language: str
    marks: frozenset[str]
    text: str

    @property
    def place(self) -> str:
        return f"{self.page}.md:{self.line}"

    @property
    def listens(self) -> bool:
        return "listens" in self.marks

    @property
    def of_users(self) -> bool:
        return "users" in self.marks

    @property
    def arrows(self) -> list[str]:
        """The lines of output that its comments tell."""
        return [] if self.language == "text" else ARROW.findall(self.text)


def read_blocks(page: str) -> Iterator[Block]:
    """The blocks of a page."""
    text = PAGES[page].read_text()
    for found in FENCE.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        yield Block(page, line, found[1], frozenset(found[2].split()), found[3])


def every_block() -> list[Block]:
    return [block for page in PAGES for block in read_blocks(page)]


def serve_lines() -> tuple[dict[str, str], list[str]]:
    """The settings and flags of every ``kalam serve`` in the blocks, for one server that has all of them."""
    environment: dict[str, str] = {}
    flags: list[str] = []
    for block in every_block():
        if block.language == "sh" and not block.of_users:
            for settings, rest in SERVE.findall(block.text):
                environment |= dict(word.split("=", 1) for word in settings.split())
                flags += rest.split()
    return environment, flags


def missing_line(expected: list[str], printed: str) -> str | None:
    """The first of the expected lines that is not printed behind those before it."""
    lines = iter(printed.splitlines())
    for line in expected:
        pattern = re.compile(".*".join(re.escape(part) for part in " ".join(line.split()).split("…")) + "$")
        if not any(pattern.match(" ".join(other.split())) for other in lines):
            return line
    return None
