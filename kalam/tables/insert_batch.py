"""Messages of rows that came together, on their way to be stored.

Each message in a batch is a statement of its own: it is accepted or refused whole, and has its own answer; but all are
decoded, committed and published together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from operator import attrgetter

import msgspec

from kalam.errors import KalamError
from kalam.rows.column_rows import ColumnRows, joined
from kalam.rows.taking import PLAIN, Taking
from kalam.rows.types import Row
from kalam.storage.log.answers import MessageName
from kalam.tables.sifted import RefusedRow, Sifted, with_refused


class InsertMessage(msgspec.Struct, frozen=True, gc=False):
    """One message: one row, or an array of rows, or an Arrow stream.

    ``msg_id`` makes it idempotent. Where the answer is not ``awaited`` none need be made of what is accepted. ``trace``
    is its ``traceparent``, which the events of its rows will have; ``taking`` how its rows are to be taken.
    """

    payload: bytes
    arrow: bool = False
    msg_id: str | None = None
    awaited: bool = True
    trace: str | None = None
    taking: Taking = PLAIN


Answer = bytes | KalamError
_TRACE = attrgetter("trace")


class Batch(msgspec.Struct, frozen=True):
    """Messages and the rows that they are: all together, in order.

    ``counts`` has the number of each message's rows, None for one row each; ``errors`` why a message, by its place,
    has none. ``names`` has the user and the id of each message that has one, None if none has. ``traced`` says that a
    message may name a trace: few do, and the others are not to be looked through. ``sifted`` are, by their places, the
    messages whose wrong rows are refused alone, with what is left of them.
    """

    messages: Sequence[InsertMessage]
    rows: Sequence[Row]
    counts: Sequence[int] | None = None
    errors: Mapping[int, KalamError] = msgspec.field(default_factory=dict)
    names: Sequence[MessageName | None] | None = None
    traced: bool = False
    sifted: Mapping[int, Sifted] = msgspec.field(default_factory=dict)

    @classmethod
    def of(
        cls,
        messages: Sequence[InsertMessage],
        decoded: Sequence[Sequence[Row] | Sifted | KalamError],
        names: Sequence[MessageName | None] | None = None,
        traced: bool = False,
    ) -> Batch:
        """From the rows or the error of each message."""
        sifted = {place: rows for place, rows in enumerate(decoded) if isinstance(rows, Sifted)}
        if sifted:
            decoded = [rows.rows if isinstance(rows, Sifted) else rows for rows in decoded]
        errors = {place: rows for place, rows in enumerate(decoded) if isinstance(rows, KalamError)}
        kept = [() if isinstance(rows, KalamError) else rows for rows in decoded]
        counts = [len(rows) for rows in kept]  # type: ignore[arg-type]  # no Sifted is left
        together = _together(kept)  # type: ignore[arg-type]
        return cls(messages, together, counts, errors, names, traced, sifted)

    def each(self) -> Iterator[tuple[InsertMessage, Sequence[Row] | KalamError]]:
        """Every message with its rows or its error."""
        start = 0
        for place, message in enumerate(self.messages):
            end = start + (1 if self.counts is None else self.counts[place])
            yield message, self.errors.get(place) or self.rows[start:end]
            start = end

    @property
    def ids(self) -> list[str | None] | None:
        """An id for each row of a message that has one, the same whenever the message is sent again."""
        if self.names is None:
            return None
        ids: list[str | None] = []
        for name, (_, rows) in zip(self.names, self.each(), strict=True):
            if not isinstance(rows, KalamError):
                ids += [None if name is None else f"{'.'.join(name)}.{number}" for number in range(len(rows))]
        return ids

    @property
    def spans(self) -> list[str]:
        """The traces of those messages that name one."""
        return list(filter(None, map(_TRACE, self.messages))) if self.traced else []

    @property
    def traces(self) -> list[str | None] | None:
        """The trace of each row; None if no message names one."""
        if not self.traced:
            return None
        each = (message.trace for message, rows in self.each() if not isinstance(rows, KalamError) for _ in rows)
        return list(each)

    def answers(self, accepted: Answer) -> list[Answer]:
        """The errors where they belong, and the same for every message that has none."""
        answers: list[Answer] = [accepted] * len(self.messages)
        for place, error in self.errors.items():
            answers[place] = error
        return answers

    def told(self, answers: list[Answer]) -> list[Answer]:
        """The answers, with the rows that were refused alone."""
        for place, sifted in self.sifted.items():
            answer = answers[place]
            if isinstance(answer, bytes):
                answers[place] = with_refused(answer, sifted.told())
        return answers


def _together(parts: Sequence[Sequence[Row]]) -> Sequence[Row]:
    """The rows of all parts, as columns where they are."""
    columns = [part for part in parts if isinstance(part, ColumnRows)]
    if columns and sum(map(len, columns)) == sum(map(len, parts)):
        return joined(columns)
    return list(chain.from_iterable(parts))


class Tally:
    """What was stored of a batch by now, for whoever counts it: so many rows, and whose rows were refused alone."""

    def __init__(self) -> None:
        self.rows = 0
        self.refused: list[tuple[str, Sequence[RefusedRow]]] = []

    def note(self, rows: int, refused: Iterable[tuple[str, Sequence[RefusedRow]]]) -> None:
        """Rows were stored, and the others of their messages refused."""
        self.rows += rows
        self.refused += refused


def answer_json(rows: int, seq: int) -> bytes:
    """The answer to an insert that is stored."""
    return b'{"rows":%d,"seq":%d}' % (rows, seq)


def lone_answers(first_seq: int, count: int) -> list[Answer]:
    """The answers to so many inserts of one row each, which were stored one after another."""
    return [b'{"rows":1,"seq":%d}' % seq for seq in range(first_seq, first_seq + count)]


NO_ROWS = b'{"rows":0}'
