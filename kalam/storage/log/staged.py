"""Rows of changes that are laid down beside the log, piece by piece, before the transaction that counts them.

The law: what lies in ``staged`` and is named by no row of ``log`` is nobody's. So a statement of any size writes its
changes in pieces among the transactions of others, and takes them into the log by one short transaction. If that never
comes, for whatever reason, there is nothing to undo: what is nobody's is swept away, a bounded piece at a time, as are
the pieces of the log that were published.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import msgspec

from kalam.rows.ids import UuidV7s
from kalam.rows.stored import pack_rows
from kalam.storage.log.copies import Op
from kalam.storage.log.database import Database
from kalam.storage.log.disk_faults import disk_may_fail
from kalam.threads import Purpose, in_thread

SWEPT_ROWS: Final = 4
"""Pieces that are removed in one transaction."""
PAUSE_S: Final = 1.0


class Piece(msgspec.Struct, frozen=True):
    """Consecutive changes of one kind with their rows, as a ``Chunk`` has them."""

    op: Op
    row_count: int
    payload: bytes
    old: bytes | None
    old_updated: bytes | None


class Laid(msgspec.Struct, frozen=True, gc=False):
    """A piece that lies beside the log."""

    staged_id: int
    op: Op
    row_count: int


class Staged:
    """The pieces of statements that are under way, and the removal of those that nobody needs."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._ids = UuidV7s()
        self._under_way: set[str] = set()

    @contextmanager
    def stage(self) -> Iterator[str]:
        """The name of a statement, whose pieces are kept while the block runs, and afterwards as the log names them."""
        name = str(self._ids.take(1)[0])
        self._under_way.add(name)
        try:
            yield name
        finally:
            self._under_way.discard(name)

    async def lay(self, stage: str, pieces: Sequence[Piece]) -> list[Laid]:
        """Store pieces; raises StorageFull."""

        def insert(conn: sqlite3.Connection) -> list[Laid]:
            laid: list[Laid] = []
            for piece in pieces:
                cursor = conn.execute(
                    "INSERT INTO staged (stage, payload, old, old_updated) VALUES (?, ?, ?, ?)",
                    (stage, piece.payload, piece.old, piece.old_updated),
                )
                assert cursor.lastrowid is not None
                laid.append(Laid(cursor.lastrowid, piece.op, piece.row_count))
            return laid

        return await self._database.write(insert)

    async def run(self) -> None:
        """Remove what nobody needs, until cancelled."""
        while True:
            await asyncio.sleep(PAUSE_S)
            with disk_may_fail("the removal of changes that are over"):
                while await self.sweep():
                    pass

    async def sweep(self) -> bool:
        """Remove some pieces that nobody needs; whether there were any."""
        over = await in_thread(Purpose.CATALOGUE, self._over)
        if over:
            await self._database.write(
                lambda conn: conn.executemany("DELETE FROM staged WHERE staged_id = ?", [(number,) for number in over])
            )
        return bool(over)

    def _over(self) -> list[int]:
        kept = tuple(self._under_way)
        with self._database.reading() as conn:
            rows = conn.execute(
                "SELECT staged_id FROM staged WHERE NOT EXISTS "  # noqa: S608 - placeholders
                "(SELECT 1 FROM log WHERE log.staged_id = staged.staged_id) "
                f"AND stage NOT IN ({', '.join('?' * len(kept))}) LIMIT {SWEPT_ROWS}",
                kept,
            )
            return [number for (number,) in rows]


def write_laid(
    conn: sqlite3.Connection, copy_id: int, first_seq: int, laid: Sequence[Laid], updated_us: int, schema_version: int
) -> int:
    """Take pieces into the log of a copy, out of the readers' sight; returns the seq of the last change."""
    empty, rows = pack_rows([]), []
    for piece in laid:
        rows.append((copy_id, first_seq, piece.row_count, piece.op, updated_us, schema_version, empty, piece.staged_id))
        first_seq += piece.row_count
    conn.executemany(
        "INSERT INTO log (copy_id, first_seq, row_count, op, updated_us, schema_version, superseding, flushed, "
        "payload, staged_id) VALUES (?, ?, ?, ?, ?, ?, 1, 1, ?, ?)",
        rows,
    )
    return first_seq - 1
