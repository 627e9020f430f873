"""What a server does without while it starts.

Libraries import others that happen to be installed, for abilities that a server has no use for; that takes as long as
Kalam's own modules. As far as they are concerned these are not installed: it is what each of them is prepared for.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any, Final

from kalam.collector import THRESHOLDS

TRACEBACKS: Final = "rich"
"""structlog prints tracebacks with it; a server's log has plain ones, without local variables."""
WEBSOCKETS: Final = "aiohttp"
"""nats-py speaks WebSocket with it; it comes with s3fs."""


@contextmanager
def lean_start(unused: Collection[str]) -> Iterator[None]:
    """Import in the block, without the packages ``unused``; what is imported already stays.

    Python's collector looks less often from here on, for what imports make is kept: it took a tenth of a start.
    """
    gc.set_threshold(*THRESHOLDS)
    hidden = [name for name in unused if name not in sys.modules]
    absent: dict[str, Any] = dict.fromkeys(hidden)  # a None in its place is what makes an import fail
    sys.modules.update(absent)
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


def unused_packages(broker_urls: Collection[str | None]) -> list[str]:
    """What a server with the broker at one of these URLs has no use for."""
    websocket = any(url and url.startswith(("ws:", "wss:")) for url in broker_urls)
    return [TRACEBACKS] if websocket else [TRACEBACKS, WEBSOCKETS]
