"""Views without a name: what live queries keep of SELECTs that group, in memory, for as long as one of them is open.

Law: whoever asks the same with the same rights shares one. The same is the text, with its tables in full and
``CURRENT_USER()`` bound; the same rights are the same policies over each table, and over a USER table the same user. So
what is in it everybody who holds it may see, and whoever loses that lets go of it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import Context
from datetime import UTC, datetime
from functools import partial
from itertools import count
from typing import Any, Final

import msgspec
from msgspec.structs import asdict

from kalam.errors import InvalidOption, RequestError, TooBusy, TooLarge, Unsupported
from kalam.live.live_request import LiveRequest
from kalam.live.reads import Read
from kalam.names import TableName
from kalam.query.policies import Policies
from kalam.query.queries import resolve
from kalam.schema import Table, TableDefinition
from kalam.sql import StatementText
from kalam.sql.queries.readers import read_view_query
from kalam.sql.text.cursor import Cursor
from kalam.sql.text.lexer import Kind, fold, read_tokens
from kalam.sql.text.statements import QueryText
from kalam.tables.foreign.tables import ForeignTables
from kalam.views.foreign_source import check_all_kept
from kalam.views.plan import Plan, Planner
from kalam.views.shown import standing_of
from kalam.views.sight import Sight
from kalam.views.standing import Standing
from kalam.views.wakings import Waking, Wakings

_NAMED_KEY: Final = (
    "SELECT DISTINCT has one; or name it: CREATE EPHEMERAL MATERIALIZED VIEW … WITH (key = 'a, b') is followed, too"
)
_KEPT_AS_VIEW: Final = "the groups of a live query are kept as a materialized view is"
Sameness = tuple[object, ...]
End = Callable[[Table, str], None]
"""Ends the live queries on a table, for a reason."""


class NamelessBounds(msgspec.Struct, frozen=True):
    """Bounds, from the settings of these names."""

    live_views_max: int
    live_views_per_user_max: int
    view_groups_max: int


class _Common:
    """What those have in common who ask the same: ``made`` gives its waking, and how its sources are read."""

    def __init__(self, sameness: Sameness, made: asyncio.Task[tuple[Waking, Sequence[Read]]]) -> None:
        self.sameness, self.made = sameness, made
        self.users: Counter[str] = Counter()
        self.waking: Waking | None = None


class NamelessHold:
    """One live query's hold; a Nameless. ``feed_id`` is the number of its changes as a table."""

    def __init__(self, waking: Waking, reads: Sequence[Read], common: _Common, let_go: Callable[[], None]) -> None:
        self.feed_id, self.table, self.reads = waking.rows.feed_id, waking.view, reads
        self._waking, self._common = waking, common
        self._let_go: Callable[[], None] | None = let_go

    def release(self) -> None:
        """Let go of it."""
        let_go, self._let_go = self._let_go, None
        if let_go is not None:
            let_go()

    def standing(self) -> Mapping[str, Any]:
        """How it stands, what it costs, and by how many live queries it is shared."""
        keeper = self._waking.keeper
        told = {"rows": len(self._waking.rows), "live_queries": self._common.users.total()}
        return told if keeper is None else standing_of(keeper) | told


