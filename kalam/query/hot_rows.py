"""The hot part of a copy as Arrow: decoded once, extended by what came since, shared by all queries.

The chunks of a view are a prefix of a list that only grows, so what was decoded for an earlier view is a prefix of what
this one needs. A flush replaces the list; then decoding starts anew, with the little that is hot.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from kalam.query.handed import HandedRows, HandedTable
from kalam.query.names import HIDDEN_SEQ, hidden_key
from kalam.rows.columns import SEQ_FIELD, STORED_FIELDS, arrow_schema
from kalam.rows.keys import key_arrays, key_codes
from kalam.rows.types import TIMESTAMP_ARROW
from kalam.rows.versions import History, StoredVersions
from kalam.schema import DELETED, Table
from kalam.storage.log.chunk_columns import columns_of
from kalam.storage.log.copies import Chunk, Key, View

BATCHES_MAX = 32
"""Record batches kept apart; more are joined into one."""


class HotState(msgspec.Struct, frozen=True):
    """What a view adds to the segments.

    ``rows`` are the newest hot versions with ``_updated``, ``_deleted``, ``_seq``, and ``live`` those that are not
    deleted. ``hidden`` has the keys whose copies with a smaller seq in segments do not count, the same object for as
    long as they are the same; ``hidden_since`` and ``hidden_upto`` are the least and the greatest of its seqs, 0 where
    it is empty.
    """

    rows: HandedTable
    live: HandedTable
    hidden: HandedTable
    hidden_since: int
    hidden_upto: int


class HotRows:
    """Decodes the chunks of one copy."""

    def __init__(self, table: Table, history: History) -> None:
        self._schema = arrow_schema(table.columns)
        self._key = table.key_places
        self._key_columns = table.key_columns
        self._reader = StoredVersions(table.columns, history)
        fields = [self._schema.field(place).with_name(hidden_key(part)) for part, place in enumerate(self._key)]
        self._hidden_schema = pa.schema([*fields, pa.field(HIDDEN_SEQ, pa.int64())])
        self._full = pa.schema([*self._schema, *STORED_FIELDS, SEQ_FIELD])
        self._lock = threading.Lock()
        self._reset(())

    def _reset(self, chunks: Sequence[Chunk]) -> None:
        self._chunks = chunks
        self._count = 0
        self._pieces: list[HandedRows] = []
        self._superseding: list[pa.RecordBatch] = []
        self._deleted = False
        self._state: tuple[Sequence[Chunk], int, Mapping[Key, int], HotState] | None = None
        self._known_hidden: tuple[int, Mapping[Key, int], tuple[HandedTable, int, int]] | None = None

    def state(self, view: View) -> HotState:
        """The hot rows and hidden keys of a view; blocking for the chunks that are new."""
        with self._lock:
            if view.chunks is not self._chunks or view.chunk_count < self._count:
                self._reset(view.chunks)
            known = self.known_state(view)
            if known is not None:
                return known
            if view.chunk_count > self._count:
                self._extend(view.chunks[self._count : view.chunk_count])
                self._count = view.chunk_count
            (rows, live), (hidden, since, upto) = self._winners(), self._hidden(view.overrides)
            state = HotState(rows, live, hidden, since, upto)
            self._state = (view.chunks, view.chunk_count, view.overrides, state)
            return state

    def known_state(self, view: View) -> HotState | None:
        """The hot rows and hidden keys of a view, if they have been made before."""
        known = self._state
        if known is None or known[0] is not view.chunks or known[2] is not view.overrides:
            return None
        return known[3] if known[1] == view.chunk_count else None

    def _extend(self, chunks: Sequence[Chunk]) -> None:
        counts = [chunk.row_count for chunk in chunks]
        updated = pa.array(np.repeat([chunk.updated_us for chunk in chunks], counts), pa.int64()).cast(TIMESTAMP_ARROW)
        deleted = pa.array(np.repeat([chunk.op == "delete" for chunk in chunks], counts))
        seqs = np.concatenate([np.arange(chunk.first_seq, chunk.last_seq + 1) for chunk in chunks])
        columns = columns_of(chunks, self._reader, self._schema).combine_chunks().to_batches()[0].columns
        full = pa.record_batch([*columns, updated, deleted, pa.array(seqs)], schema=self._full)
        self._pieces.append(HandedRows(pa.Table.from_batches([full])))
        if len(self._pieces) > BATCHES_MAX:
            self._pieces = _joined(self._pieces)
        self._deleted |= any(chunk.op == "delete" for chunk in chunks)
        superseding = np.repeat([chunk.superseding for chunk in chunks], counts)
        if superseding.any():
            self._superseding.append(full.select([*self._key, full.num_columns - 1]).filter(pa.array(superseding)))

    def _winners(self) -> tuple[HandedTable, HandedTable]:
        """The newest versions, and those of them that are not deleted."""
        if not self._superseding and not self._deleted:
            table = HandedTable(self._full, self._pieces)
            return table, table
        rows = pa.concat_tables([piece.table for piece in self._pieces])
        codes = key_codes([rows.column(place) for place in self._key])
        last = np.zeros(codes.max() + 1, np.int64)
        last[codes] = np.arange(len(codes))  # of assignments to one place numpy keeps the last
        rows = rows.take(pa.array(np.sort(last)))
        newest, live = HandedTable.of(rows), _live(rows)
        return newest, newest if live is rows else HandedTable.of(live)

    def _hidden(self, overrides: Mapping[Key, int]) -> tuple[HandedTable, int, int]:
        known = self._known_hidden
        if known is not None and known[0] == len(self._superseding) and known[1] is overrides:
            return known[2]
        hidden = self._make_hidden(overrides)
        bounds = pa.compute.min_max(hidden.column(HIDDEN_SEQ)).as_py()
        made = (HandedTable.of(hidden), bounds["min"] or 0, bounds["max"] or 0)
        self._known_hidden = (len(self._superseding), overrides, made)
        return made

    def _make_hidden(self, overrides: Mapping[Key, int]) -> pa.Table:
        schema = self._hidden_schema
        batches: list[Any] = [batch.rename_columns(schema.names).cast(schema) for batch in self._superseding]
        if overrides:
            keys = key_arrays(list(overrides), self._key_columns)
            batches.append(pa.record_batch([*keys, pa.array(list(overrides.values()), pa.int64())], schema=schema))
        return pa.Table.from_batches(batches, schema)


def _joined(pieces: Sequence[HandedRows]) -> list[HandedRows]:
    """Pieces of which each is at least as large as what follows it, so that few rows are written again and again."""
    kept = list(pieces)
    while len(kept) > 1 and kept[-2].table.num_rows <= 2 * kept[-1].table.num_rows:
        last, before = kept.pop(), kept.pop()
        kept.append(HandedRows(pa.concat_tables([before.table, last.table]).combine_chunks()))
    if len(kept) > BATCHES_MAX:
        return [HandedRows(pa.concat_tables([piece.table for piece in kept]).combine_chunks())]
    return kept


def _live(rows: pa.Table) -> pa.Table:
    deleted = rows.column(DELETED)
    return rows.filter(pa.compute.invert(deleted)) if pa.compute.any(deleted).as_py() else rows
