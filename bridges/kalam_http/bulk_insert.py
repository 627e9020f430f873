"""An insert in bulk: its batches, one after another, as rows that are stored or as rows that are only judged.

The law of its failures: batches are stored one after another, so at an error everything before the batch at fault is
stored and nothing from it on; the error says how many rows that are. Rows that are refused alone are no failure: they
are told in the answer by their numbers in the body.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, Protocol

import msgspec

from kalam.engine import Caller, InsertMessage
from kalam.errors import KalamError, TooBusy
from kalam.names import TableName
from kalam.rows.formats.batches import Batch, RowNumbers
from kalam.rows.refusals import moved, without_row
from kalam.rows.taking import PLAIN, Taking
from kalam.schema import Table
from kalam.tables.sifted import ERRORS_TOLD_MAX
from kalam.tables.sifted import RefusedRow as Refused
from kalam.tracing import current_trace
from kalam_http.bodies import RefusedRow, RowsAnswer
from kalam_http.rows_body import BATCH_ROWS

BUSY_PAUSES_S: Final = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
COUNTED: Final = ("rows", "discarded", "updated", "skipped")
_ANSWER: Final = msgspec.json.Decoder(RowsAnswer)


class Bulk(Protocol):
    """An insert in bulk, as far as it is."""

    async def add(self, batch: Batch) -> None:
        """Insert one batch, after the ones before it; raises what is wrong with it."""

    def refuse(self, error: KalamError, payload: bytes) -> None:
        """A row that came into no batch is refused alone."""

    def answer(self) -> RowsAnswer:
        """What the sender reads when all is done."""

    def located(self, error: KalamError) -> KalamError:
        """An error that ends it, which says where in the body it is."""


class Refusals:
    """The rows of a body that were refused alone, of which the first are told."""

    def __init__(self, *, asked: bool) -> None:
        self._asked = asked
        self._count = 0
        self._errors: list[RefusedRow] = []
        self.numbers = RowNumbers()

    def note(self, count: int, errors: Sequence[RefusedRow]) -> None:
        """Add some, of which ``errors`` are the first."""
        self._count += count
        self._errors = sorted([*self._errors, *errors], key=lambda error: error.row)[:ERRORS_TOLD_MAX]

    def told(self) -> dict[str, Any]:
        """The members of the answer."""
        return {"refused": self._count, "errors": self._errors} if self._asked else {}


class Trial:
    """An insert in bulk that is judged and not stored."""

    def __init__(self, caller: Caller, name: TableName, taking: Taking) -> None:
        self._caller, self._name, self._taking = caller, name, taking
        self._refusals = Refusals(asked=taking.skip)
        self._rows = self._read_rows = 0
        self._taken: set[Any] = set()

    async def add(self, batch: Batch) -> None:
        """Judge one batch, as if the ones before it were stored."""
        message = InsertMessage(batch.payload, batch.arrow, taking=self._taking)
        try:
            rows, refused = await self._caller.judge(self._name, message, self._taken)
        except KalamError as exc:
            raise moved(exc, self._read_rows) from exc
        of = self._refusals.numbers.of
        told = [_told(of(self._read_rows + row.row), row.error) for row in refused[:ERRORS_TOLD_MAX]]
        self._refusals.note(len(refused), told)
        self._rows += rows
        self._read_rows += batch.rows

    def refuse(self, error: KalamError, payload: bytes) -> None:
        """Note it."""
        row = error.fields["row"]
        self._refusals.numbers.leave_out(row)
        self._refusals.note(1, [_told(row, error)])

    def answer(self) -> RowsAnswer:
        """What the sender reads when all would be stored."""
        return RowsAnswer(rows=self._rows, **self._refusals.told())

    def located(self, error: KalamError) -> KalamError:
        """The error of a batch, which says where in the body it is."""
        if self._read_rows and "row" not in error.fields:
            error.detail = f"after row {self._read_rows:,} of the body: {error.detail}"
        return error


class BulkInsert:
    """An insert in bulk that is stored."""

    def __init__(self, caller: Caller, table: Table, key: str | None, taking: Taking) -> None:
        self._caller, self._table, self._key, self._taking = caller, table, key, taking
        self._refusals = Refusals(asked=taking.skip)
        self._batches = 0
        self._read_rows = 0
        self._counts: Counter[str] = Counter()
        self._last_seq: int | None = None

    async def add(self, batch: Batch) -> None:
        """Insert one batch, after the ones before it."""
        msg_id = None if self._key is None else f"http:{self._key}:{self._batches}"
        message = InsertMessage(batch.payload, batch.arrow, msg_id, trace=current_trace(), taking=self._taking)
        try:
            answer = _ANSWER.decode(await self._insert(message))
        except KalamError as exc:
            raise moved(exc, self._read_rows) from exc
        of, before = self._refusals.numbers.of, self._read_rows
        errors = [msgspec.structs.replace(error, row=of(before + error.row)) for error in answer.errors or ()]
        self._refusals.note(answer.refused or 0, errors)
        self._batches += 1
        self._read_rows += batch.rows
        for name in COUNTED:
            self._counts[name] += getattr(answer, name) or 0
        self._last_seq = answer.seq if answer.seq is not None else self._last_seq

    def refuse(self, error: KalamError, payload: bytes) -> None:
        """Note it, and have it published."""
        row = error.fields["row"]
        self._refusals.numbers.leave_out(row)
        self._refusals.note(1, [_told(row, error)])
        self._caller.refuse_rows(self._table, [Refused(row, error, payload)])

    async def _insert(self, message: InsertMessage) -> bytes:
        """The answer of the engine, which may be busy for a while with what others send."""
        asking = self._taking is not PLAIN
        for pause in (*BUSY_PAUSES_S, None):
            (answer,) = await self._caller.insert(
                self._table.name, [message], into=self._table, traced=bool(message.trace), asking=asking
            )
            if isinstance(answer, bytes):
                return answer
            if pause is None or not isinstance(answer, TooBusy):
                raise answer
            await asyncio.sleep(pause)
        raise AssertionError("the last try returns or raises")

    def answer(self) -> RowsAnswer:
        """What the sender reads when all is stored."""
        counts, conflict = self._counts, self._taking.conflict
        return RowsAnswer(
            rows=counts["rows"],
            seq=self._last_seq,
            discarded=counts["discarded"],
            updated=counts["updated"] if conflict == "update" else None,
            skipped=counts["skipped"] if conflict == "nothing" else None,
            **self._refusals.told(),
        )

    def located(self, error: KalamError) -> KalamError:
        """The error of a batch, which says where in the body it is and what is stored of the body."""
        if self._read_rows and "row" not in error.fields:
            error.detail = f"after row {self._read_rows:,} of the body: {error.detail}"
        stored, before = error.fields.get("stored", 0), self._counts["rows"]
        error.fields["stored"] = before + stored if isinstance(stored, int) else "unknown"
        if before and "hint" not in error.fields:
            error.fields["hint"] = (
                f"batches of {BATCH_ROWS:,} rows are stored one after another: "
                f"the first {error.fields['stored']} rows are stored, the others are not"
            )
        return error


def _told(row: int, error: KalamError) -> RefusedRow:
    return RefusedRow(row, error.code, without_row(error))
