"""How much memory a process and its children hold, as Linux counts it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

KB = 1024


@dataclass(frozen=True)
class Held:
    """A process: its name, what it holds, and how much of that lies in no file."""

    pid: int
    name: str
    rss_mb: int
    anonymous_mb: int

    def __str__(self) -> str:
        return f"{self.name} {self.rss_mb} MB ({self.anonymous_mb} own)"


def memory_of(pid: int) -> list[Held]:
    """A process and everything that it started, itself first."""
    found = [held] if (held := _held(pid)) else []
    for child in _children(pid):
        found += memory_of(child)
    return found


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += map(int, file.read_text().split())
        except OSError:
            continue
    return sorted(found)


def _held(pid: int) -> Held | None:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_text().strip("\0").split("\0")
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    sizes = {
        name: int(rest.split()[0]) // KB
        for name, _, rest in (line.partition(":") for line in lines)
        if name in ("VmRSS", "RssAnon")
    }
    if not sizes:
        return None
    name = words[words.index("-m") + 1] if "-m" in words else Path(words[0]).name
    return Held(pid, name.rpartition(".")[2], sizes["VmRSS"], sizes["RssAnon"])
