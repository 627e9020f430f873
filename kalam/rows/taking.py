"""How an insert wants its rows to be taken, where it differs from the rule.

The rule is: all rows of a batch or none, and every value of its column's own type. A sender asks for something else at
each door alike: by headers of a NATS message, by the same headers or parameters of the query over HTTP.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

import msgspec

from kalam.errors import InvalidValue

Conflict = Literal["nothing", "update"]


class Taking(msgspec.Struct, frozen=True, gc=False):
    """What is asked for.

    ``skip``: a row that is wrong, or whose key is taken, is refused alone and the others are stored.
    ``ignore_unknown``: members that no column names are dropped. ``lossless``: 5.0 and "5" are integers, and "0.5" is a
    number. ``conflict``: a row whose key is there already is left as it is (nothing) or gets the columns that the
    message names (update).
    """

    skip: bool = False
    ignore_unknown: bool = False
    lossless: bool = False
    conflict: Conflict | None = None


PLAIN: Final = Taking()

WORDS: Final = {
    "Kalam-On-Invalid": ("on_invalid", ("refuse", "skip")),
    "Kalam-Unknown": ("unknown", ("refuse", "ignore")),
    "Kalam-Coerce": ("coerce", ("none", "lossless")),
    "Kalam-On-Conflict": ("on_conflict", ("refuse", "nothing", "update")),
}
"""The headers, the parameter of an HTTP query that says the same, and what each may be; the first is the rule."""


def read_taking(said: Callable[[str, str], str | None]) -> Taking:
    """What a request asks for; ``said`` gives the value of a header or of its parameter, None where there is none.

    Raises InvalidValue for a word that is not one of WORDS.
    """
    on_invalid, unknown, coerce, on_conflict = (_word(name, *WORDS[name], said) for name in WORDS)
    if not (on_invalid or unknown or coerce or on_conflict):
        return PLAIN
    return Taking(
        skip=on_invalid == "skip",
        ignore_unknown=unknown == "ignore",
        lossless=coerce == "lossless",
        conflict=on_conflict or None,  # type: ignore[arg-type]  # one of WORDS
    )


def _word(header: str, parameter: str, words: tuple[str, ...], said: Callable[[str, str], str | None]) -> str:
    """The word that was said; the rule is an empty text, whether it was said, left empty or not said."""
    given = said(header, parameter)
    if not given or given == words[0]:
        return ""
    if given not in words:
        raise InvalidValue(f"{header} ({parameter}) is one of {', '.join(words)}; found {given[:40]!r}")
    return given
