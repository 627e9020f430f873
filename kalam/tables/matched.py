"""The rows that a statement changes, and the changes of the log that they become."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import compress, count
from operator import attrgetter, itemgetter
from typing import TypeVar

import msgspec
import pyarrow as pa

from kalam.rows.columns import from_arrow
from kalam.rows.shown import which_differ
from kalam.rows.stored import pack_pieces, pack_rows, row_count
from kalam.rows.types import Row
from kalam.schema import SEQ, UPDATED, Key, Table
from kalam.storage.log.former_times import pack_times, to_us
from kalam.storage.log.writes import Change
from kalam.storage.segments.key_rows import KeyedRows

T = TypeVar("T")
_ROW, _SEQ, _UPDATED = map(attrgetter, ("row", "seq", "updated"))


class Matched(msgspec.Struct, frozen=True, kw_only=True):
    """Rows that a statement picked, as the snapshot ``seen_seq`` had them, and the rows that they are to become.

    ``updated_us`` is their ``_updated``; ``news`` is None for a DELETE; ``inserts`` are rows of an upsert whose keys
    the snapshot does not have; ``removed`` are rows that are deleted beside those that become others. ``changes`` is
    what all of it is in the log, where that has been made. ``keys`` are those of ``olds`` where they are known and the
    ``news`` have them too, ``packed`` is what ``olds`` are packed as, where that is known.
    """

    olds: Sequence[Row]
    seqs: Sequence[int]
    updated_us: Sequence[int]
    news: Sequence[Row] | None
    seen_seq: int
    inserts: Sequence[Row] = ()
    removed: Matched | None = None
    changes: Sequence[Change] | None = None
    keys: Sequence[Key] | None = None
    packed: bytes | None = None

    @property
    def count(self) -> int:
        """How many rows it changes."""
        return len(self.olds) + len(self.inserts) + (self.removed.count if self.removed else 0)

    @classmethod
    def of_keyed(cls, found: KeyedRows, news: Sequence[Row] | None) -> Matched:
        """Rows that were found by their keys, and what they become."""
        times = list(map(_UPDATED, found.rows))
        times_us = {time: to_us(time) for time in set(times)}
        return cls(
            olds=list(map(_ROW, found.rows)),
            seqs=list(map(_SEQ, found.rows)),
            updated_us=list(map(times_us.__getitem__, times)),
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
    everything = range(len(matched.olds))
    if matched.news is None:
        return list(_deletes(table, matched, everything))
    moved = sorted(_moved(table, matched, matched.news))
    if not moved:
        return list(_updates(table, matched, everything, packed))
    stayed = sorted(set(everything) - set(moved))
    news, kept = [matched.news[place] for place in moved], [matched.news[place] for place in stayed]
    return [
        *_updates(table, matched, stayed, pack_pieces(kept)),
        *_deletes(table, matched, moved),
        *inserts(table, news, pack_pieces(news)),
    ]


def _moved(table: Table, matched: Matched, news: Sequence[Row]) -> set[int]:
    """Which rows are told otherwise: their key is another, or the last token of their events' subjects."""
    olds, named, moved = matched.olds, {*table.key, table.options.subject_key}, set[int]()
    if matched.keys is not None:
        named -= set(table.key)
    for place, column in enumerate(table.columns):
        if column.name in named:
            value = itemgetter(place)
            moved.update(compress(count(), which_differ(list(map(value, olds)), list(map(value, news)), column.type)))
    return moved


def _updates(table: Table, matched: Matched, places: Sequence[int], pieces: Sequence[bytes]) -> Iterator[Change]:
    """The updates of the matched rows at these places, whose new rows are ``pieces``."""
    for part, packed in _parts(places, pieces):
        olds, news = _at(matched.olds, part), _at(matched.news or (), part)
        seqs, times = _seqs_and_times(matched, part)
        keys = list(map(table.key_of, olds)) if matched.keys is None else _at(matched.keys, part)
        old = matched.packed if matched.packed is not None and len(part) == len(matched.olds) else pack_rows(olds)
        yield Change("update", keys, packed, news, seqs, old, times, olds)


def _deletes(table: Table, matched: Matched, places: Sequence[int]) -> Iterator[Change]:
    """The deletes of the matched rows at these places."""
    for part, packed in _parts(places, pack_pieces(_at(matched.olds, places))):
        rows = _at(matched.olds, part)
        seqs, times = _seqs_and_times(matched, part)
        yield Change("delete", list(map(table.key_of, rows)), packed, rows, seqs, old_updated=times)


def inserts(table: Table, rows: Sequence[Row], pieces: Sequence[bytes]) -> Iterator[Change]:
    """The inserts of rows, which are packed as ``pieces``."""
    for part, packed in _parts(range(len(rows)), pieces):
        fresh = _at(rows, part)
        yield Change("insert", list(map(table.key_of, fresh)), packed, fresh)


def _parts(places: Sequence[int], pieces: Sequence[bytes]) -> Iterator[tuple[Sequence[int], bytes]]:
    """The places of the rows of each blob, in order."""
    start = 0
    for packed in pieces:
        end = start + row_count(packed)
        yield places[start:end], packed
        start = end


def _at(values: Sequence[T], places: Sequence[int]) -> Sequence[T]:
    """The values at these places, which are in order and differ."""
    return values if len(places) == len(values) else [values[place] for place in places]


def _seqs_and_times(matched: Matched, places: Sequence[int]) -> tuple[Sequence[int], bytes]:
    return _at(matched.seqs, places), pack_times(_at(matched.updated_us, places))
