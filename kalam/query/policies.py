"""Policies at work: which rows of a table somebody may see and write.

What they come to for somebody is a ``Predicate`` over the table's columns, kept until the book changes. Where a row's
own values decide, they are compared here; the rest is judged by DataFusion in a process of its own, as the WHERE of
live queries is, so that a policy means the same at every door.

Law: a policy is asked before anything else of a statement is, and what is told of its own failure names no value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog

from kalam.access.conditions import Restriction, check_condition, keys_of, read_as, using, written
from kalam.access.model import Command
from kalam.access.rights import Rights
from kalam.errors import Internal, InvalidValue, KalamError, PermissionDenied, Timeout
from kalam.query.judge import Judge, JudgeProcess
from kalam.query.predicate import Predicate
from kalam.rows.subject_key import key_token
from kalam.rows.types import Row
from kalam.schema import Table
from kalam.threads import Purpose, in_thread

JUDGED_TOGETHER_MAX = 10_000
"""So many rows are judged at a time, which a condition has a bounded time for."""
Name = tuple[object, ...]
log = structlog.get_logger(__name__)


class Policies:
    """Asks the policies of tables; ``user`` is on whose rows a statement works."""

    def __init__(self, rights: Rights, process: JudgeProcess) -> None:
        self.rights, self._process = rights, process
        self._generation = -1
        self._known: dict[Name, Predicate | None] = {}
        self._judges: dict[tuple[int, int], Judge] = {}

    def bind(self, table: Table) -> bool:
        """Whether policies are asked over a table's rows."""
        return table.row_security and self.rights.on

    def seen(self, user: str, table: Table, *commands: Command) -> Predicate | None:
        """What rows meet that the user may see for each of these commands (SELECT); None where every row does."""
        if not self.bind(table):
            return None
        asked = commands or (Command.SELECT,)
        name = (user, table.table_id, table.schema_version, asked)
        return self._predicate(name, table, lambda: using(self.rights, user, table, asked))

    def written(self, user: str, table: Table, command: Command, *, reads: bool) -> Predicate | None:
        """What rows meet that the user may write by a command; a statement that ``reads`` has to see them too."""
        if not self.bind(table):
            return None
        name = (user, table.table_id, table.schema_version, command, reads)
        return self._predicate(name, table, lambda: written(self.rights, user, table, command, reads=reads))

    def keys(self, user: str, table: Table) -> tuple[str, ...] | None:
        """The tokens of the SUBJECT_KEY to which the policies hold a user; None where they do not come to such."""
        found = keys_of(self.rights, user, table)
        if found is None:
            return None
        try:
            return tuple(sorted(map(key_token, found)))
        except InvalidValue:  # of a text that no row's key can be, which is no subject either
            return None

    def holding(self, table: Table, predicate: Predicate, rows: Sequence[Row]) -> list[bool]:
        """Which of the rows meet a predicate; raises InvalidValue where that cannot be said. Blocking if it asks."""
        if not predicate.asks:
            return [predicate.may_match(row) for row in rows]
        holds = [False] * len(rows)
        for start in range(0, len(rows), JUDGED_TOGETHER_MAX):
            part = rows[start : start + JUDGED_TOGETHER_MAX]
            verdict = self._judge(table).judge([predicate], part)[predicate]
            if isinstance(verdict, KalamError):
                raise untold(table, verdict)
            for place in verdict:
                holds[start + place] = True
        return holds

    async def held(self, table: Table, predicate: Predicate | None, rows: Sequence[Row]) -> list[bool]:
        """The same, beside the event loop where it takes long."""
        if predicate is None:
            return [True] * len(rows)
        if not predicate.asks:
            return self.holding(table, predicate, rows)
        if not rows:
            return []
        self._process.open()
        return await in_thread(Purpose.POLICIES, self.holding, table, predicate, rows)

    async def require(self, table: Table, predicate: Predicate | None, rows: Sequence[Row]) -> None:
        """Raise PermissionDenied unless all rows that are to be written meet a predicate."""
        if predicate is not None and not all(await self.held(table, predicate, rows)):
            raise denied(table)

    async def check(self, table: Table, text: str, user: str) -> frozenset[str]:
        """The columns that a policy's expression names, which ``user`` is about to make.

        Raises SyntaxFault, Unsupported, ColumnNotFound, and InvalidValue for one that is not BOOLEAN.
        """
        columns = check_condition(table, text)
        found = read_as(table, text, user, self.rights.roles(user))
        self._process.open()
        try:
            await in_thread(Purpose.POLICIES, self._judge(table).check, _predicate(table, found))
        except KalamError as exc:
            if "non-boolean" in exc.detail:
                raise InvalidValue("the expression of a policy is a condition: BOOLEAN") from exc
            raise
        return columns

    def _predicate(self, name: Name, table: Table, make: Callable[[], Restriction | None]) -> Predicate | None:
        if self._generation != self.rights.book.generation:
            self._known.clear()
            self._judges.clear()
            self._generation = self.rights.book.generation
        if name not in self._known:
            found = make()
            self._known[name] = None if found is None else _predicate(table, found)
        return self._known[name]

    def _judge(self, table: Table) -> Judge:
        name = (table.table_id, table.schema_version)
        if name not in self._judges:
            self._judges[name] = Judge(self._process, table.name, table.columns)
        return self._judges[name]


def denied(table: Table) -> PermissionDenied:
    """What is said of a row that may not be written."""
    return PermissionDenied(f"a row is not what the policies of table {table.name} let you write")


def untold(table: Table, error: KalamError) -> KalamError:
    """What is said where a policy fails on a row, which may be another's: nothing of the row."""
    if isinstance(error, (Internal, Timeout)):
        return error
    log.warning("a policy cannot be asked of a row", table=str(table.name), code=error.code)
    return InvalidValue(f"a policy of table {table.name} fails on one of the rows", hint="its owner has to mend it")


def _predicate(table: Table, found: Restriction) -> Predicate:
    places = {column.name: place for place, column in enumerate(table.columns)}
    return Predicate(found.text, (), found.condition, places)
