"""What live queries need of others: a snapshot of the matching rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec
import pyarrow as pa

from kalam.live.predicate import Predicate
from kalam.schema import Table


class Snapshot(msgspec.Struct, frozen=True):
    """The matching rows of one moment, oldest change first where ``last_rows`` was asked; ``seq`` is that moment."""

    rows: pa.Table
    seq: int


class SnapshotPort(Protocol):
    """Reads rows as SELECT does."""

    async def snapshot(
        self, table: Table, user: str, columns: Sequence[str], predicate: Predicate, last_rows: int | None
    ) -> Snapshot:
        """The chosen columns of the rows that match, or of the ``last_rows`` newest of them."""
