"""The live queries on one copy (a table, or one user's rows of it), and the way of its changes to them.

Changes that arrive together are judged together. A small batch that needs no more than the index is worked off where
it arrives, before the insert is answered; everything else in a thread, one batch after another, so that the order of
the changes stays.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from weakref import WeakValueDictionary

import msgspec
import structlog

from kalam.errors import Internal, KalamError
from kalam.live.live_query import LiveQuery, Progress
from kalam.live.predicate_index import PredicateIndex
from kalam.live.reads import as_seen
from kalam.live.shape import Shape
from kalam.live.transitions import Pick, transitions
from kalam.query.judge import Judge
from kalam.query.policies import untold
from kalam.query.predicate import Predicate
from kalam.rows.types import Row
from kalam.rows.versions import StoredVersions
from kalam.schema import STREAM_KEY, Column, Table
from kalam.tables.ports import StoredEvents
from kalam.tables.versions import ChangeBatch
from kalam.threads import Purpose, in_thread

INLINE_ROWS_MAX = 256
"""More rows are worked off in a thread."""
BATCH_ROWS_MAX = 20_000

log = structlog.get_logger(__name__)
Audience = dict[Shape, tuple[LiveQuery, ...]]
Step = Callable[[], None]
PredicateName = tuple[str | None, str, str | None]
WatchName = tuple[int, str]
"""A table's id, and whose copy it is ('' for one that everybody shares)."""


class Share(msgspec.Struct, frozen=True):
    """What a batch gave for some live queries: numbered changes, which all of them hold as they are here."""

    queries: tuple[LiveQuery, ...]
    changes: Sequence[tuple[int, bytes]]
    byte_count: int


Outcome = tuple[list[Share], list[tuple[Predicate, KalamError]]]


