"""Where the server's memory comes from, and that it goes back.

Arrow brings mimalloc, whose heaps, one a thread, keep what was freed: with 47 MB of Arrow in use, and never more than
51, the process held 282 MB for it. The C library's allocator keeps a fifth of that when its threads share two arenas,
takes no more time, and gives the rest back when it is asked (``kalam.storage.housekeeping`` asks).
"""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from typing import Final

M_ARENA_MAX: Final = -8  # of glibc's malloc.h
ARENAS: Final = 2


def choose_allocator() -> None:
    """Choose it for this process and those that it starts; before pyarrow is imported and threads are made.

    ``ARROW_DEFAULT_MEMORY_POOL`` in the environment, Arrow's own setting, wins.
    """
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    with suppress(OSError, AttributeError):  # another C library has no such knob
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, ARENAS)
