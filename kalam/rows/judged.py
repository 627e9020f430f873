"""Each by itself: whatever one message, row or event raises is its own, and never its neighbours'.

Bytes of others make libraries raise more than they document: msgspec tells of a timestamp in the year 10000 by a bare
ValueError, pyarrow of a bad column name by a UnicodeDecodeError. So nobody who works off many people's things may list
what one of them can raise and have the rest end the turn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

import msgspec
import structlog

from kalam.errors import Internal, KalamError

T = TypeVar("T")
log = structlog.get_logger(__name__)

UNREADABLE: Final = (msgspec.MsgspecError, ValueError, TypeError, OverflowError, RecursionError)
"""What reading bytes of others may raise because of them, UnicodeDecodeError among it."""


def judged(what: str, work: Callable[[], T]) -> T | KalamError:
    """What ``work`` returns, or its error: a KalamError as it is, and anything else as Internal, logged."""
    try:
        return work()
    except KalamError as exc:
        return exc.as_value()
    except Exception as exc:
        log.exception("one of many failed", what=what)
        detail = f"an internal error stopped this {what} ({type(exc).__name__}); the server's log has the details"
        return Internal(detail)
