"""What the server is doing, in numbers that grow or are, for whoever draws them over time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from kalam.names import TableName
from kalam.storage.catalogue import Catalogue
from kalam.storage.copies import Copy
from kalam.storage.copy_store import Backlog, CopyStore
from kalam.tables.stream_counters import StreamCounters


@dataclass(frozen=True, slots=True, kw_only=True)
class Hot:
    """The rows of all SHARED and USER tables that are not flushed yet."""

    row_count: int
    byte_count: int


def hot_rows(store: CopyStore) -> Hot:
    """How much is hot now."""
    parts: list[Copy | Backlog] = [*store.loaded.values(), *store.backlogs.values()]
    return Hot(row_count=sum(part.row_count for part in parts), byte_count=sum(part.byte_count for part in parts))


def changes_by_table(catalogue: Catalogue, store: CopyStore, counters: StreamCounters) -> Mapping[TableName, int]:
    """How many changes or events each table has taken, as far as memory knows; a number that only grows."""
    taken: Counter[int] = Counter()
    for (table_id, _), copy in list(store.loaded.items()):
        taken[table_id] += copy.last_seq
    for table_id, counts in counters.items():
        taken[table_id] += counts.published + counts.discarded
    known = catalogue.by_id
    return {known[table_id].name: count for table_id, count in taken.items() if table_id in known}
