"""What the server is doing, in numbers that grow or are, for whoever draws them over time."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from kalam.schema import STORED_KINDS, TableKind
from kalam.storage.log.catalogue import Catalogue
from kalam.storage.log.copies import Copy
from kalam.storage.log.copy_store import Backlog, CopyStore
from kalam.storage.log.data_dir import DATABASE
from kalam.tables.outbox import Outbox
from kalam.tables.stream_counters import StreamCounters


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


def hot_rows(store: CopyStore) -> Hot:
    """How much is hot now."""
    return _hot([*list(store.loaded.values()), *list(store.backlogs.values())])


def hot_by_kind(catalogue: Catalogue, store: CopyStore) -> Mapping[TableKind, Hot]:
    """The same for SHARED and for USER tables."""
    parts: dict[TableKind, list[Copy | Backlog]] = {kind: [] for kind in STORED_KINDS}
    known = catalogue.by_id
    every: list[tuple[tuple[int, str], Copy | Backlog]] = [*list(store.loaded.items()), *list(store.backlogs.items())]
    for (table_id, _), part in every:
        if part.row_count and table_id in known:
            parts[known[table_id].kind].append(part)
    return {kind: _hot(found) for kind, found in parts.items()}


def _hot(parts: Sequence[Copy | Backlog]) -> Hot:
    return Hot(
        row_count=sum(part.row_count for part in parts),
        byte_count=sum(part.byte_count for part in parts),
        oldest_us=min((part.oldest_us for part in parts if part.oldest_us is not None), default=None),
    )


def disk(data_dir: Path) -> Disk:
    """How it stands with the disk; raises OSError where it cannot be asked."""
    return Disk(
        database_bytes=_size(data_dir / DATABASE),
        log_bytes=_size(data_dir / f"{DATABASE}-wal"),
        free_bytes=shutil.disk_usage(data_dir).free,
    )


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def changes_by_table(outbox: Outbox, counters: StreamCounters) -> Mapping[int, int]:
    """How many changes or events each table has taken, by its id; a number that only grows, from 0 for a new table."""
    taken = dict(outbox.changed_rows)
    for table_id, counts in counters.items():
        taken[table_id] = counts.published + counts.discarded
    return taken
