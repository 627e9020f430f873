"""What the server counts and holds, in numbers, for those who only read: metrics, the console's overview."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from kalam.engine.inserts import Inserts
from kalam.engine.sql_counts import SqlCounts
from kalam.lake.lake import Lake
from kalam.live import Registry
from kalam.query.running import RunningQueries
from kalam.schema import STORED_KINDS, TableKind
from kalam.storage.log.catalogue import Catalogue
from kalam.storage.log.copies import Copy
from kalam.storage.log.copy_store import Backlog, CopyStore
from kalam.storage.log.data_dir import DATABASE
from kalam.storage.log.database import Database
from kalam.storage.log.troubles import Troubles
from kalam.storage.segments.unclaimed import Unclaimed
from kalam.storage.work.flush import Flusher
from kalam.storage.work.flush_schedule import FlushSchedule
from kalam.storage.work.jobs import Jobs
from kalam.tables.outbox import Outbox
from kalam.tables.stream_counters import StreamCounters
from kalam.tables.stream_ends import StreamEnds


class Hot(msgspec.Struct, frozen=True, kw_only=True):
    """The rows of SHARED and USER tables that are not flushed yet; of the oldest its microseconds since 1970."""

    row_count: int
    byte_count: int
    oldest_us: int | None = None


class Disk(msgspec.Struct, frozen=True, kw_only=True):
    """What the database takes of the disk, its log apart, and how much of it is free."""

    database_bytes: int
    log_bytes: int
    free_bytes: int


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of a server that count for themselves, to be read and not to be acted on."""

    data_dir: Path
    catalogue: Catalogue
    database: Database
    store: CopyStore
    inserts: Inserts
    sql: SqlCounts
    running: RunningQueries
    live: Registry
    outbox: Outbox
    events: StreamCounters
    ends: StreamEnds
    jobs: Jobs
    flusher: Flusher
    schedule: FlushSchedule
    troubles: Troubles
    unclaimed: Unclaimed
    lake: Lake
    broker_connected: Callable[[], bool]

    def hot(self) -> Hot:
        """How much is hot now."""
        return _hot([*list(self.store.loaded.values()), *list(self.store.backlogs.values())])

    def hot_by_kind(self) -> Mapping[TableKind, Hot]:
        """The same for SHARED and for USER tables."""
        parts: dict[TableKind, list[Copy | Backlog]] = {kind: [] for kind in STORED_KINDS}
        known = self.catalogue.by_id
        every: list[tuple[tuple[int, str], Copy | Backlog]] = [
            *list(self.store.loaded.items()),
            *list(self.store.backlogs.items()),
        ]
        for (table_id, _), part in every:
            if part.row_count and table_id in known:
                parts[known[table_id].kind].append(part)
        return {kind: _hot(found) for kind, found in parts.items()}

    def disk(self) -> Disk:
        """How it stands with the disk; raises OSError where it cannot be asked."""
        return Disk(
            database_bytes=_size(self.data_dir / DATABASE),
            log_bytes=_size(self.data_dir / f"{DATABASE}-wal"),
            free_bytes=shutil.disk_usage(self.data_dir).free,
        )

    def changes_by_table(self) -> Mapping[int, int]:
        """How many changes or events each table has taken, by its id; it only grows, from 0 for a new one."""
        taken = dict(self.outbox.changed_rows)
        for table_id, counts in self.events.items():
            taken[table_id] = counts.published + counts.discarded
        return taken


def _hot(parts: Sequence[Copy | Backlog]) -> Hot:
    return Hot(
        row_count=sum(part.row_count for part in parts),
        byte_count=sum(part.byte_count for part in parts),
        oldest_us=min((part.oldest_us for part in parts if part.oldest_us is not None), default=None),
    )


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0
