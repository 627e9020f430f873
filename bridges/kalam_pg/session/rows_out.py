"""Rows on their way to the client: encoded a piece at a time, no faster than they are taken."""

from __future__ import annotations

from typing import Final

import pyarrow as pa

from kalam.threads import Purpose, in_thread
from kalam_pg.session.answers import Answer
from kalam_pg.session.session import Session
from kalam_pg.values.rows import Column, data_rows_of, split

INLINE_ROWS_MAX: Final = 256
"""More are encoded in a thread: the event loop has other sessions."""
SOON_BYTES: Final = 16 << 10


async def send_rows(session: Session, answer: Answer, rows_max: int = 0) -> tuple[int, bool]:
    """Send the rows of an answer, at most so many (0: all); how many they were, and whether the answer has ended."""
    columns = answer.columns or ()
    sent = 0
    while (table := await answer.next()) is not None:
        if rows_max and sent + table.num_rows > rows_max:
            left = rows_max - sent
            answer.give_back(table.slice(left))
            table = table.slice(0, left)
        sent += table.num_rows
        await _send(session, table, columns)
        if rows_max and sent == rows_max:
            return sent, await _has_ended(answer)
    return sent, True


async def _has_ended(answer: Answer) -> bool:
    """Whether nothing follows; PostgreSQL tells only once it is asked for more, and clients take either."""
    while (table := await answer.next()) is not None:
        if table.num_rows:
            answer.give_back(table)
            return False
    return True


async def _send(session: Session, table: pa.Table, columns: tuple[Column, ...]) -> None:
    for piece in split(table):
        if piece.num_rows > INLINE_ROWS_MAX:
            data = await in_thread(Purpose.ANSWERS, data_rows_of, piece, columns)
        else:
            data = data_rows_of(piece, columns)
        session.write(data)
        if piece.num_rows > INLINE_ROWS_MAX or len(data) > SOON_BYTES:  # less goes with the answer's end
            await session.drain()
