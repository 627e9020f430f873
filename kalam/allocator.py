"""Where the server's memory comes from, and that it goes back.

Arrow brings mimalloc, whose heaps, one a thread, keep what was freed: with 47 MB of Arrow in use, and never more than
51, the process held 282 MB for it. The C library's allocator keeps a fifth of that when its threads share two arenas,
takes no more time, and gives the rest back when it is asked (``kalam.storage.work.housekeeping`` asks).

A large buffer has pages of its own, which go back when it is freed. glibc gives up on that by itself: whenever such a
buffer is freed it raises the size from which it does so, up to 32 MB, and what is put between large buffers in its
arenas keeps their room. After an hour of inserts and compactions 125 MB were in use there and 175 MB were free.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from typing import Final

M_ARENA_MAX: Final = -8  # of glibc's malloc.h
M_MMAP_THRESHOLD: Final = -3
ARENAS: Final = 2
OWN_PAGES_BYTES: Final = 512 << 10
"""From which size a buffer has pages of its own: a smaller one costs more to map than it is worth."""


def choose_allocator() -> None:
    """Choose it for this process and those that it starts; before pyarrow is imported and threads are made.

    ``ARROW_DEFAULT_MEMORY_POOL`` in the environment, Arrow's own setting, wins.
    """
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    with suppress(OSError, AttributeError):  # another C library has no such knob
        library = ctypes.CDLL(None)
        library.mallopt(M_ARENA_MAX, ARENAS)
        library.mallopt(M_MMAP_THRESHOLD, OWN_PAGES_BYTES)