class NamelessViews:
    """All views without a name; a Keeping. ``end`` is called with those whose SELECT fails."""

    def __init__(
        self,
        bounds: NamelessBounds,
        policies: Policies,
        planner: Planner,
        foreign: ForeignTables,
        wakings: Wakings,
        end: End,
    ) -> None:
        self._bounds, self._policies = bounds, policies
        self._planner, self._foreign, self._wakings, self._end = planner, foreign, wakings, end
        self._common: dict[Sameness, _Common] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._numbers = count(1)

    def __len__(self) -> int:
        return len(self._common)

    async def keep(self, request: LiveRequest) -> NamelessHold:
        """Have the rows of a request's SELECT there; the first one who asks has them made."""
        assert request.query is not None
        query = read_view_query(Cursor(StatementText(request.query.text)))
        names = dict.fromkeys(resolve(use.ref, None) for use in query.tables)
        with _said_of_views():
            sources = [self._planner.source(name) for name in names]
        sight = self._sight(request.user, sources)
        guards = [sight.guard(source) for source in sources]
        sameness = (
            _normal(query.text),
            tuple((source.table_id, source.schema_version) for source in sources),
            tuple(None if guard is None else (guard.text, guard.parameters) for guard in guards),
            sight.user,
        )
        common = self._common.get(sameness)
        if common is None or not common.users[request.user]:
            self._check_room(request.user, is_new=common is None)
        if common is None:
            making = self._made(request, query, sight, sameness)
            # Not in the context of whoever asks first: others wait for it, too.
            made = asyncio.create_task(making, name="view of live queries", context=Context())
            common = self._common[sameness] = _Common(sameness, made)
        return await self._held(common, request.user)

    def _sight(self, user: str, sources: Sequence[Table]) -> Sight:
        found = {source.table_id: self._policies.seen(user, source) for source in sources}
        guards = {table_id: guard for table_id, guard in found.items() if guard is not None}
        return Sight(self._policies, user if any(source.per_user for source in sources) else "", guards)

    def _check_room(self, user: str, *, is_new: bool) -> None:
        if is_new and len(self._common) >= self._bounds.live_views_max:
            raise TooBusy(
                f"the groups of {len(self._common)} SELECTs are kept for live queries (setting live_views_max)",
                hint="an EPHEMERAL materialized view is kept once for all who read it",
            )
        own = sum(common.users[user] > 0 for common in self._common.values())
        if own >= self._bounds.live_views_per_user_max:
            raise TooBusy(
                f"the groups of {own} SELECTs are kept for user {user} (setting live_views_per_user_max)",
                hint="close some live queries",
            )

    def _groups_of(self, users: Iterable[str], but: _Common | None = None) -> Counter[str]:
        """How many groups are kept for each of these users, in all that they hold, or all but one."""
        groups = Counter(dict.fromkeys(users, 0))
        for common in self._common.values():
            if common is but or common.waking is None:
                continue
            own = len(common.waking.rows)
            for user in common.users.keys() & groups.keys():
                groups[user] += own
        return groups

    def _groups_max(self, sameness: Sameness) -> int:
        """How many groups one may have: what is left to that of its users who has the fewest others."""
        common = self._common.get(sameness)
        others = Counter[str]() if common is None else self._groups_of(common.users, common)
        return self._bounds.view_groups_max - min(others.values(), default=0)

    async def _made(
        self, request: LiveRequest, query: QueryText, sight: Sight, sameness: Sameness
    ) -> tuple[Waking, Sequence[Read]]:
        with _said_of_views():
            plan = await self._planner.plan(query, None, {}, request.user, ephemeral=True, sighted=True)
        await check_all_kept(plan.sources, self._foreign)
        view = _table(plan, -next(self._numbers), request.user)
        common = self._common[sameness]
        common.waking = self._wakings.wake(view, sight, self._stood, partial(self._groups_max, sameness))
        return common.waking, _reads(plan, sight)

    def _stood(self, waking: Waking) -> None:
        """One whose SELECT fails, or that would be too large, tells nothing any more: its live queries end."""
        kept = None if waking.keeper is None else waking.keeper.kept
        if kept is None or not waking.rows.begun:
            return
        if kept.standing in (Standing.STOPPED, Standing.FAILED) or isinstance(kept.error, (RequestError, TooLarge)):
            self._end(waking.view, kept.reason)

    # Who holds which.

    async def _held(self, common: _Common, user: str) -> NamelessHold:
        common.users[user] += 1
        try:
            waking, reads = await asyncio.shield(common.made)
            await self._filled(waking)
            if self._groups_of([user])[user] > self._bounds.view_groups_max:
                raise TooBusy(
                    f"more than {self._bounds.view_groups_max:,} groups would be kept for user {user} "
                    "(setting view_groups_max)",
                    hint="close some live queries",
                )
        except BaseException:
            self._let_go(common, user)
            raise
        return NamelessHold(waking, reads, common, partial(self._let_go, common, user))

    async def _filled(self, waking: Waking) -> None:
        try:
            await self._wakings.wait_filled(waking)
        except TooBusy as exc:
            error = None if waking.keeper is None else waking.keeper.kept.error
            if error is None:
                raise
            raise error from exc

    def _let_go(self, common: _Common, user: str) -> None:
        common.users[user] -= 1
        common.users += Counter()  # drops what fell to zero
        if not common.users:
            del self._common[common.sameness]
            ending = asyncio.create_task(self._ended(common), name="end of a view", context=Context())
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)

    async def _ended(self, common: _Common) -> None:
        """The last one has left, maybe before it was made."""
        common.made.cancel()
        [made] = await asyncio.gather(common.made, return_exceptions=True)
        if not isinstance(made, BaseException):
            await self._wakings.end(made[0])


@contextmanager
def _said_of_views() -> Iterator[None]:
    """Within it what is refused in the words of views says why that is said to who opens a live query."""
    try:
        yield
    except InvalidOption as exc:
        raise InvalidOption(exc.detail, hint=_NAMED_KEY) from exc
    except Unsupported as exc:
        raise Unsupported(exc.detail, **({"hint": _KEPT_AS_VIEW} | exc.fields)) from exc


def _normal(text: str) -> str:
    """A text without what makes no difference: blanks, comments, and the case of unquoted words."""
    tokens = read_tokens(StatementText(text))
    return " ".join(fold(token.text) if token.kind is Kind.WORD else token.text for token in tokens)


def _table(plan: Plan, table_id: int, user: str) -> Table:
    """The table that the view is."""
    name = TableName(plan.sources[0].name.namespace, "live")
    definition = TableDefinition.of_view(name, plan.columns, plan.key, plan.options, user)
    return Table(**asdict(definition), table_id=table_id, schema_version=1, created_at=datetime.now(UTC))


def _reads(plan: Plan, sight: Sight) -> list[Read]:
    columns = {source.table_id: frozenset(source.columns) for source in plan.options.reads}
    guards = {source.table_id: sight.guard(source) for source in plan.sources}
    return [
        Read(source, columns[source.table_id], None if guard is None else guard.text)
        for source in plan.sources
        for guard in [guards[source.table_id]]
    ]
