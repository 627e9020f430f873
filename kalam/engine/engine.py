"""The engine as doors and the server see it: callers, numbers, health, and its end."""

from __future__ import annotations

from msgspec.structs import replace

from kalam.access.model import Narrowed
from kalam.engine.caller import Caller
from kalam.engine.departures import Departure
from kalam.engine.dispatch import Dispatch
from kalam.engine.health import Check, Health
from kalam.engine.session import Session
from kalam.engine.sql_counts import SERVER_DOOR
from kalam.engine.stats import Stats
from kalam.errors import KalamError
from kalam.names import TableName
from kalam.query.pool import Pool
from kalam.query.running import RunningQuery
from kalam.schema import Table
from kalam.storage.log.temporary import TemporarySpace


class Engine:
    """Carries out what callers ask."""

    def __init__(self, dispatch: Dispatch, stats: Stats, health: Health, pool: Pool) -> None:
        self._dispatch, self._stats, self._health, self._pool = dispatch, stats, health, pool

    def caller(
        self,
        session: Session,
        door: str,
        *,
        request_id: str | None = None,
        departure: Departure | None = None,
        asked: list[RunningQuery] | None = None,
    ) -> Caller:
        """A request at a door (``Caller`` says what the others are)."""
        if session.door != door:
            session = replace(session, door=door)
        return Caller(self._dispatch, session, door, request_id, departure, asked)

    @property
    def standing(self) -> tuple[int, int]:
        """Another value whenever a definition has changed, or what somebody may: until then both stand as they are."""
        return self._dispatch.standing

    def open_temporary(self, user: str) -> TemporarySpace:
        """What a session's temporary tables are held by; whoever opens it closes it with the session."""
        catalogue = self._dispatch.catalogue
        return catalogue.temporary.open(user, self._dispatch.settings.temporary_bytes_max, catalogue.namespaces)

    def ends(self, asked: RunningQuery, narrowed: Narrowed) -> bool:
        """Whether what was asked, and may be answered already, ends with what is taken."""
        return self._dispatch.ends(asked, narrowed)

    def known(self, name: TableName) -> Table | None:
        """The table of a name, whoever asks: a door sorts by it what comes in and where refusals go."""
        return self._dispatch.catalogue.tables.get(name)

    def in_one_order(self, name: TableName) -> bool:
        """Whether the rows of all users into a table are to be handed in together, for their order counts."""
        return self._dispatch.inserts.in_one_order(name)

    def note_rejected(self, error: KalamError) -> None:
        """Count a message or body that was refused whole: only the door knows what it told."""
        self._stats.inserts.rejected[error.code] += 1

    def stats(self) -> Stats:
        """What the server counts."""
        return self._stats

    async def health(self) -> list[Check]:
        """What has to be well for the server to be ready."""
        return await self._health.checks()

    async def warm_up(self) -> None:
        """Have ready what the first query needs."""
        await self._pool.warm()

    async def flush_all(self) -> None:
        """Bring every row to Parquet; raises what the statement raises."""
        await self.caller(Session(), SERVER_DOOR).execute("FLUSH ALL TABLES")

    def close_live_queries(self) -> None:
        """End every live query for the server's end, and take nothing new."""
        self._dispatch.live.registry.close_all("shutdown")
