"""Which processes run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def processes_that_name(text: str) -> list[str]:
    """The command lines of the processes that mention ``text`` there or have a file open whose path does."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            line = (folder / "cmdline").read_text().replace("\0", " ")
            if text in line or any(text in path for path in open_files(folder / "fd")):
                found.append(line)
    return found


def open_files(folder: Path) -> Iterator[str]:
    for file in folder.iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            yield str(file.readlink())
