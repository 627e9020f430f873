"""What a view sees of its sources: whose copies of USER tables, and which rows policies leave.

Law: a policy is asked of each version by itself, before anything of the SELECT is. A row that comes into sight is one
that was not there before, and one that leaves it is gone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kalam.query.policies import Policies
from kalam.query.predicate import Predicate
from kalam.rows.types import Row
from kalam.schema import Table
from kalam.tables.versions import ChangeBatch
from kalam.threads import Purpose, in_thread
from kalam.views.method import Changes


class Sight:
    """What ``user`` sees, of tables with policies (by their ids) what these ``guards`` leave."""

    def __init__(self, policies: Policies | None = None, user: str = "", guards: Mapping[int, Predicate] = {}) -> None:
        self._policies, self.user, self._guards = policies, user, guards

    def guard(self, source: Table) -> Predicate | None:
        """The policies over a source; None where every row is seen."""
        return self._guards.get(source.table_id)

    async def seen(self, changes: Changes) -> Changes:
        """The changes as they are seen; raises InvalidValue where that cannot be said."""
        if self.guard(changes.source) is None:
            return changes  # which other views may have, too
        whole = await in_thread(Purpose.LIVE, lambda: changes.batch)
        batch = await self.seen_batch(changes.source, whole)
        return Changes(changes.source, batch, changes.generation, retracts=changes.retracts)

    async def seen_batch(self, source: Table, batch: ChangeBatch) -> ChangeBatch:
        """The same of a batch."""
        guard = self.guard(source)
        if guard is None:
            return batch
        return ChangeBatch(
            batch.seqs, await self._left(source, guard, batch.olds), await self._left(source, guard, batch.news)
        )

    async def _left(self, source: Table, guard: Predicate, versions: Sequence[Row | None]) -> list[Row | None]:
        """The versions, those that are not seen as None."""
        assert self._policies is not None
        width = len(source.columns)  # behind them stand those of the system
        rows = [version[:width] for version in versions if version is not None]
        holds = iter(await self._policies.held(source, guard, rows))
        return [version if version is not None and next(holds) else None for version in versions]


EVERYTHING = Sight()
"""That of a view with a name: its owner's right is to the whole of its sources."""
