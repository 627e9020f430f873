"""What is read of patterns and paths, kept by their texts: a query asks for the same with each of its rows.

Texts may come from rows, and be as long as those. What is read of a long one is not kept, so that all of it together
has a bound on its bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import ParamSpec, TypeVar, cast

P = ParamSpec("P")
T = TypeVar("T")

TEXTS_MAX = 256
CHARACTERS_MAX = 2_048
"""Longer texts are read anew each time."""


def kept(read: Callable[P, T]) -> Callable[P, T]:
    """A function of texts that remembers what it gave for those that it was asked last, if they are short."""
    known = lru_cache(maxsize=TEXTS_MAX)(read)

    @wraps(read)
    def asked(*texts: P.args, **named: P.kwargs) -> T:
        size = sum(map(len, cast("tuple[str, ...]", texts)))
        return known(*texts, **named) if size <= CHARACTERS_MAX else read(*texts, **named)  # type: ignore[arg-type] # texts can be hashed

    return asked
