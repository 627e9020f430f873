"""Letting go of a large dictionary without a pause.

To free a million keys takes the interpreter a tenth of a second in one piece, during which no thread answers anybody.
So they are let go of a few at a time, in a thread of their own.
"""

from __future__ import annotations

import threading
import time
from typing import Any

SMALL = 20_000
AT_ONCE = 1_000
PAUSE_S = 0.001


def let_go(large: dict[Any, Any]) -> None:
    """Empty a dictionary that nobody needs any more; a large one in the background."""
    if len(large) > SMALL:
        threading.Thread(target=_empty, args=(large,), name="disposal", daemon=True).start()


def _empty(large: dict[Any, Any]) -> None:
    while large:
        for _ in range(min(AT_ONCE, len(large))):
            large.popitem()
        time.sleep(PAUSE_S)
