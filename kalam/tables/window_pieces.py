"""The events of a window in pieces: record batches in the order of their sequences, few and not too large.

A small piece is joined with the one before it once it is half as large, so that many small reads cost a logarithm of
copies, and no piece outgrows a bound, so that what was evicted is let go of a piece at a time.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import pyarrow as pa

from kalam.rows.columns import arrow_schema
from kalam.schema import Table

EVENT_SEQ, EVENT_TIME = "_event_seq", "_event_time"
PIECE_ROWS_MAX = 1 << 17
PIECE_BYTES_MAX = 64 << 20


def window_schema(table: Table) -> pa.Schema:
    """The table's columns, then each event's sequence and the time, in microseconds since 1970, it was stored at."""
    columns = arrow_schema(table.columns)
    return columns.append(pa.field(EVENT_SEQ, pa.int64())).append(pa.field(EVENT_TIME, pa.int64()))


class Piece(msgspec.Struct, frozen=True):
    """Events side by side; ``growing`` says whether their times never step back."""

    batch: pa.RecordBatch
    seqs: np.ndarray
    times: np.ndarray
    growing: bool
    byte_count: int

    def between(self, first_seq: int, last_seq: int) -> tuple[int, int]:
        """The places from and to which the sequences lie within these bounds."""
        return int(np.searchsorted(self.seqs, first_seq)), int(np.searchsorted(self.seqs, last_seq, "right"))


def piece(batch: pa.RecordBatch) -> Piece:
    """The piece of a record batch of ``window_schema``."""
    seqs, times = (batch.column(number).to_numpy() for number in (batch.num_columns - 2, batch.num_columns - 1))
    return Piece(batch, seqs, times, bool((times[1:] >= times[:-1]).all()), batch.nbytes)


class Pieces:
    """Pieces that grow at the end and are let go of at the front."""

    def __init__(self, schema: pa.Schema, pieces: Sequence[Piece] = ()) -> None:
        self._schema = schema
        self._pieces = list(pieces)

    def snapshot(self) -> Pieces:
        """The same events, whatever comes."""
        return Pieces(self._schema, self._pieces)

    @property
    def byte_count(self) -> int:
        """The memory that the events take."""
        return sum(one.byte_count for one in self._pieces)

    def count(self, first_seq: int, last_seq: int) -> int:
        """How many events lie within these bounds."""
        places = [one.between(first_seq, last_seq) for one in self._pieces]
        return sum(stop - start for start, stop in places)

    def seqs(self) -> np.ndarray:
        """The sequences of all events."""
        return np.concatenate([one.seqs for one in self._pieces] or [np.empty(0, np.int64)])

    def times(self) -> np.ndarray:
        """The times of all events."""
        return np.concatenate([one.times for one in self._pieces] or [np.empty(0, np.int64)])

    def add(self, batch: pa.RecordBatch, *, alone: bool = False) -> None:
        """Append events that came later; ``alone`` they are a piece by themselves."""
        self._pieces.append(piece(batch))
        while not alone and len(self._pieces) > 1 and _joinable(*self._pieces[-2:]):
            last, before = self._pieces.pop(), self._pieces.pop()
            joined = pa.Table.from_batches([before.batch, last.batch]).combine_chunks().to_batches()
            self._pieces += map(piece, joined)

    def remove(self, seqs: np.ndarray) -> None:
        """Remove single events."""
        for number, one in enumerate(self._pieces):
            gone = np.isin(one.seqs, seqs)
            if gone.any():
                self._pieces[number] = piece(one.batch.filter(pa.array(~gone)))
        self._pieces = [one for one in self._pieces if len(one.seqs)]

    def trim(self, first_seq: int) -> None:
        """Let go of what comes before a sequence, as far as that frees memory worth the copy."""
        while self._pieces and self._pieces[0].seqs[-1] < first_seq:
            del self._pieces[0]
        if self._pieces:
            first = self._pieces[0]
            start = int(np.searchsorted(first.seqs, first_seq))
            if start > len(first.seqs) // 2:
                self._pieces[0] = piece(first.batch.take(pa.array(np.arange(start, len(first.seqs)))))

    def chosen(self, seqs: np.ndarray) -> pa.Table:
        """The events with these sequences, as far as they are there; both are in order."""
        batches: list[pa.RecordBatch] = []
        for one in self._pieces:
            places = np.searchsorted(one.seqs, seqs)
            places = places[places < len(one.seqs)]
            found = np.unique(places[np.isin(one.seqs[places], seqs)])
            if len(found):
                batches.append(one.batch.take(pa.array(found)))
        return pa.Table.from_batches(batches, self._schema)

    def visible(self, first_seq: int, last_seq: int, oldest_us: int | None) -> pa.Table:
        """The events within these bounds that were stored after a time; nothing is copied where times grow."""
        batches: list[pa.RecordBatch] = []
        for one in self._pieces:
            start, stop = one.between(first_seq, last_seq)
            if oldest_us is not None and one.growing:
                start = max(start, int(np.searchsorted(one.times, oldest_us, "right")))
            batch = one.batch.slice(start, max(0, stop - start))
            if oldest_us is not None and not one.growing:
                batch = batch.filter(pa.array(one.times[start:stop] > oldest_us))
            if batch.num_rows:
                batches.append(batch)
        return pa.Table.from_batches(batches, self._schema)


def _joinable(before: Piece, last: Piece) -> bool:
    rows, byte_count = len(before.seqs) + len(last.seqs), before.byte_count + last.byte_count
    return 2 * len(last.seqs) >= len(before.seqs) and rows <= PIECE_ROWS_MAX and byte_count <= PIECE_BYTES_MAX
