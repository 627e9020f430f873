"""Libraries import others that happen to be installed, for abilities that Kalam has no use for.

That takes as long as Kalam's own modules. Where it is so, a process does without: to the library that asks, the other
is not installed, which is what each of them is prepared for.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from types import ModuleType
from typing import Final

TRACEBACKS: Final = "rich"
"""structlog prints tracebacks with it; Kalam's logs have plain ones, without local variables."""
WEBSOCKETS: Final = "aiohttp"
"""nats-py speaks WebSocket with it; it comes with s3fs."""
DATA_FRAMES: Final = "pandas"
"""pyarrow asks whether what it turns into an array is of pandas, sqlite-utils which SQL types pandas' would be.

Together with what it imports it is 40 MB and most of a second, within a statement.
"""

OBJECT_STORES: Final = ("pyarrow._s3fs", "pyarrow._gcsfs", "pyarrow._azurefs", "pyarrow._hdfs")
"""pyarrow's own ways to them, which it loads with its reader of Parquet files: 4 MB. Kalam goes there by fsspec."""


class Forgone(MetaPathFinder):
    """Has every import of ``packages`` fail, unless they are imported already.

    A None in ``sys.modules`` is the shorter way, but what Cython compiled takes that for the module.
    """

    def __init__(self, *packages: str) -> None:
        self._packages = packages

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        """Leave what is not forgone to the others."""
        if fullname in self._packages:
            raise ModuleNotFoundError(f"Kalam does without {fullname} here", name=fullname)


def forgo(*packages: str) -> None:
    """Do without these in this process, from here on."""
    sys.meta_path.insert(0, Forgone(*packages))


@contextmanager
def without(*packages: str) -> Iterator[None]:
    """Do without these in the block: what is imported in it never gets them, and who asks later does."""
    forgone = Forgone(*packages)
    sys.meta_path.insert(0, forgone)
    try:
        yield
    finally:
        sys.meta_path.remove(forgone)
