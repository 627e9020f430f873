"""Follows a bucket of others while live queries are open on the table over it: what has changed is told.

The state of the bucket is the one that SELECT sees, so a look of a query tells the live ones, too, and the snapshot of
one has the number of the last change that is in it. Nothing is ever lost to them: what cannot be read as it came is
found by comparing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

import structlog

from kalam.errors import KalamError, TooLarge
from kalam.live.beginning import Beginning
from kalam.live.follower import LOOK_PAUSE_S
from kalam.live.foreign_follower import ForeignFollower
from kalam.live.watch import Watch
from kalam.schema import Table
from kalam.tables.foreign.tables import ForeignTables
from kalam.tables.versions import ChangeBatch

End = Callable[[Table, str], None]
"""Ends the live queries on a table, and says why."""
log = structlog.get_logger(__name__)


class BucketFollower:
    """Brings the changes of one bucket to the watch of its table; one that outgrows its bound ends the live queries."""

    def __init__(self, watch: Watch, tables: ForeignTables, end: End) -> None:
        self._watch, self._bucket, self._end = watch, tables.bucket(watch.table), end
        self._beginning = Beginning()
        self._task = asyncio.create_task(self._run(), name=f"live keys {watch.table.name}")

    async def wait_started(self) -> None:
        """Wait until every change from now on will be brought; raises why the bucket cannot be read."""
        await self._beginning.wait()

    @property
    def seq(self) -> int:
        """The number of the last change that was brought."""
        return self._bucket.number

    def stop(self) -> None:
        """Follow no more."""
        self._task.cancel()
        self._beginning.done()

    async def _run(self) -> None:
        with self._bucket.listening(self._take):
            while True:
                try:
                    await self._bucket.look()
                    self._watch.progress.seq = max(self._watch.progress.seq, self._bucket.number)
                    self._beginning.done()
                except TooLarge as exc:
                    self._beginning.failed(exc)
                    self._end(self._watch.table, f"{exc.code}: {exc.told}")
                except KalamError as exc:
                    log.debug("live keys wait for the bucket", table=str(self._watch.table.name), reason=exc.detail)
                    self._beginning.failed(exc)
                except Exception as exc:
                    log.exception("live keys failed", table=str(self._watch.table.name))
                    self._beginning.failed(exc)
                await asyncio.sleep(LOOK_PAUSE_S)

    def _take(self, batch: ChangeBatch) -> None:
        self._watch.take(partial(_same, batch), len(batch))


AnyForeignFollower = ForeignFollower | BucketFollower


def follower_of_others(watch: Watch, tables: ForeignTables, end: End) -> AnyForeignFollower:
    """What follows the stream or bucket that a table is over."""
    return BucketFollower(watch, tables, end) if watch.table.is_bucket else ForeignFollower(watch, tables)


def _same(batch: ChangeBatch) -> ChangeBatch:
    """A batch of its own, for the watch joins what follows to it."""
    return ChangeBatch(list(batch.seqs), list(batch.olds), list(batch.news))
