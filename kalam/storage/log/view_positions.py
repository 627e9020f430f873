"""How far each materialized view has read its sources, and what became of it: rows of ``kalam.db``.

The law: a position is written in the transaction of the rows that it stands for. What comes behind the position of a
view stays in the log of its source, flushed and published or not, while the position ``holds`` it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

import msgspec

READ_UPTO: Final = (
    "ifnull((SELECT min(seq) FROM view_positions WHERE source_id = copies.table_id AND holds), 9223372036854775807)"
)
"""In a SELECT over ``copies``: the last change that every view has had that reads the copy."""
Remembered = tuple[tuple[int, int], ...]
"""Sequences and times (ns since 1970) of the last messages that were read of a stream, oldest first."""
_PAIRS: msgspec.msgpack.Decoder[Remembered] = msgspec.msgpack.Decoder(Remembered)


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """How far a view has read one source.

    ``generation`` counts how often a stream was made anew, ``created`` tells which it was; ``missed`` of its messages
    were gone before they were read. Where it ``holds``, the log of the source keeps what comes behind it.
    """

    source_id: int
    generation: int = 1
    seq: int = 0
    created: str = ""
    remembered: Remembered = ()
    missed: int = 0
    holds: bool = True


class ViewState(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a view. ``stopped`` says why it does not go on by itself, or is empty.

    Rows that were ``late`` came when their time was over, those that ``failed`` could not be computed.
    """

    stopped: str = ""
    filled: bool = False
    late: int = 0
    failed: int = 0
    refreshes: int = 0


def read_positions(conn: sqlite3.Connection, table_id: int) -> dict[int, Position]:
    """The positions of a view by the id of the source."""
    rows = conn.execute(
        "SELECT source_id, generation, seq, created, remembered, missed, holds FROM view_positions WHERE table_id = ?",
        (table_id,),
    )
    return {
        source_id: Position(
            source_id=source_id,
            generation=generation,
            seq=seq,
            created=created,
            remembered=_PAIRS.decode(remembered),
            missed=missed,
            holds=bool(holds),
        )
        for source_id, generation, seq, created, remembered, missed, holds in rows
    }


def write_positions(conn: sqlite3.Connection, table_id: int, positions: Sequence[Position]) -> None:
    """Store positions, and let go of what the log of the sources has kept for them."""
    conn.executemany(
        "INSERT OR REPLACE INTO view_positions VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                table_id,
                each.source_id,
                each.generation,
                each.seq,
                each.created,
                msgspec.msgpack.encode(each.remembered),
                each.missed,
                each.holds,
            )
            for each in positions
        ],
    )
    for each in positions:
        _let_go(conn, each.source_id)


def forget_positions(conn: sqlite3.Connection, table_id: int) -> None:
    """Let a view begin anew."""
    sources = conn.execute("SELECT source_id FROM view_positions WHERE table_id = ?", (table_id,)).fetchall()
    conn.execute("DELETE FROM view_positions WHERE table_id = ?", (table_id,))
    for (source_id,) in sources:
        _let_go(conn, source_id)


def hold_log(conn: sqlite3.Connection, table_id: int, *, holds: bool) -> None:
    """Whether the logs of its sources are to keep what a view has not had."""
    sources = conn.execute("SELECT source_id FROM view_positions WHERE table_id = ?", (table_id,)).fetchall()
    conn.execute("UPDATE view_positions SET holds = ? WHERE table_id = ?", (holds, table_id))
    for (source_id,) in sources if not holds else ():
        _let_go(conn, source_id)


def _let_go(conn: sqlite3.Connection, source_id: int) -> None:
    """Remove from the log of a table what is flushed, published and read by every view."""
    conn.execute(
        f"""DELETE FROM log WHERE flushed = 1
        AND copy_id IN (SELECT copy_id FROM copies WHERE table_id = ?)
        AND first_seq <= (SELECT flushed_seq FROM copies WHERE copies.copy_id = log.copy_id)
        AND first_seq + row_count - 1 <=
        (SELECT min(published_seq, {READ_UPTO}) FROM copies WHERE copies.copy_id = log.copy_id)""",  # noqa: S608 - a constant
        (source_id,),
    )


def read_state(conn: sqlite3.Connection, table_id: int) -> ViewState:
    """What became of a view."""
    row = conn.execute(
        "SELECT stopped, filled, late, failed, refreshes FROM view_states WHERE table_id = ?", (table_id,)
    ).fetchone()
    if row is None:
        return ViewState()
    stopped, filled, late, failed, refreshes = row
    return ViewState(stopped=stopped, filled=bool(filled), late=late, failed=failed, refreshes=refreshes)


def write_state(conn: sqlite3.Connection, table_id: int, state: ViewState) -> None:
    """Store what became of a view."""
    conn.execute(
        "INSERT OR REPLACE INTO view_states VALUES (?, ?, ?, ?, ?, ?)",
        (table_id, state.stopped, state.filled, state.late, state.failed, state.refreshes),
    )
