"""Holds a process still, as a machine does that swaps or a virtual machine that is moved."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from patience import PATIENCE_S


@contextmanager
def held(pid: int) -> Iterator[None]:
    """Hold a process from now on to the end of the block; it may be gone by then.

    A SIGSTOP comes to each thread in its own time, while ``kill`` has returned long since: what runs in the block finds
    none of them running any more.
    """
    os.kill(pid, signal.SIGSTOP)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not _stands_still(pid):
            assert time.monotonic() < deadline, f"process {pid} does not stop"
            time.sleep(0.0005)
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def _stands_still(pid: int) -> bool:
    try:
        return all(_state(task) == "T" for task in Path(f"/proc/{pid}/task").iterdir())
    except (FileNotFoundError, ProcessLookupError):  # a thread ended while they were read
        return False


def _state(task: Path) -> str:
    # proc(5): "pid (comm) state …", where comm may hold anything, a bracket too
    return (task / "stat").read_text().rpartition(")")[2].split()[0]
