"""A disk that fails for a while: what runs by itself waits for it, and does not end the server."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from kalam.errors import KalamError

log = structlog.get_logger(__name__)


@contextmanager
def disk_may_fail(what: str) -> Iterator[None]:
    """Log it when the disk refuses something that will be tried again."""
    try:
        yield
    except (KalamError, OSError, sqlite3.Error) as exc:
        log.warning("something waits for the disk", what=what, error=str(exc))
