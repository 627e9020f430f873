"""Messages of rows under policies: what a sender may not write is refused, with its message or alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import TypeVar

from kalam.access.model import Command
from kalam.errors import KalamError
from kalam.query.policies import Policies, denied
from kalam.rows.types import Row
from kalam.schema import Table
from kalam.tables.insert_batch import Batch
from kalam.tables.sifted import Sifted

Stored = TypeVar("Stored")


class RowChecks:
    """Asks the policies for INSERT of the rows of messages."""

    def __init__(self, policies: Policies) -> None:
        self._policies = policies
        self._turns: dict[int, asyncio.Lock] = {}

    def bind(self, table: Table) -> bool:
        """Whether policies are asked over a table's rows."""
        return self._policies.bind(table)

    async def refused(self, table: Table, user: str, rows: Sequence[Row]) -> dict[int, KalamError]:
        """Why rows may not be inserted by a user, by their places."""
        predicate = self._policies.written(user, table, Command.INSERT, reads=False)
        try:
            held = await self._policies.held(table, predicate, rows)
        except KalamError as exc:  # each row is refused for it, where it may be one alone
            return await self._refused_singly(table, user, rows) if len(rows) > 1 else {0: exc.as_value()}
        return {place: denied(table) for place, holds in enumerate(held) if not holds}

    async def _refused_singly(self, table: Table, user: str, rows: Sequence[Row]) -> dict[int, KalamError]:
        """The same where the policies fail on one of the rows: halves are asked until it stands alone."""
        middle = len(rows) // 2
        first = await self.refused(table, user, rows[:middle])
        second = await self.refused(table, user, rows[middle:])
        return first | {middle + place: error for place, error in second.items()}

    async def allowed(self, table: Table, users: Sequence[str], batch: Batch) -> Batch:
        """A batch without what its senders may not write; ``users`` sent the messages, one each."""
        errors: dict[int, KalamError] = {}
        for user, places in _places_of(users, batch).items():
            found = await self.refused(table, user, [batch.rows[place] for place in places])
            errors |= {places[at]: error for at, error in found.items()}
        return _without(errors, batch) if errors else batch

    async def stored(
        self, table: Table, users: Sequence[str], batch: Batch, store: Callable[[Batch], Coroutine[None, None, Stored]]
    ) -> Stored:
        """Store what is allowed of a batch; batches of a table are handed to the store in the order they came in."""
        if not self.bind(table):
            return await store(batch)
        async with self._turns.setdefault(table.table_id, asyncio.Lock()):
            storing = asyncio.ensure_future(store(await self.allowed(table, users, batch)))
            await asyncio.sleep(0)  # it hands the rows over before its first pause
        return await storing


def _places_of(users: Sequence[str], batch: Batch) -> dict[str, list[int]]:
    """The places of the rows that each user sent."""
    found: dict[str, list[int]] = {}
    start = 0
    for place, user in enumerate(users):
        end = start + (1 if batch.counts is None else batch.counts[place])
        found.setdefault(user, []).extend(range(start, end))
        start = end
    return found


def _without(errors: dict[int, KalamError], batch: Batch) -> Batch:
    """A batch without the rows at these places: alone where their message asks for that, else with their message."""
    left: list[Sequence[Row] | Sifted | KalamError] = []
    start = 0
    for place, (_, rows) in enumerate(batch.each()):
        end = start + (1 if batch.counts is None else batch.counts[place])
        wrong = {row - start: errors[row] for row in range(start, end) if row in errors}
        sifted = batch.sifted.get(place)
        if isinstance(rows, KalamError):
            left.append(rows)
        elif sifted is not None:
            sifted.drop(wrong)
            left.append(sifted)
        else:
            left.append(wrong[min(wrong)] if wrong else rows)
        start = end
    return Batch.of(batch.messages, left, batch.names, batch.traced)
