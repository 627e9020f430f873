"""What a server and all the processes under it use: a server of today is several, and they come and go.

Read from ``/proc``. Processor time is that of all that live and of those that their parents have waited for; memory is
proportional (PSS), so that what processes share is counted once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

PROC: Final = Path("/proc")
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_PARENT, _FIRST_TIME, _LAST_TIME = 1, 11, 14
"""Places behind the name in ``proc_pid_stat(5)``: ppid; utime, stime, cutime and cstime."""


def there() -> bool:
    """Whether this system tells."""
    return (PROC / "self" / "smaps_rollup").exists()


def cpu_s(pid: int) -> float:
    """Seconds of processor time that a process and those under it have used so far."""
    ticks = 0
    for each in _under(pid):
        with suppress(OSError):  # it has ended meanwhile
            ticks += sum(map(int, _fields(each)[_FIRST_TIME : _LAST_TIME + 1]))
    return ticks / _TICKS_PER_S


def memory_bytes(pid: int) -> int:
    """Bytes that a process and those under it have in memory."""
    kilobytes = 0
    for each in _under(pid):
        with suppress(OSError):
            lines = (PROC / str(each) / "smaps_rollup").read_text().splitlines()
            kilobytes += next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
    return kilobytes * 1_024


def _under(pid: int) -> Iterator[int]:
    """A process and all those under it."""
    children: dict[int, list[int]] = {}
    for folder in PROC.iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                children.setdefault(int(_fields(int(folder.name))[_PARENT]), []).append(int(folder.name))
    left = [pid]
    while left:
        found = left.pop()
        yield found
        left += children.get(found, [])


def _fields(pid: int) -> list[str]:
    """The numbers of a process; its name, in brackets before them, may hold blanks."""
    return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
