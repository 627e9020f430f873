"""Running out of file descriptors: told as what it is, and not as a file that is damaged."""

from __future__ import annotations

import errno
import os
import resource

from kalam.errors import TooBusy

NONE_LEFT = frozenset({errno.EMFILE, errno.ENFILE})
WORDS = ("Too many open files", "os error 24", "os error 23")
"""How libraries say it that have no number for it (pyarrow, DataFusion)."""
WANTED = 1 << 16


def raise_limit() -> None:
    """Let this process open as many files as it may, up to what it can need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED if hard == resource.RLIM_INFINITY else min(hard, WANTED)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def out_of_files(exc: BaseException) -> TooBusy | None:
    """The error that a user reads if ``exc`` says, or happened because, no file descriptor was left; else None."""
    said = getattr(exc, "errno", None) in NONE_LEFT or any(words in str(exc) for words in WORDS)
    if not said and not _none_left():
        return None
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return TooBusy(
        f"the server has no file descriptor left (its limit is {limit})",
        hint="try again; if it happens often, start the server with a higher limit (ulimit -n)",
    )


def _none_left() -> bool:
    try:
        os.close(os.dup(0))
    except OSError as exc:
        return exc.errno in NONE_LEFT
    return False
