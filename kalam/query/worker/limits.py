"""What a worker may use."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from pathlib import Path

import msgspec

KEPT_BYTES = 64 << 20
"""Beside its memory a query gets this for what a worker keeps between queries, such as the footers of files."""
NICENESS = 5
"""Queries yield to whoever commits and publishes."""
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Limits(msgspec.Struct, frozen=True):
    """``memory_bytes`` bounds a query, beside what it reads from shared memory; ``partitions`` run side by side."""

    memory_bytes: int
    partitions: int


def data_bytes() -> int:
    """The memory of its own that this process has asked for; 0 where that cannot be told."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[5]) * _PAGE
    except OSError:
        return 0


def bind_process(limits: Limits) -> None:
    """Bound what this process takes from now on.

    RLIMIT_DATA and not RLIMIT_AS: shared memory and mapped files are no memory of a query, and the allocators of Arrow
    and DataFusion reserve addresses by the gigabyte.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError):
        os.nice(NICENESS)
    if sys.platform != "linux":
        return
    most = data_bytes() + limits.memory_bytes + KEPT_BYTES
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    with contextlib.suppress(OSError):  # where the machine's memory ends, this ends before the server does
        Path("/proc/self/oom_score_adj").write_text("500")
