"""The open live queries of a server: opened, counted, found, ended. Everything happens in the event loop's thread."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import structlog

from kalam.errors import (
    CursorExpired,
    InvalidOption,
    KalamError,
    NotFound,
    TooBusy,
    TooLarge,
    Unsupported,
)
from kalam.live.bounds import LiveBounds
from kalam.live.bucket_follower import AnyForeignFollower, follower_of_others
from kalam.live.commits import take_commits
from kalam.live.follower import Follower
from kalam.live.handover import hand_over, resume
from kalam.live.held import Held, Holding, Keeping, Nameless, check_resumed, unchanged
from kalam.live.live_query import LiveQuery, Sink
from kalam.live.live_request import LiveRequest
from kalam.live.reads import as_seen
from kalam.live.shape import Shape
from kalam.live.shaping import no_column, shape_of
from kalam.live.snapshots import Snapshot, Snapshots
from kalam.live.tally import Tally
from kalam.live.watch import Watch, WatchName
from kalam.query.judge import Judge, JudgeProcess
from kalam.query.policies import Policies
from kalam.query.predicate import Predicate
from kalam.rows.codec import Codecs
from kalam.rows.ids import UuidV7s
from kalam.rows.versions import StoredVersions
from kalam.schema import UPDATED, Table
from kalam.sql.queries.compared import columns_of, with_own_forms
from kalam.sql.queries.pins import Condition
from kalam.sql.queries.readers import read_shape
from kalam.sql.text.statements import QueryText
from kalam.storage.log.catalogue import Catalogue
from kalam.storage.log.writes import Announcement
from kalam.tables.ephemeral_rows import is_nameless
from kalam.tables.foreign.tables import ForeignTables
from kalam.tables.kinds import Rows, Tables
from kalam.tables.ports import Acked
from kalam.tables.replay import Replay
from kalam.tables.streams import StreamTables
from kalam.tables.versions import version_columns
from kalam.threads import Purpose, in_thread

WHERE_CHARACTERS_MAX = 1 << 18
READ_HERE_CHARACTERS = 4_096
"""A longer WHERE is read in a thread."""
log = structlog.get_logger(__name__)
Follow = Callable[[Watch], None]
"""Sees to it that the changes of a table come to its watch, where commits do not tell of them."""


class Registry:
    """Keeps live queries. ``announce``, ``announce_all`` and ``announce_events`` are told of every change, in order."""

    def __init__(
        self,
        bounds: LiveBounds,
        catalogue: Catalogue,
        codecs: Codecs,
        tables: Tables[Rows],
        streams: StreamTables,
        foreign: ForeignTables,
        snapshots: Snapshots,
        judging: JudgeProcess,
        policies: Policies,
    ) -> None:
        self.holding: Holding | None = None
        self.keeping: Keeping | None = None
        self._bounds, self._catalogue, self._codecs = bounds, catalogue, codecs
        self._tables, self._streams, self._foreign, self._snapshots = tables, streams, foreign, snapshots
        self._following = Tables[Follow](
            _nothing, self._follow_stream, self._follow_foreign, _nothing, _nothing, _nothing
        )
        self._queries: dict[str, LiveQuery] = {}
        self._watches: dict[WatchName, Watch] = {}
        streams.add_listener(self)
        self._followers: dict[WatchName, Follower | AnyForeignFollower] = {}
        self._users: Counter[str] = Counter()
        self._opening = 0
        self._ids = UuidV7s()
        self._judging, self._policies, self._closing = judging, policies, False
        self._starts: dict[str, Any] = {}
        self.tally = Tally()

    def queries(self) -> list[LiveQuery]:
        """The open live queries, oldest first."""
        return list(self._queries.values())

    def interested(self, table: Table) -> bool:
        """Whether a live query is open on a STREAM table; asked for each batch of inserts."""
        return (table.table_id, "") in self._watches

    def open_on(self, table: Table) -> list[LiveQuery]:
        """The live queries that are open on a table."""
        return [
            query
            for query in self._queries.values()
            if query.table.table_id == table.table_id or query.read_of(table) is not None
        ]

    # Opening.

    async def open(self, request: LiveRequest, sink: Sink) -> LiveQuery:
        """Register a live query and read what it begins with; ``begin`` lets its messages flow.

        Raises TooBusy at the limits, CursorExpired, ColumnNotFound, Unsupported and what SELECT raises.
        """
        self._check_room(request.user)
        self._opening += 1
        self._users[request.user] += 1
        query: LiveQuery | None = None
        held: Held | None = None
        nameless: Nameless | None = None
        try:
            if request.query is not None and self.keeping is not None:
                held = nameless = await self.keeping.keep(request)
            elif self.holding is not None:
                held = await self.holding.hold(self._catalogue.table(request.table))
            query = await self._register(request, sink, held, nameless)
            self._starts[query.id] = await self._beginning(query, request)
        except BaseException:
            if query is None or query.id in self._queries:  # else it was killed meanwhile, and is not counted any more
                self._users[request.user] -= 1
            if query is not None:
                self._forget(query)
            elif held is not None:
                held.release()
            raise
        finally:
            self._opening -= 1
        self.tally.opened += 1
        return query

    def _check_room(self, user: str) -> None:
        if self._closing:
            raise TooBusy("the server is shutting down")
        if len(self._queries) + self._opening >= self._bounds.live_queries_max:
            raise TooBusy(f"{self._bounds.live_queries_max} live queries are open (setting live_queries_max)")
        if self._users[user] >= self._bounds.live_queries_per_user_max:
            raise TooBusy(
                f"user {user} has {self._users[user]} live queries open (setting live_queries_per_user_max)",
                hint="close some, or use one with an IN",
            )

    async def _register(
        self, request: LiveRequest, sink: Sink, held: Held | None, nameless: Nameless | None
    ) -> LiveQuery:
        if sum(begin is not None for begin in (request.last_rows, request.from_seq, request.from_time)) > 1:
            raise InvalidOption("a live query has one of last_rows, from_seq and from_time")
        while True:
            kept = None if nameless is None else unchanged(nameless, self._catalogue)
            table = kept or self._catalogue.table(request.table)
            if request.events_only and not table.is_stream:
                raise Unsupported(
                    f"replay is for STREAM tables; {table.name} is none", hint="a live query with from_seq resumes it"
                )
            if table.is_ephemeral and held is None:
                raise TooBusy(f"table {table.name} is another one by now; ask again")
            check_resumed(request, table, held, nameless)
            asked = request.for_keys(table) if nameless is None else request.for_all(table)
            watch = self._watch(table, request.user)
            predicate, shape = await self._prepared(watch, asked)
            current = (
                self._catalogue.by_id.get(table.table_id) if nameless is None else unchanged(nameless, self._catalogue)
            )
            if current is not None and watch.follows(current) and self._watches.get(watch.name) is watch:
                table = current  # whose options may be others than before
                break  # else the table was dropped or altered meanwhile
            self._drop_idle(watch)
        query = LiveQuery(
            self._ids.take(1)[0],
            request.user,
            table,
            request.sql,
            request.options(),
            predicate,
            shape,
            sink,
            created_at=datetime.now(UTC),
            queue_bytes_max=self._bounds.live_queue_bytes_max,
            held_bytes_max=self._bounds.live_held_bytes_max,
            rights_of=request.rights_of,
            held=held,
            nameless=nameless,
        )
        watch.add(query)
        self._queries[query.id] = query
        return query

    async def _prepared(self, watch: Watch, request: LiveRequest) -> tuple[Predicate, Shape]:
        """Read the request against the watch, which stays while this waits, and wait until it gets every change."""
        watch.opening += 1
        try:
            predicate = await self._predicate(watch, request)
            shape = shape_of(watch, request, self._bounds.row_bytes_max)
            follower = self._followers.get(watch.name)
            if follower is not None:
                await follower.wait_started()
        except BaseException:
            watch.opening -= 1
            self._drop_idle(watch)
            raise
        watch.opening -= 1
        return predicate, shape

    def _watch(self, table: Table, user: str) -> Watch:
        owner = table.owner(user)
        watch = self._watches.get((table.table_id, owner))
        if watch is not None and watch.follows(table):
            return watch
        if watch is not None:
            self.close_table(table, "the columns of the table have changed")
            self._discard(watch)
        watch = self._watches[table.table_id, owner] = Watch(
            table,
            owner,
            version_columns(table),
            StoredVersions(table.columns, self._catalogue.history(table)),
            self._fail,
        )
        self._following.of(table)(watch)
        return watch

    def _follow_stream(self, watch: Watch) -> None:
        codec, held_bytes_max = self._codecs.of(watch.table), self._bounds.live_held_bytes_max
        self._followers[watch.name] = Follower(watch, codec, self._streams, held_bytes_max)

    def _follow_foreign(self, watch: Watch) -> None:
        self._followers[watch.name] = follower_of_others(watch, self._foreign, self.close_table)

    async def _predicate(self, watch: Watch, request: LiveRequest) -> Predicate:
        places = {column.name: place for place, column in enumerate(watch.columns)}
        where, parameters = self._in_own_forms(watch, request)
        text = where.text if where else None
        condition = await self._condition(watch, where, parameters) if where else None
        unknown = condition.columns - places.keys() if condition else frozenset()
        if unknown:
            raise no_column(watch, min(unknown))
        guarded = watch.table if is_nameless(watch.table) else self._catalogue.newest(watch.table)
        guard = self._policies.seen(request.user, guarded)
        predicate = watch.predicate(Predicate(text, parameters, condition, places, guard))
        if predicate.needs_judge:
            self._judging.open()
            await in_thread(Purpose.LIVE, self._check, watch, predicate)
        return predicate

    def _in_own_forms(self, watch: Watch, request: LiveRequest) -> tuple[QueryText | None, tuple[object, ...]]:
        """The WHERE with what it compares as an insert would have stored it, and its parameters."""
        if request.where is None:
            return None, ()
        if len(request.where.text) > WHERE_CHARACTERS_MAX:
            raise TooLarge(f"the WHERE of a live query has at most {WHERE_CHARACTERS_MAX:,} characters")
        own = {watch.table.name.table: columns_of(watch.table)}
        where, values = with_own_forms(request.where, (), request.parameters, own)
        return where, tuple(values[: where.parameters])

    async def _condition(self, watch: Watch, where: QueryText, parameters: tuple[object, ...]) -> Condition:
        if len(where.text) <= READ_HERE_CHARACTERS:
            return read_shape(where, watch.table, parameters)
        return await in_thread(Purpose.TEXTS, read_shape, where, watch.table, parameters)

    def _check(self, watch: Watch, predicate: Predicate) -> None:
        if watch.judge is None:
            watch.judge = Judge(self._judging, watch.table.name, watch.columns)
        if predicate.asks:
            watch.judge.check(predicate)

    async def _beginning(self, query: LiveQuery, request: LiveRequest) -> Snapshot | Replay:
        table, rows = query.table, self._tables.of(query.table)
        if request.last_per_key:
            return await rows.last_of_keys(table, self._base_seq(query))
        from_seq = request.from_seq
        if request.from_time is not None:
            from_seq = await rows.seq_before(table, request.from_time)
        if from_seq is None:
            columns = [column.name for column in query.shape.columns]
            base_seq = self._base_seq(query)  # before the snapshot: what comes meanwhile may not be in it
            snapshot = await self._snapshots.snapshot(table, query.user, columns, query.predicate, request.last_rows)
            return Snapshot(snapshot.rows, max(snapshot.seq, base_seq))
        replay = await rows.changes_since(table, query.user, from_seq, self._base_seq(query))
        condition = query.predicate.condition
        if not replay.knows_times and condition is not None and UPDATED in condition.columns:
            raise CursorExpired(f"a WHERE that names {UPDATED} needs times that the change feed does not keep")
        return replay

    def _base_seq(self, query: LiveQuery) -> int:
        follower = self._followers.get((query.table.table_id, query.table.owner(query.user)))
        return follower.seq if follower else 0

    def begin(self, query: LiveQuery) -> None:
        """Let the messages of a live query flow."""
        start = self._starts.pop(query.id, None)
        if start is None or query.closed is not None:
            return
        query.opener = asyncio.create_task(self._run_opening(query, start), name=f"live opening {query.id}")

    async def _run_opening(self, query: LiveQuery, start: Snapshot | Replay) -> None:
        try:
            if isinstance(start, Snapshot):
                await hand_over(query, start)
                return
            await resume(query, self._watches[query.table.table_id, query.table.owner(query.user)], start)
        except KalamError as exc:
            self._fail(query, f"{exc.code}: {exc.told}")
        except Exception:
            log.exception("a live query could not begin", live_query=query.id)
            self._fail(query, "internal: the server failed to read what it begins with; its log has the reason")
        finally:
            query.opener = None

    # Changes.

    def announce(self, announcement: Announcement) -> None:
        """Take in a chunk that was committed."""
        self.announce_all([announcement])

    def announce_all(self, announcements: Sequence[Announcement]) -> None:
        """Take in what was committed together, in order."""
        take_commits(self._watches, announcements)

    def announce_events(self, table: Table, payloads: Sequence[bytes], acked: Acked) -> None:
        """Take in events that the broker has stored."""
        follower = self._followers.get((table.table_id, ""))
        if isinstance(follower, Follower):
            follower.announce(payloads, acked)

    # Ending.

    def close(self, query_id: str, user: str | None, reason: str) -> None:
        """End a live query; where ``user`` is given only if it is this user's, or opened by them. Raises NotFound."""
        query = self._queries.get(query_id)
        if query is None or user not in (None, query.user, query.rights_of):
            raise NotFound(f"there is no live query {query_id[:80]!r}", hint="SHOW LIVE QUERIES lists them")
        self._fail(query, reason)

    def close_table(self, table: Table, reason: str) -> None:
        """End every live query on a table."""
        for query in self.open_on(table):
            self._fail(query, reason)

    def altered(self, table: Table) -> None:
        """End the live queries on a table whose columns are not what they were when they were opened."""
        for query in self.open_on(table):
            read = query.read_of(table)
            if read is not None and as_seen(read.table) != as_seen(table):
                self._fail(query, "the columns of the table have changed")

    def close_all(self, reason: str) -> None:
        """End everything, and take nothing new."""
        self._closing = True
        for query in self.queries():
            self._fail(query, reason)

    def _fail(self, query: LiveQuery, reason: str) -> None:
        if self._queries.get(query.id) is query:
            self._users[query.user] -= 1
        self._forget(query)
        query.close(reason)

    def _forget(self, query: LiveQuery) -> None:
        self.tally.note_end(self._queries.pop(query.id, None))
        if query.held is not None:
            query.held.release()
        self._starts.pop(query.id, None)
        self._users += Counter()  # drops what fell to zero
        watch = self._watches.get((query.table.table_id, query.table.owner(query.user)))
        if watch is not None:
            watch.remove(query)
            self._drop_idle(watch)

    def _drop_idle(self, watch: Watch) -> None:
        if not watch.queries and not watch.opening:
            self._discard(watch)

    def _discard(self, watch: Watch) -> None:
        if self._watches.get(watch.name) is not watch:
            return
        del self._watches[watch.name]
        watch.close()
        follower = self._followers.pop(watch.name, None)
        if follower is not None:
            follower.stop()


def _nothing(watch: Watch) -> None:
    """Each commit is announced."""
