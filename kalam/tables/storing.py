"""A batch of messages for a SHARED or USER table, stored together: each a statement with an outcome of its own.

Where a message asked for its wrong rows to be refused alone, the writer stores nothing of it while one of its keys is
taken, and tells which ones are; it is tried again without those rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from operator import attrgetter
from typing import assert_never

from kalam.errors import KalamError
from kalam.rows.judged import judged
from kalam.rows.types import Row
from kalam.schema import Table
from kalam.storage.log.inserts import AllInserted, Inserted, InsertStatement, LoneRows, Outcome, Repeated, Taken
from kalam.tables.insert_batch import NO_ROWS, Answer, Batch, InsertMessage, Tally, answer_json, lone_answers
from kalam.tables.sifted import Sifted, with_refused
from kalam.tables.stored import StoredTables

_MSG_ID = attrgetter("msg_id")


class Storing:
    """One batch of a user on its way."""

    def __init__(self, stored: StoredTables, table: Table, user: str, batch: Batch, tally: Tally) -> None:
        self._stored, self._table, self._user, self._batch, self._tally = stored, table, user, batch, tally
        self._answers: list[Answer] = [NO_ROWS] * len(batch.messages)
        self._waiting: list[tuple[int, InsertStatement]] = []
        self._repeated: set[int] = set()

    async def run(self) -> list[Answer]:
        """Store what can be; the answer or the error of each message, in order."""
        lone = self._lone()
        if lone is not None:
            return await self._run_lone(lone)
        for place, (message, rows) in enumerate(self._batch.each()):
            self._put(place, rows if isinstance(rows, KalamError) else self._statement(place, message, rows))
        while self._waiting:
            waiting, self._waiting = self._waiting, []
            statements = [statement for _, statement in waiting]
            try:
                outcomes = await self._stored.insert(self._table, self._user, statements, _answer)
            except KalamError as exc:  # which says nothing of what was stored before
                for place, _ in waiting:
                    self._answers[place] = exc.as_value()
                break
            assert not isinstance(outcomes, AllInserted)
            for (place, statement), outcome in zip(waiting, outcomes, strict=True):
                self._settle(place, statement, outcome)
        self._tally.note(0, ((self._user, sifted.refused) for sifted in self._told()))
        return self._answers

    def _lone(self) -> LoneRows | None:
        """All rows, where each is a message by itself that asks for nothing more; then they need no look of their own.

        None where that is not so, or where one of them may be wrong.
        """
        batch = self._batch
        if batch.counts is not None or batch.errors or batch.traced or any(map(_MSG_ID, batch.messages)):
            return None
        return self._stored.lone_rows(self._table, batch.rows)

    async def _run_lone(self, lone: LoneRows) -> list[Answer]:
        count = len(lone.rows)
        try:
            outcomes = await self._stored.insert(self._table, self._user, lone)
        except KalamError as exc:
            return [exc.as_value()] * count
        if isinstance(outcomes, AllInserted):
            self._tally.rows += count
            return lone_answers(outcomes.first_seq, count)
        for place, (statement, outcome) in enumerate(zip(lone.statements(), outcomes, strict=True)):
            self._settle(place, statement, outcome)
        return self._answers

    def _told(self) -> Iterator[Sifted]:
        for place, sifted in self._batch.sifted.items():
            if isinstance(self._answers[place], bytes) and place not in self._repeated:
                yield sifted

    def _put(self, place: int, found: InsertStatement | Answer) -> None:
        if isinstance(found, InsertStatement):
            self._waiting.append((place, found))
        else:
            self._answers[place] = found

    def _settle(self, place: int, statement: InsertStatement, outcome: Outcome) -> None:
        match outcome:
            case Inserted(last_seq):
                self._answers[place] = _answer(statement, last_seq)
                self._tally.rows += len(statement.keys)
            case Repeated(answer):
                self._answers[place] = answer
                self._repeated.add(place)
            case Taken(errors):
                self._batch.sifted[place].drop(errors)
                self._put(place, self._statement(place, self._batch.messages[place], ()))
            case KalamError():
                self._answers[place] = outcome
            case _:
                assert_never(outcome)

    def _statement(self, place: int, message: InsertMessage, rows: Sequence[Row]) -> InsertStatement | Answer:
        """The statement of a message; its answer where it has no rows, or its error."""
        sifted = self._batch.sifted.get(place)
        if sifted is None:
            return judged("message", partial(self._made, message, rows)) if rows else NO_ROWS
        make = partial(self._made, message)
        made = judged("message", partial(make, sifted.rows)) if sifted.rows else None
        if isinstance(made, KalamError):
            sifted.keep(make)
            made = make(sifted.rows) if sifted.rows else None
        if made is None:
            return with_refused(NO_ROWS, sifted.told())
        made.skip, made.told = True, sifted.told()
        return made

    def _made(self, message: InsertMessage, rows: Sequence[Row]) -> InsertStatement:
        return self._stored.statement(self._table, rows, message.msg_id, self._user, message.trace)


def _answer(statement: InsertStatement, last_seq: int) -> bytes:
    answer = answer_json(len(statement.keys), last_seq)
    return with_refused(answer, statement.told) if statement.told else answer