class Watch:
    """The open live queries of one copy at one schema version.

    ``opening`` counts those that are not in it yet; ``keyed`` are those that name the key of a STREAM table.
    """

    def __init__(
        self,
        table: Table,
        owner: str,
        columns: Sequence[Column],
        reader: StoredVersions,
        fail: Callable[[LiveQuery, str], None],
    ) -> None:
        self.table, self.owner, self.columns, self.reader = table, owner, tuple(columns), reader
        self.name: WatchName = (table.table_id, owner)
        self.opening = 0
        self.progress = Progress()
        self.index = PredicateIndex()
        self.judge: Judge | None = None
        self._fail = fail
        self.queries: dict[str, LiveQuery] = {}
        self.keyed: dict[str, LiveQuery] = {}
        self._predicates: dict[PredicateName, Predicate] = {}
        self._audiences: dict[Predicate, Audience] = {}
        self._shapes: WeakValueDictionary[tuple[object, ...], Shape] = WeakValueDictionary()
        self._waiting: deque[tuple[int, Callable[[], ChangeBatch]] | Step] = deque()
        self._task: asyncio.Task[None] | None = None

    def follows(self, table: Table) -> bool:
        """Whether the table still has the name, and the columns, that the live queries were opened with."""
        return self.table.name == table.name and as_seen(self.table) == as_seen(table)

    def predicate(self, made: Predicate) -> Predicate:
        """The predicate of a WHERE, shared by all live queries that have it under the same policies."""
        return self._predicates.get(_name(made), made)

    def shape(self, key: tuple[object, ...], make: Callable[[], Shape]) -> Shape:
        """The shape of a projection, shared likewise."""
        shape = self._shapes.get(key)
        if shape is None:
            shape = self._shapes[key] = make()
        return shape

    def add(self, query: LiveQuery) -> None:
        """From now on the query gets what matches."""
        query.progress = self.progress
        self.queries[query.id] = query
        if STREAM_KEY in query.column_names:
            self.keyed[query.id] = query
        # Another one with the same WHERE may have come in while this one's was checked.
        predicate = query.predicate = self._predicates.setdefault(_name(query.predicate), query.predicate)
        audience = self._audiences.get(predicate, {})
        if not audience:
            self.index.add(predicate)
        self._audiences[predicate] = {**audience, query.shape: (*audience.get(query.shape, ()), query)}

    def remove(self, query: LiveQuery) -> None:
        """It gets nothing any more."""
        if self.queries.pop(query.id, None) is None:
            return
        self.keyed.pop(query.id, None)
        audience = dict(self._audiences[query.predicate])
        queries = audience[query.shape]
        place = queries.index(query)
        if left := queries[:place] + queries[place + 1 :]:
            audience[query.shape] = left
        else:
            del audience[query.shape]
        if audience:
            self._audiences[query.predicate] = audience
            return
        del self._audiences[query.predicate]
        del self._predicates[_name(query.predicate)]
        self.index.remove(query.predicate)

    def close(self) -> None:
        """Stop working."""
        if self._task is not None:
            self._task.cancel()
        self._waiting.clear()

    def take(self, make: Callable[[], ChangeBatch], row_count: int) -> None:
        """Take in changes; ``make`` decodes them."""
        if self._task is None and row_count <= INLINE_ROWS_MAX and not self.index.judged:
            try:
                self._deliver(make())
            except Exception:  # the insert that brought it is stored all the same
                log.exception("live queries failed", table=str(self.table.name))
                self._give_up()
            return
        self._waiting.append((row_count, make))
        if self._task is None:
            self._task = asyncio.create_task(self._work(), name=f"live {self.table.name} {self.owner}")

    def take_events(self, events: StoredEvents, make: Callable[[], ChangeBatch]) -> None:
        """Take in events of a STREAM table; ``make`` decodes them."""
        self.take(make, len(events.payloads))

    def then(self, step: Step) -> None:
        """Do something once all changes that were taken in before have been delivered."""
        if self._task is None:
            step()
        else:
            self._waiting.append(step)

    def lose(self, seq: int) -> None:
        """What lies before ``seq``, and was not taken in, cannot be told; a step for ``then``."""
        self.progress.seq = max(self.progress.seq, seq)
        for query in list(self.queries.values()):
            query.lose(seq)

    def lose_keyed(self) -> None:
        """The keys of events that were taken in are not known; a step for ``then``."""
        for query in list(self.keyed.values()):
            query.resync()

    def renumber(self, seq: int) -> None:
        """The changes behind ``seq`` are numbered anew; a step for ``then``."""
        self.progress.seq = seq
        for query in list(self.queries.values()):
            query.renumber(seq)

    async def _work(self) -> None:
        try:
            while self._waiting:
                if isinstance(self._waiting[0], tuple):
                    batch, outcome = await in_thread(Purpose.LIVE, self._prepare, self._next())
                    self._apply(batch, outcome)
                else:
                    self._waiting.popleft()()  # type: ignore[operator] # which is no tuple
        except Exception:
            log.exception("live queries failed", table=str(self.table.name))
            self._give_up()
        finally:
            self._task = None

    def _give_up(self) -> None:
        """Changes could not be prepared: they are lost with all that waits, or what comes next would overtake it."""
        waiting, self._waiting = self._waiting, deque()
        for step in waiting:
            if not isinstance(step, tuple):
                step()
        for query in list(self.queries.values()):
            query.resync()

    def _next(self) -> list[Callable[[], ChangeBatch]]:
        """What is prepared together: all that waits before the next step, up to a bound."""
        makers: list[Callable[[], ChangeBatch]] = []
        rows = 0
        while self._waiting and isinstance(self._waiting[0], tuple) and rows < BATCH_ROWS_MAX:
            count, make = self._waiting.popleft()  # type: ignore[misc] # a tuple, as was looked
            makers.append(make)
            rows += count
        return makers

    def _prepare(self, makers: Sequence[Callable[[], ChangeBatch]]) -> tuple[ChangeBatch, Outcome]:
        batch = makers[0]()
        for make in makers[1:]:
            more = make()
            batch.add(more.seqs, more.olds, more.news)
        return batch, self.match(batch)

    def _deliver(self, batch: ChangeBatch) -> None:
        self._apply(batch, self.match(batch))

    def _apply(self, batch: ChangeBatch, outcome: Outcome) -> None:
        self.progress.seq = max(self.progress.seq, batch.last_seq)
        shares, failures = outcome
        for share in shares:
            for query in share.queries:
                query.push(share.changes, share.byte_count)
        for predicate, error in failures:
            for queries in self._audiences.get(predicate, {}).values():
                for query in queries:
                    self._fail(query, f"the WHERE failed: {error.told}")

    def match(self, batch: ChangeBatch) -> Outcome:
        """Who gets what of a batch."""
        failures: list[tuple[Predicate, KalamError]] = []
        found: list[tuple[list[Pick], Shape, tuple[LiveQuery, ...]]] = []
        shown: dict[Shape, dict[Pick, None]] = {}
        for predicate, verdict in self._verdicts(batch, None).items():
            if isinstance(verdict, KalamError):
                failures.append((predicate, verdict))
                continue
            for shape, queries in self._audiences.get(predicate, {}).items() if verdict else ():
                found.append((verdict, shape, queries))
                shown.setdefault(shape, {}).update(dict.fromkeys(verdict))
        texts = {shape: shape.changes(batch, list(picks)) for shape, picks in shown.items()}
        shares = [_share(batch, picks, queries, texts[shape]) for picks, shape, queries in found]
        return [share for share in shares if share is not None], failures

    def picks(self, batch: ChangeBatch, predicate: Predicate) -> list[Pick]:
        """What a batch does to the result of one predicate; raises why that cannot be said."""
        verdict = self._verdicts(batch, predicate).get(predicate, [])
        if isinstance(verdict, KalamError):
            raise verdict
        return verdict

    def _verdicts(self, batch: ChangeBatch, only: Predicate | None) -> dict[Predicate, list[Pick] | KalamError]:
        has_olds = any(old is not None for old in batch.olds)
        if only is None:
            new_hits = self.index.candidates(batch.news)
            old_hits = self.index.candidates(batch.olds) if has_olds else {}
            unpinned: Sequence[Predicate] = self.index.unpinned
        else:
            new_hits = {only: [i for i, row in enumerate(batch.news) if row is not None and only.may_match(row)]}
            old_hits = {only: [i for i, row in enumerate(batch.olds) if row is not None and only.may_match(row)]}
            unpinned = ()
        verdicts: dict[Predicate, list[Pick] | KalamError] = {}
        for predicate in (*unpinned, *new_hits, *(hit for hit in old_hits if hit not in new_hits)):
            if not predicate.needs_judge:
                news = new_hits.get(predicate, ()) if predicate.pins else _present(batch.news)
                olds = old_hits.get(predicate, ()) if predicate.pins else _present(batch.olds)
                verdicts[predicate] = transitions(batch, set(news), set(olds), sees_deleted=predicate.sees_deleted)
        judged = [p for p in (*unpinned, *new_hits, *old_hits) if p.needs_judge and p not in verdicts]
        by_guard: dict[Predicate | None, list[Predicate]] = {}
        for predicate in dict.fromkeys(judged):
            by_guard.setdefault(predicate.guard, []).append(predicate)
        for guard, predicates in by_guard.items():
            verdicts |= self._judged(batch, guard, predicates, new_hits, old_hits)
        return verdicts

    def _judged(
        self,
        batch: ChangeBatch,
        guard: Predicate | None,
        predicates: Sequence[Predicate],
        new_hits: dict[Predicate, list[int]],
        old_hits: dict[Predicate, list[int]],
    ) -> dict[Predicate, list[Pick] | KalamError]:
        """Judge those whose pins do not decide, over the versions that one of them may concern.

        Of what the policies hide nothing else is asked: they are judged first, and the conditions over what is left.
        """
        everything = any(not predicate.pins for predicate in predicates)
        asked = _Asked(
            batch,
            _wanted(batch.news, None if everything else _of(predicates, new_hits)),
            _wanted(batch.olds, None if everything else _of(predicates, old_hits)),
        )
        try:
            if guard is not None:
                asked = self._left(asked, guard)
            return self._judged_over(asked, predicates)
        except KalamError as exc:
            return dict.fromkeys(predicates, exc.as_value())
        except Exception as exc:
            log.exception("live queries cannot be judged", table=str(self.table.name))
            error = Internal(f"an internal error ({type(exc).__name__})")
            return dict.fromkeys(predicates, error)

    def _left(self, asked: _Asked, guard: Predicate) -> _Asked:
        """What the policies leave; raises what there is to tell where they fail."""
        asked = asked.only([place for place, version in enumerate(asked.versions) if guard.may_match(version)])
        if not guard.asks or not asked.versions:
            return asked
        assert self.judge is not None
        verdict = self.judge.judge([guard], asked.versions)[guard]
        if isinstance(verdict, KalamError):
            raise untold(self.table, verdict)
        return asked.only(verdict)

    def _judged_over(self, asked: _Asked, predicates: Sequence[Predicate]) -> dict[Predicate, list[Pick] | KalamError]:
        found: dict[Predicate, list[int] | KalamError] = {}
        asking = [predicate for predicate in predicates if predicate.asks]
        if asking and asked.versions:
            assert self.judge is not None
            found |= self.judge.judge(asking, asked.versions)
        verdicts: dict[Predicate, list[Pick] | KalamError] = {}
        for predicate in predicates:
            places = found.get(predicate, [])
            if not predicate.asks:
                places = [place for place, version in enumerate(asked.versions) if predicate.may_match(version)]
            verdicts[predicate] = places if isinstance(places, KalamError) else asked.picks(places, predicate)
        return verdicts


