"""Which subjects of a foreign stream are read: the table's pattern, with the tokens that a query asks for."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from kalam.rows.foreign.messages import ForeignMessages
from kalam_nats.subjects import subject_matches

KEYS = "$KV.*."
"""Before each key, in whichever bucket it was put."""


class Filter(msgspec.Struct, frozen=True):
    """A filter subject, None for everything: the table's own, and the one of a query, which may be narrower.

    ``shorter`` is a subject that the narrow one leaves out though the query may mean it; None where there is none.
    """

    base: str | None
    narrow: str | None
    shorter: str | None = None

    def part(self, messages: ForeignMessages) -> ForeignMessages | None:
        """The messages that it lets through; None for none."""
        if self.narrow is None:
            return messages
        patterns = [pattern for pattern in (self.narrow, self.shorter) if pattern is not None]
        known = {
            subject: any(subject_matches(pattern, subject.decode("utf-8", "replace")) for pattern in patterns)
            for subject in dict.fromkeys(messages.subjects)
        }
        kept = [place for place, subject in enumerate(messages.subjects) if known[subject]]
        if len(kept) == len(messages):
            return messages
        return messages.only(kept) if kept else None


def filter_of(base: str | None, tokens: Sequence[tuple[int, str]]) -> Filter:
    """The filter of a table's pattern and the texts that some tokens, counted from 1, have to be."""
    if not tokens:
        return Filter(base, base)
    parts = (base or ">").split(".")
    open_end = parts[-1] == ">"
    if open_end:
        parts.pop()
    for number, text in tokens:
        if number > len(parts):
            if not open_end:
                return Filter(base, base)  # no subject of the pattern has such a token; the WHERE finds that, too
            parts += ["*"] * (number - len(parts))
        if parts[number - 1] == "*":
            parts[number - 1] = text
    narrow = ".".join(parts)
    if not open_end:
        return Filter(base, narrow)
    fixed = len((base or ">").split(".")) - 1
    return Filter(base, f"{narrow}.>", narrow if len(parts) > fixed else None)


def subjects_of_keys(tokens: Sequence[tuple[int, str]], key: str | None) -> list[str | None]:
    """The filter subjects of the keys with these tokens, or of one key; None for all. No key matches two of them."""
    if key is not None:
        return [KEYS + key]
    if not tokens:
        return [None]
    wanted = filter_of(f"{KEYS}>", [(number + KEYS.count("."), text) for number, text in tokens])
    return [subject for subject in (wanted.shorter, wanted.narrow) if subject is not None]


def covers(pattern: str, subjects: Sequence[str]) -> bool:
    """Whether every subject that these patterns match is one that ``pattern`` matches."""
    return all(_contains(pattern, subject) for subject in subjects)


def _contains(pattern: str, other: str) -> bool:
    wide, narrow = pattern.split("."), other.split(".")
    for place, part in enumerate(wide):
        if part == ">":
            return len(narrow) > place
        if place >= len(narrow) or narrow[place] == ">" or part not in ("*", narrow[place]):
            return False
    return len(wide) == len(narrow)
