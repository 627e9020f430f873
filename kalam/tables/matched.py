"""The rows that a statement changes, and the changes of the log that they become."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
import pyarrow as pa

from kalam.rows.columns import from_arrow
from kalam.rows.shown import differs
from kalam.rows.stored import pack_pieces, pack_rows, row_count
from kalam.rows.types import Row
from kalam.schema import SEQ, UPDATED, Table
from kalam.storage.log.former_times import pack_times, to_us
from kalam.storage.log.writes import Change
from kalam.storage.segments.key_rows import KeyedRows


class Matched(msgspec.Struct, frozen=True, kw_only=True):
    """Rows that a statement picked, as the snapshot ``seen_seq`` had them, and the rows that they are to become.

    ``updated_us`` is their ``_updated``; ``news`` is None for a DELETE; ``inserts`` are rows of an upsert whose keys
    the snapshot does not have; ``removed`` are rows that are deleted beside those that become others.
    """

    olds: Sequence[Row]
    seqs: Sequence[int]
    updated_us: Sequence[int]
    news: Sequence[Row] | None
    seen_seq: int
    inserts: Sequence[Row] = ()
    removed: Matched | None = None

    @property
    def count(self) -> int:
        """How many rows it changes."""
        return len(self.olds) + len(self.inserts) + (self.removed.count if self.removed else 0)

    @classmethod
    def of_keyed(cls, found: KeyedRows, news: Sequence[Row] | None) -> Matched:
        """Rows that were found by their keys, and what they become."""
        return cls(
            olds=[found_row.row for found_row in found.rows],
            seqs=[found_row.seq for found_row in found.rows],
            updated_us=[to_us(found_row.updated) for found_row in found.rows],
            news=news,
            seen_seq=found.seen_seq,
        )

    @classmethod
    def of_query(cls, table: Table, data: pa.Table, seen_seq: int, news: Sequence[Row] | None) -> Matched:
        """Rows that a query has found, with the columns of ``queried_columns``, and what they become."""
        return cls(
            olds=from_arrow(data.select(range(len(table.columns)))),
            seqs=data.column(SEQ).to_pylist(),
            updated_us=data.column(UPDATED).cast(pa.int64()).to_pylist(),
            news=news,
            seen_seq=seen_seq,
        )


def queried_columns(table: Table) -> list[str]:
    """What has to be known of a row that is to be changed."""
    return [*(column.name for column in table.columns), SEQ, UPDATED]


def changes_of_old(table: Table, matched: Matched, packed: Sequence[bytes]) -> list[Change]:
    """The changes of the rows that were there, whose ``news`` are ``packed``.

    A row whose key or SUBJECT_KEY changes is deleted and inserted: who hears the events of one SUBJECT_KEY alone is
    told that the row is gone, and nothing of what it has become.
    """
    places, everything = _named_places(table), range(len(matched.olds))
    if matched.news is None:
        return list(_deletes(table, matched, everything))
    pairs = enumerate(zip(matched.olds, matched.news, strict=True))
    moved = [number for number, (old, new) in pairs if any(differs(old[place], new[place]) for place in places)]
    if not moved:
        return list(_updates(table, matched, everything, packed))
    stayed = sorted(set(everything) - set(moved))
    news, kept = [matched.news[place] for place in moved], [matched.news[place] for place in stayed]
    return [
        *_updates(table, matched, stayed, pack_pieces(kept)),
        *_deletes(table, matched, moved),
        *inserts(table, news, pack_pieces(news)),
    ]


def _named_places(table: Table) -> tuple[int, ...]:
    """The places of the columns by which a row is told: its key, and the last token of its events' subjects."""
    named = {*table.key, table.options.subject_key}
    return tuple(place for place, column in enumerate(table.columns) if column.name in named)


def _updates(table: Table, matched: Matched, places: Sequence[int], pieces: Sequence[bytes]) -> Iterator[Change]:
    """The updates of the matched rows at these places, whose new rows are ``pieces``."""
    for part, packed in _parts(places, pieces):
        olds = [matched.olds[place] for place in part]
        seqs, times = _seqs_and_times(matched, part)
        yield Change("update", list(map(table.key_of, olds)), packed, seqs, pack_rows(olds), times)


def _deletes(table: Table, matched: Matched, places: Sequence[int]) -> Iterator[Change]:
    """The deletes of the matched rows at these places."""
    olds = [matched.olds[place] for place in places]
    for part, packed in _parts(places, pack_pieces(olds)):
        seqs, times = _seqs_and_times(matched, part)
        yield Change("delete", [table.key_of(matched.olds[place]) for place in part], packed, seqs, old_updated=times)


def inserts(table: Table, rows: Sequence[Row], pieces: Sequence[bytes]) -> Iterator[Change]:
    """The inserts of rows, which are packed as ``pieces``."""
    for part, packed in _parts(range(len(rows)), pieces):
        yield Change("insert", [table.key_of(rows[place]) for place in part], packed)


def _parts(places: Sequence[int], pieces: Sequence[bytes]) -> Iterator[tuple[Sequence[int], bytes]]:
    """The places of the rows of each blob, in order."""
    start = 0
    for packed in pieces:
        end = start + row_count(packed)
        yield places[start:end], packed
        start = end


def _seqs_and_times(matched: Matched, places: Sequence[int]) -> tuple[list[int], bytes]:
    return [matched.seqs[place] for place in places], pack_times([matched.updated_us[place] for place in places])
