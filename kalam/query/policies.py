"""Policies at work: which rows of a table somebody may see and write.

What they come to for somebody is a ``Predicate`` over the table's columns, kept until the book changes. Where a row's
own values decide, they are compared here; the rest is judged by DataFusion in a process of its own, as the WHERE of
live queries is, so that a policy means the same at every door.
"""

from __future__ import annotations

from kalam.access.conditions import check_condition
from kalam.access.rights import Rights
from kalam.errors import InvalidValue, KalamError
from kalam.query.judge import Judge, JudgeProcess
from kalam.query.predicate import Predicate
from kalam.schema import Table
from kalam.sql.queries.compared import columns_of, with_own_forms
from kalam.sql.queries.readers import read_policy, read_shape
from kalam.sql.text.replaced import with_session
from kalam.threads import Purpose, in_thread


class Policies:
    """Asks the policies of tables. Two processes would be needed by two of them."""

    def __init__(self, rights: Rights, process: JudgeProcess) -> None:
        self.rights, self._process = rights, process

    async def check(self, table: Table, text: str, user: str) -> frozenset[str]:
        """The columns that a policy's expression names, which ``user`` is about to make.

        Raises SyntaxFault, Unsupported, ColumnNotFound, and InvalidValue for one that is not BOOLEAN.
        """
        columns = check_condition(table, text)
        roles = self.rights.roles(user)
        query, _ = with_own_forms(
            with_session(read_policy(text, table).query, user, roles), (), (), {table.name.table: columns_of(table)}
        )
        predicate = Predicate(query.text, (), read_shape(query, table), _places(table))
        self._process.open()
        try:
            await in_thread(Purpose.LIVE, Judge(self._process, table.name, table.columns).check, predicate)
        except KalamError as exc:
            if "non-boolean" in exc.detail:
                raise InvalidValue("the expression of a policy is a condition: BOOLEAN") from exc
            raise
        return columns


def _places(table: Table) -> dict[str, int]:
    return {column.name: place for place, column in enumerate(table.columns)}
