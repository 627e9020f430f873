"""SQL tables on NATS.

``kalam.connect`` and ``kalam.connect_sync`` are those of ``kalam.client``, which is imported when they are first used:
what a server imports does not grow by it.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kalam.client import connect, connect_sync

__version__ = "0.1.0"
__all__ = ["__version__", "connect", "connect_sync"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'kalam' has no attribute {name!r}")
    from kalam import client

    return getattr(client, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
