"""What is wrong with single tables: shown at the table, counted, and no fault of the server.

A trouble is noted by whoever meets it, under a word for what could not be done (``flush``, ``compaction``, …), and
cleared by the next time that this succeeds.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog

from kalam.errors import Cancelled, KalamError

log = structlog.get_logger(__name__)


class Troubles:
    """The troubles of all tables, by table id and by what could not be done."""

    def __init__(self) -> None:
        self._reasons: dict[int, dict[str, str]] = {}

    def note(self, table_id: int, what: str, reason: str) -> None:
        """Something could not be done for a table."""
        self._reasons.setdefault(table_id, {})[what] = reason

    @contextmanager
    def watching(self, table_id: int, what: str) -> Iterator[None]:
        """Note that the block could not be done, whatever it raises, or clear that it could not; it raises on."""
        try:
            yield
        except Cancelled:
            raise
        except Exception as exc:
            self.note(table_id, what, reason_of(exc))
            raise
        self.clear(table_id, what)

    def clear(self, table_id: int, what: str) -> None:
        """It was done."""
        reasons = self._reasons.get(table_id)
        if reasons is not None and reasons.pop(what, None) is not None and not reasons:
            del self._reasons[table_id]

    def forget(self, table_id: int) -> None:
        """The table was dropped."""
        self._reasons.pop(table_id, None)

    def of(self, table_id: int) -> list[tuple[str, str]]:
        """What could not be done for a table, and why."""
        return list(self._reasons.get(table_id, {}).items())

    def __iter__(self) -> Iterator[tuple[int, str, str]]:
        """Every trouble: table id, what could not be done, and why."""
        for table_id, reasons in list(self._reasons.items()):
            for what, reason in list(reasons.items()):
                yield table_id, what, reason


def reason_of(exc: Exception) -> str:
    """What is told of a failure; of one that nobody foresaw only its kind, the log has the rest."""
    return exc.detail if isinstance(exc, KalamError) else f"an internal error ({type(exc).__name__})"


def log_failure(event: str, exc: Exception, **fields: Any) -> None:
    """Log what failed, with a traceback where nobody foresaw it."""
    if isinstance(exc, KalamError):
        log.error(event, error=exc.detail, **fields)
    else:
        log.error(event, exc_info=exc, **fields)
