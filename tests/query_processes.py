"""The query processes of a server, found from outside."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def _children(pid: int) -> list[int]:
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return []


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def query_processes(server_pid: int) -> set[int]:
    """The fork server of a server, and its workers."""
    return {child for child in _descendants(server_pid) if _name(child).startswith(("kalam-queries", "kalam-query"))}


def workers(server_pid: int) -> set[int]:
    """The workers of a server."""
    return {child for child in query_processes(server_pid) if _name(child) == "kalam-query"}


def _descendants(pid: int) -> Iterator[int]:
    for child in _children(pid):
        yield child
        yield from _descendants(child)


def resident_bytes(pid: int) -> int:
    """The memory that a process holds."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def cpu_ticks(pid: int) -> int:
    """The processor time that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def runs(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
