"""The life of one view: filled, then kept up, from one position to the next.

Law: rows, positions and what the method remembers are one transaction. Whatever fails between two of them is thrown
away with all that memory holds of the view, and done again from the last position.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import structlog
from msgspec.structs import replace

from kalam.backoff import Backoff
from kalam.errors import KalamError
from kalam.names import TableName
from kalam.query.queries import Queries
from kalam.schema import Key, Table
from kalam.storage.log.crash import crash_point
from kalam.storage.log.view_positions import Position, ViewState
from kalam.table_options import How
from kalam.tables.kinds import Rows, Source, Tables
from kalam.tables.ports import NoticePort
from kalam.views.followed import Followed, RefillNeeded, Taken
from kalam.views.ledger import Ledger
from kalam.views.method import LeftOut, Method, Outcome, SelectFailed, Stopped
from kalam.views.retention import Retention
from kalam.views.row_wise import duplicate
from kalam.views.sight import Sight
from kalam.views.standing import Kept, Standing
from kalam.views.writer import Progress, Written, keys_where

TAKEN_ROWS = 20_000
"""About so many changes of a source are held in memory at once, or twice that."""
GATHERED_PIECES_MAX = 8
"""So many times ``TAKEN_ROWS`` become one refresh where so many wait: what a group has become is written once."""
LOOK_S = 0.25
"""How often a source is asked that tells nothing by itself."""
RETRY_PAUSE_S = (0.2, 5.0)
NOTICES_MAX = 100
"""So many rows that were left out of one refresh are told one by one."""
DELETED_TOGETHER = 5_000
log = structlog.get_logger(__name__)


def next_multiple(after: float, unit: float) -> float:
    """The first multiple of a unit behind a number."""
    return (math.floor(after / unit) + 1) * unit


class Keeper:
    """Keeps one view up while ``run`` runs."""

    def __init__(
        self,
        view: Table,
        sources: Sequence[Followed],
        method: Method,
        writer: Written,
        queries: Queries,
        tables: Tables[Rows],
        ledger: Ledger,
        notices: NoticePort,
        filled: Callable[[bool], None],
        hurry_bytes: int,
        hides_rows: Callable[[], bool],
        sight: Sight,
    ) -> None:
        self.view, self.sources, self._method, self._writer = view, sources, method, writer
        self._queries, self._tables, self._ledger, self._notices = queries, tables, ledger, notices
        self._tell_filled, self._hides_rows, self.sight = filled, hides_rows, sight
        self.kept = Kept()
        self.state = ViewState()
        self.positions: dict[int, Position] = {}
        self.begun, self.settled = asyncio.Event(), asyncio.Event()
        self._wake = asyncio.Event()
        self._refreshed_s = -math.inf
        self._catches_up, self._anew = False, False
        self._retention = Retention(view)
        self._hurry, self._hurry_bytes, self._came_bytes = asyncio.Event(), hurry_bytes, 0

    def announce(self, table: Table, byte_count: int) -> None:
        """A chunk of a source was committed."""
        for source in self.sources:
            if source.table.table_id == table.table_id:
                source.came(byte_count)
        self.wake(byte_count)

    def wake(self, byte_count: int = 0) -> None:
        """Something came, of this size as far as that is known; so much that it is not to wait makes it not wait."""
        self._wake.set()
        if self.kept.behind_since_s is None:
            self.kept.behind_since_s = time.monotonic()
        self._came_bytes += byte_count
        if self._came_bytes > self._hurry_bytes:
            self._hurry.set()

    async def run(self) -> None:
        """Fill and follow until cancelled, or until somebody has to decide."""
        backoff = Backoff(*RETRY_PAUSE_S)
        try:
            while True:
                try:
                    await self._follow(backoff)
                except RefillNeeded as exc:
                    log.info("a view is filled anew", view=str(self.view.name), reason=str(exc))
                    self._anew = True
                except Stopped as exc:
                    await self._stop(str(exc), exc.kind)
                    return
                except SelectFailed as exc:
                    self._fail(exc.error)
                    await self._pause(backoff.failed())
                except KalamError as exc:
                    self._stand(Standing.WAITING, f"{exc.code}: {exc.told}", exc)
                    await asyncio.sleep(backoff.failed())
                    self._refreshed_s = -math.inf
                except Exception as exc:
                    log.exception("a view failed", view=str(self.view.name))
                    self._stand(Standing.FAILED, f"internal: {type(exc).__name__}; the server's log has the reason")
                    await asyncio.sleep(backoff.failed())
        finally:
            for source in self.sources:
                source.close()
            await self._method.close()

    def _stand(self, standing: Standing, reason: str = "", error: KalamError | None = None) -> None:
        self.kept.standing, self.kept.reason, self.kept.error = standing, reason, error
        if standing is Standing.RUNNING:
            self.begun.set()
        if standing is Standing.FILLING:
            self.settled.clear()
        else:
            self.settled.set()
        self._tell_filled(self.state.filled and standing is not Standing.FILLING)

    def _fail(self, error: KalamError) -> None:
        """The SELECT fails as a whole; the rows stay what they are, and it is tried again."""
        reason = f"{error.code}: {error.told}"
        if self.kept.reason != reason:
            self._notice("failed", {"reason": f"{error.code}: {error.kind}"})
        self._stand(Standing.FAILED, reason, error)

    async def _pause(self, pause_s: float) -> None:
        """Wait before a SELECT is tried again, less where its sources have changed."""
        await asyncio.sleep(min(pause_s, RETRY_PAUSE_S[0]))
        with suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._wake.wait()

    async def _follow(self, backoff: Backoff) -> None:
        self.state, self.positions = await self._ledger.load()
        if self.state.stopped:
            self._stand(Standing.STOPPED, self.state.stopped)
            raise Stopped(self.state.stopped)
        if self._anew or not self.state.filled:
            await self._fill()
        await self._method.open()
        self._catches_up = any(source.table.table_id not in self.positions for source in self.sources)
        begun = [await source.begin(self.positions.get(source.table.table_id)) for source in self.sources]
        if changed := [position for position in begun if self.positions.get(position.source_id) != position]:
            await self._write(Outcome(), Progress(changed, self.state))
        if not self._catches_up and self.kept.standing is Standing.FILLING:  # else it has to show that it goes on
            self._stand(Standing.RUNNING)
        self._wake.set()
        while True:
            await self._wait_due()
            if self._anew:
                raise RefillNeeded("it was asked for")
            await self._refresh()
            backoff.reset()

    async def _wait_due(self) -> None:
        """Wait until something came, and until ``refresh`` lets the view take it in."""
        refresh_s = self.view.view_options.refresh_ms / 1_000
        pauses = [max(refresh_s, LOOK_S)] if any(source.looks for source in self.sources) else []
        pauses += [] if self._retention.pause_s is None else [self._retention.pause_s]
        with suppress(TimeoutError):
            async with asyncio.timeout(min(pauses, default=None)):
                await self._wake.wait()
        pause_s = self._due_s(refresh_s) - time.monotonic()
        if pause_s > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._hurry.wait()
        self._wake.clear()
        self._hurry.clear()
        self._came_bytes = 0

    def _due_s(self, refresh_s: float) -> float:
        """When the view may take in more."""
        if self.view.view_options.how is How.RERUN or not refresh_s or math.isinf(self._refreshed_s):
            return self._refreshed_s + refresh_s
        return next_multiple(self._refreshed_s, refresh_s)  # when other views of its source do, which read with it

    async def _refresh(self) -> None:
        """Take in what came, and let go of what has had its time."""
        self._refreshed_s = time.monotonic()
        if self._retention.is_due():
            rows, condition = await self._writer.rows(), self._retention.condition()
            gone, _ = await keys_where(self._queries, self.view, rows, condition)
            await self._delete(gone)
        more = False
        taken: list[Taken] = []
        for source in self.sources:
            found = await self._take(source)
            if found is not None:
                taken.append(found)
                more |= found.more
        if not taken:
            self.kept.behind_since_s, self._catches_up = None, False
            self._recovered()
            return
        if self.kept.behind_since_s is None:
            self.kept.behind_since_s = self._refreshed_s
        changes = [await self.sight.seen(each.changes) for each in taken if each.changes is not None]
        outcome = await self._method.change(changes) if changes else Outcome()
        outcome, late = self._retention.kept(outcome)
        positions = [each.position for each in taken]
        if outcome.reached:
            positions = self._reached(positions, outcome.reached)
        counts = not self._catches_up  # which is a part of the fill
        refreshes = self.state.refreshes + (counts and bool(changes))
        state = replace(self.state, refreshes=refreshes, late=self.state.late + late * counts)
        await self._write(outcome, Progress(positions, state))
        self._catches_up &= more
        self._recovered()
        self.kept.filled_rows += len(outcome.upserts)
        self.kept.cost_s += time.monotonic() - self._refreshed_s
        if more:
            self._refreshed_s = -math.inf  # what waits is no new refresh
            self._wake.set()
        else:
            self.kept.behind_since_s = time.monotonic() if self._wake.is_set() else None

    async def _take(self, source: Followed) -> Taken | None:
        """What came of a source. Where that is very much, the method has all but the last piece of it already."""
        found = await source.take(self.positions[source.table.table_id], TAKEN_ROWS)
        gather = self._method.gather
        if gather is None:
            return found
        for _ in range(GATHERED_PIECES_MAX - 1):
            if found is None or found.changes is None or not found.more:
                break
            following = await source.take(found.position, TAKEN_ROWS)
            if following is None or following.changes is None:
                break
            await gather(await self.sight.seen(found.changes))
            found = following
        return found

    def _reached(self, positions: Sequence[Position], reached: Mapping[int, int]) -> list[Position]:
        """Positions of copies, further than what was taken."""
        known = self.positions | {position.source_id: position for position in positions}
        return [
            replace(position, seq=max(position.seq, reached.get(source_id, 0))) for source_id, position in known.items()
        ]

    def _recovered(self) -> None:
        """The view goes on, and has what there was when it began."""
        if self.kept.standing is not Standing.RUNNING and not self._catches_up and not self._anew:
            self._stand(Standing.RUNNING)

    async def _write(self, outcome: Outcome, progress: Progress) -> None:
        self.state, left_out = await self._writer.write(outcome, progress)
        for position in progress.positions:
            self._tell_moved(self.positions.get(position.source_id), position)
            self.positions[position.source_id] = position
        self._tell_left_out(left_out)

    def _tell_moved(self, before: Position | None, after: Position) -> None:
        if before is None:
            return
        if after.missed > before.missed:
            self._notice("missed", {"missed": after.missed - before.missed, "total": after.missed, "seq": after.seq})
        if after.generation > before.generation:
            self._notice("recreated", {"generation": after.generation, "seq": after.seq})

    def _tell_left_out(self, left_out: Sequence[LeftOut]) -> None:
        hides = self._hides_rows()  # policies of the view: a key is a value
        for each in left_out[:NOTICES_MAX]:
            self._notice("failed", {"reason": each.reason} if hides else {"row": each.key, "reason": each.reason})
        if len(left_out) > NOTICES_MAX:
            self._notice("failed", {"rows": len(left_out) - NOTICES_MAX, "reason": "and others"})

    def _notice(self, what: str, body: dict[str, object]) -> None:
        self._notices.notice(f"view.{what}.{self.view.name}", {"view": str(self.view.name), **body})

    async def _stop(self, reason: str, kind: str) -> None:
        """Stop until somebody decides; the log is kept for it no more."""
        if self.state.stopped != reason:
            self.state = replace(self.state, stopped=reason)
            await self._ledger.stop(self.state)
            self._notice("stopped", {"reason": kind})
            log.warning("a view has stopped", view=str(self.view.name), reason=reason)
        self._stand(Standing.STOPPED, reason)

    # Filling.

    def may_begin_anew(self, view: Table) -> bool:
        """Whether it keeps the view as it is now, and can fill it where it is; else another keeper has to."""
        is_plain = self.view.view_options.how is not How.RERUN and all(source.is_copy for source in self.sources)
        return is_plain and self.kept.standing is Standing.RUNNING and self.view == view

    def begin_anew(self) -> None:
        """Have the view filled from a snapshot."""
        self._anew = True
        self._stand(Standing.FILLING)
        self._wake.set()
        self._hurry.set()

    async def _fill(self) -> None:
        """Bring the view to what its query says over a snapshot, from which it is followed.

        What is made of it last goes with the positions; most views are made at once.
        """
        self.state = replace(self.state, filled=False, failed=0)
        self._stand(Standing.FILLING)
        self.kept.filled_rows = 0
        crash_point("view.fill")
        positions, snapshot = await self._snapshot()
        former = not await self._writer.is_empty()
        seen: set[Key] = set()
        last = Outcome()
        async for made in self._method.fill(snapshot):
            if last.upserts or last.left_out or last.remember is not None:
                await self._write(last, Progress((), self.state))
                self.kept.filled_rows += len(last.upserts)
            last = self._part(made, seen, tracks=former or bool(self.view.view_options.key))
            crash_point("view.filling")
        if former:
            await self._delete(await self._writer.others(seen))
        await self._write(last, Progress(positions, replace(self.state, filled=True)))
        self.kept.filled_rows += len(last.upserts)
        crash_point("view.filled")

    def _part(self, made: Outcome, seen: set[Key], *, tracks: bool) -> Outcome:
        """A part of what the view is filled with, as it is written; its keys are ``seen`` where that counts."""
        outcome, _ = self._retention.kept(made)
        if tracks:
            keys = [self.view.key_of(row) for row in outcome.upserts]
            if outcome.fresh and not seen.isdisjoint(keys):
                raise duplicate(
                    self.view, next(row for key, row in zip(keys, outcome.upserts, strict=True) if key in seen)
                )
            seen.update(keys)
        return replace(outcome, fresh=frozenset())

    async def _snapshot(self) -> tuple[list[Position], Mapping[TableName, Source]]:
        """One moment of every source that is a copy, and where each goes on; the logs keep what follows."""
        copies = [source.table for source in self.sources if source.is_copy]
        holds = {source.table.table_id: source.holds for source in self.sources}
        held = [
            Position(source_id=table.table_id, seq=await self._last_seq(table), holds=holds[table.table_id])
            for table in copies
        ]
        await self._ledger.begin(held, self.state)
        self.positions, self._anew = {}, False
        tables = {table.name: table for table in copies}
        for table in copies:
            await self._tables.of(table).wait_readable(table)
        views = await self._tables.stored.sources(tables, self.sight.user, with_key=False) if tables else {}
        seqs = {name: getattr(view, "last_seq", 0) for name, view in views.items()}
        positions = [replace(position, seq=seqs[table.name]) for position, table in zip(held, copies, strict=True)]
        others: dict[TableName, Source] = {}
        for source in self.sources:
            taken = await source.snapshot()
            if taken is not None:
                positions.append(taken[0])
                others[source.table.name] = taken[1]
        return positions, {**views, **others}

    async def _last_seq(self, table: Table) -> int:
        return await self._tables.stored.last_seq(table, self.sight.user)

    async def _delete(self, gone: Sequence[Key]) -> None:
        for start in range(0, len(gone), DELETED_TOGETHER):
            await self._write(Outcome(deletes=gone[start : start + DELETED_TOGETHER]), Progress((), self.state))
