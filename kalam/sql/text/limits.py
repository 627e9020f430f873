"""How long and how deep a text may be, and where a long one may be read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

KEPT_CHARACTERS_MAX = 2_048
"""What is read of longer texts is not kept."""
TOO_DEEP = "the statement is nested too deeply"


class ReadElsewhere(Exception):
    """A query or expression is longer than may be read in this place."""


_HERE_MAX: ContextVar[int | None] = ContextVar("characters_read_here", default=None)


@contextmanager
def reading_here(characters_max: int) -> Iterator[None]:
    """Raise ReadElsewhere in the block for a query or expression of more than so many characters."""
    token = _HERE_MAX.set(characters_max)
    try:
        yield
    finally:
        _HERE_MAX.reset(token)


def check_read_here(text: str) -> None:
    """Raise ReadElsewhere where ``reading_here`` says so."""
    here_max = _HERE_MAX.get()
    if here_max is not None and len(text) > here_max:
        raise ReadElsewhere
