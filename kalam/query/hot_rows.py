"""The hot part of a copy as Arrow: decoded once, extended by what came since, shared by all queries.

The chunks of a view are a prefix of a list that only grows, so what was decoded for an earlier view is a prefix of what
this one needs. A flush replaces the list; then decoding starts anew, with the little that is hot.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from kalam.rows.columns import arrow_schema, to_arrow
from kalam.rows.types import TIMESTAMP_ARROW
from kalam.rows.versions import History, StoredVersions
from kalam.schema import DELETED, SEQ, UPDATED, Table
from kalam.storage.copies import Chunk, Key, View

BATCHES_MAX = 32
"""Record batches kept apart; more are joined into one."""

HIDDEN_KEY, HIDDEN_SEQ = "_hidden_key", "_hidden_seq"


@dataclass(frozen=True, slots=True)
class HotState:
    """What a view adds to the segments.

    ``rows`` are the newest hot versions with ``_updated``, ``_deleted``, ``_seq``, and ``live`` those that are not
    deleted. ``hidden`` has the keys whose copies with a smaller seq in segments do not count, the same object for as
    long as they are the same; ``hidden_since`` and ``hidden_upto`` are the least and the greatest of its seqs, 0 where
    it is empty.
    """

    rows: pa.Table
    live: pa.Table
    hidden: pa.Table
    hidden_since: int
    hidden_upto: int


class HotRows:
    """Decodes the chunks of one copy."""

    def __init__(self, table: Table, history: History) -> None:
        assert table.key_column is not None
        self._schema = arrow_schema(table.columns)
        self._key = table.key_index
        self._reader = StoredVersions(table.columns, history)
        self._key_field = pa.field(HIDDEN_KEY, self._schema.field(self._key).type)
        self._full = self._schema.append(pa.field(UPDATED, TIMESTAMP_ARROW)).append(pa.field(DELETED, pa.bool_()))
        self._full = self._full.append(pa.field(SEQ, pa.int64()))
        self._lock = threading.Lock()
        self._reset(())

    def _reset(self, chunks: Sequence[Chunk]) -> None:
        self._chunks = chunks
        self._count = 0
        self._batches: list[pa.RecordBatch] = []
        self._superseding: list[pa.RecordBatch] = []
        self._state: tuple[Sequence[Chunk], int, Mapping[Key, int], HotState] | None = None
        self._known_hidden: tuple[int, Mapping[Key, int], tuple[pa.Table, int, int]] | None = None

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
            rows = self._winners()
            state = HotState(rows, _live(rows), *self._hidden(view.overrides))
            self._state = (view.chunks, view.chunk_count, view.overrides, state)
            return state

    def known_state(self, view: View) -> HotState | None:
        """The hot rows and hidden keys of a view, if they have been made before."""
        known = self._state
        if known is None or known[0] is not view.chunks or known[2] is not view.overrides:
            return None
        return known[3] if known[1] == view.chunk_count else None

    def _extend(self, chunks: Sequence[Chunk]) -> None:
        rows = [row for chunk in chunks for row in self._reader.unpack(chunk.payload, chunk.schema_version)]
        counts = [chunk.row_count for chunk in chunks]
        updated = pa.array(np.repeat([chunk.updated_us for chunk in chunks], counts), pa.int64()).cast(TIMESTAMP_ARROW)
        deleted = pa.array(np.repeat([chunk.op == "delete" for chunk in chunks], counts))
        seqs = np.concatenate([np.arange(chunk.first_seq, chunk.last_seq + 1) for chunk in chunks])
        batch = to_arrow(rows, self._schema)
        full = pa.record_batch([*batch.columns, updated, deleted, pa.array(seqs)], schema=self._full)
        self._batches.append(full)
        if len(self._batches) > BATCHES_MAX:
            self._batches = pa.Table.from_batches(self._batches, self._full).combine_chunks().to_batches()
        superseding = np.repeat([chunk.superseding for chunk in chunks], counts)
        if superseding.any():
            self._superseding.append(full.select([self._key, full.num_columns - 1]).filter(pa.array(superseding)))

    def _winners(self) -> pa.Table:
        rows = pa.Table.from_batches(self._batches, self._full)
        if not self._superseding:
            return rows
        codes = rows.column(self._key).combine_chunks().dictionary_encode().indices.to_numpy()
        last = np.zeros(codes.max() + 1, np.int64)
        last[codes] = np.arange(len(codes))  # of assignments to one place numpy keeps the last
        return rows.take(pa.array(np.sort(last)))

    def _hidden(self, overrides: Mapping[Key, int]) -> tuple[pa.Table, int, int]:
        known = self._known_hidden
        if known is not None and known[0] == len(self._superseding) and known[1] is overrides:
            return known[2]
        hidden = self._make_hidden(overrides)
        bounds = pa.compute.min_max(hidden.column(HIDDEN_SEQ)).as_py()
        made = (hidden, bounds["min"] or 0, bounds["max"] or 0)
        self._known_hidden = (len(self._superseding), overrides, made)
        return made

    def _make_hidden(self, overrides: Mapping[Key, int]) -> pa.Table:
        schema = pa.schema([self._key_field, pa.field(HIDDEN_SEQ, pa.int64())])
        batches: list[Any] = [batch.rename_columns(schema.names).cast(schema) for batch in self._superseding]
        if overrides:
            keys = pa.array(list(overrides), self._key_field.type)
            batches.append(pa.record_batch([keys, pa.array(list(overrides.values()), pa.int64())], schema=schema))
        return pa.Table.from_batches(batches, schema)


def _live(rows: pa.Table) -> pa.Table:
    deleted = rows.column(DELETED)
    return rows.filter(pa.compute.invert(deleted)) if pa.compute.any(deleted).as_py() else rows