class _Asked(msgspec.Struct, frozen=True):
    """The versions of a batch that are judged: the new ones at these places, and then the former ones."""

    batch: ChangeBatch
    news: Sequence[int]
    olds: Sequence[int]

    @property
    def versions(self) -> list[Row]:
        """The versions, in order."""
        found = (*(self.batch.news[i] for i in self.news), *(self.batch.olds[i] for i in self.olds))
        return [row for row in found if row is not None]

    def only(self, places: Sequence[int]) -> _Asked:
        """Those of the versions at these places, which are in order."""
        first = len(self.news)
        return _Asked(
            self.batch,
            [self.news[place] for place in places if place < first],
            [self.olds[place - first] for place in places if place >= first],
        )

    def picks(self, places: Sequence[int], predicate: Predicate) -> list[Pick]:
        """What the changes do to a result that has the versions at these places."""
        left = self.only(places)
        return transitions(self.batch, set(left.news), set(left.olds), sees_deleted=predicate.sees_deleted)


def _name(predicate: Predicate) -> PredicateName:
    guard = predicate.guard
    return (predicate.text, repr(predicate.parameters), None if guard is None else guard.text)


def _of(predicates: Sequence[Predicate], hits: dict[Predicate, list[int]]) -> dict[Predicate, list[int]]:
    return {predicate: hits[predicate] for predicate in predicates if predicate in hits}


def _present(versions: Sequence[Row | None]) -> list[int]:
    return [place for place, version in enumerate(versions) if version is not None]


def _wanted(versions: Sequence[Row | None], hits: dict[Predicate, list[int]] | None) -> list[int]:
    if hits is None:
        return _present(versions)
    return sorted({place for predicate, places in hits.items() if predicate.needs_judge for place in places})


def _share(
    batch: ChangeBatch, picks: Sequence[Pick], queries: tuple[LiveQuery, ...], texts: Mapping[Pick, bytes | None]
) -> Share | None:
    shown = [(batch.seqs[pick[1]], text) for pick in picks if (text := texts[pick]) is not None]
    if not shown:
        return None
    return Share(queries, shown, sum(len(text) for _, text in shown))
