"""A process that does not outlive the one that started it, whatever ends that."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_SET_DEATH_SIGNAL, _SET_NAME = 1, 15  # of prctl(2)


def end_with_parent(parent: int, name: str) -> None:
    """Have the kernel kill this process when ``parent`` ends, and show it under a name.

    Elsewhere than on Linux it ends when it next reads from or writes to the server.
    """
    if sys.platform != "linux":
        return
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl(_SET_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    prctl(_SET_NAME, name.encode()[:15], 0, 0, 0)
    if os.getppid() != parent:  # it ended before
        os._exit(1)
