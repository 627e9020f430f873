"""Starts a worker and runs its ``main``: ``python -m kalam.storage.work.worker_main <module of the worker>``."""

from __future__ import annotations

import sqlite3
import sys
from importlib import import_module

from kalam.imports import TRACEBACKS, without


def main() -> None:
    """Run the worker that is named until its input ends."""
    with without(TRACEBACKS):
        worker = import_module(sys.argv[1])
    try:
        worker.main()
    except (KeyboardInterrupt, BrokenPipeError, sqlite3.OperationalError):
        sys.exit(1)


if __name__ == "__main__":
    main()
