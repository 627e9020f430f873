"""A message whose wrong rows are refused alone, as its sender asked (``Kalam-On-Invalid: skip``).

A row may be wrong when it is read, when its event would not fit, or when its key turns out to be taken, which only the
writer knows. ``Sifted`` is such a message on its way: what is left of it, and why the others are not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import msgspec

from kalam.errors import KalamError
from kalam.rows.door import RowDecoder
from kalam.rows.message_rows import MessageRows, sift
from kalam.rows.refusals import without_row
from kalam.rows.types import Row
from kalam.schema import Table

ERRORS_TOLD_MAX: Final = 100
"""So many refused rows are told in an answer; the others are counted in it, and published."""


class RefusedRow(msgspec.Struct, frozen=True):
    """A row that was refused alone: its number in what was sent, from 1, why, and its bytes."""

    row: int
    error: KalamError
    payload: bytes

    def told(self) -> dict[str, Any]:
        """What the sender reads of it."""
        return {"row": self.row, "code": self.error.code, "detail": without_row(self.error)}


RefusedSink = Callable[[Table, str, Sequence[RefusedRow]], None]
"""Publishes refused rows of a table and user where the messages go that are refused whole; nobody waits for it."""


class Sifted:
    """The rows of a message that are still to be stored, and those that are refused."""

    def __init__(self, rows: Sequence[Row], source: Callable[[], MessageRows]) -> None:
        self.rows = rows
        self.refused: list[RefusedRow] = []
        self._places: Sequence[int] = range(len(rows))
        self._source = source

    @classmethod
    def read(cls, source: MessageRows, decoder: RowDecoder, user: str) -> Sifted:
        """Of a message that could not be read as a whole."""
        rows, places, errors = sift(len(source), partial(source.decode, decoder, user))
        sifted = cls(rows, lambda: source)
        sifted._places = places
        sifted._refuse(errors)
        return sifted

    @property
    def payload(self) -> bytes:
        """The message that the rows would have been which are not refused."""
        return self._source().only(self._places)

    def keep(self, judge: Callable[[Sequence[Row]], object]) -> None:
        """Refuse each row that ``judge`` refuses, which raises what is wrong with one of the rows that it is given."""

        def judged_rows(first: int, end: int) -> Sequence[Row]:
            judge(self.rows[first:end])
            return self.rows[first:end]

        _, _, errors = sift(len(self.rows), judged_rows)
        self.drop(errors)

    def drop(self, errors: Mapping[int, KalamError]) -> None:
        """Refuse the rows at these places of ``rows``."""
        numbered = {self._places[place]: error for place, error in errors.items()}
        kept = [place for place in range(len(self.rows)) if place not in errors]
        self.rows = [self.rows[place] for place in kept]
        self._places = [self._places[place] for place in kept]
        self._refuse(numbered)

    def _refuse(self, errors: Mapping[int, KalamError]) -> None:
        if not errors:
            return
        source = self._source()
        self.refused += [RefusedRow(index + 1, error, source.alone(index)) for index, error in errors.items()]
        self.refused.sort(key=lambda refused: refused.row)

    def told(self) -> bytes:
        """The members that an answer has of the refused, to be put behind the others."""
        errors = [refused.told() for refused in self.refused[:ERRORS_TOLD_MAX]]
        return b',"refused":%d,"errors":%b' % (len(self.refused), msgspec.json.encode(errors))


def with_refused(answer: bytes, told: bytes) -> bytes:
    """The answer to an insert, an object of JSON, with the members of ``Sifted.told``."""
    return answer[:-1] + told + b"}"
