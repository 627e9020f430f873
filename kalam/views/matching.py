"""What an outcome changes of the rows of a view: those that are there, and what they become."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import compress
from operator import attrgetter, itemgetter, not_, or_
from typing import Protocol

import msgspec
from msgspec.structs import replace

from kalam.rows.shown import which_differ
from kalam.rows.types import Row
from kalam.schema import Table
from kalam.storage.log.copies import Key, View
from kalam.storage.log.writes import Change
from kalam.storage.segments.cold_keys import KeyedRow
from kalam.storage.segments.key_rows import KeyedRows
from kalam.tables.matched import Matched
from kalam.threads import beside
from kalam.views.known_rows import Former, Unknown, Whole
from kalam.views.method import Outcome
from kalam.views.row_wise import duplicate

Changing = Callable[[Table, Matched], list[Change]]
"""Makes changes of the log of rows that are changed; raises TooLarge and InvalidValue for what no event can carry."""

_ROW = attrgetter("row")


class Finds(Protocol):
    """Finds rows of a view."""

    def whole(self, view: View, keys: Sequence[Key]) -> Whole | None:
        """The rows that have these keys where they, and no others, were written together last; None for otherwise."""

    def known(self, view: View, keys: Sequence[Key]) -> list[Former]:
        """The rows that have these keys in this state of the copy, as far as that is known without reading."""

    async def there(self, view: View, keys: Sequence[Key]) -> KeyedRows:
        """The rows that have these keys now."""


class _Wanted(msgspec.Struct, frozen=True):
    """Rows that are to be there, by their keys, every key that is concerned, these first, and what there was."""

    news: dict[Key, Row]
    keys: Sequence[Key]
    former: Sequence[Former]

    @property
    def unknown(self) -> list[Key]:
        """The keys of which nobody knows whether there is a row."""
        return [key for key, row in zip(self.keys, self.former, strict=True) if row is Unknown.ROW]


class Matching:
    """Finds what an outcome changes; the second look, after others have changed rows, takes nothing for granted."""

    def __init__(self, table: Table, outcome: Outcome, rows: Finds, changing: Changing) -> None:
        self._table, self._outcome, self._rows, self._changing = table, outcome, rows, changing
        self._looked = False

    async def match(self, table: Table, view: View) -> Matched:
        """The rows that are there, and what they become."""
        looked, self._looked = self._looked, True
        count = len(self._outcome.upserts) + len(self._outcome.deletes)
        wanted = await beside(count, self._of_known, table, view, looked=looked)
        if isinstance(wanted, Matched):
            return wanted
        found = await self._rows.there(view, wanted.unknown)
        return await beside(count, self._of_found, table, view, wanted, found)

    def _of_known(self, table: Table, view: View, *, looked: bool) -> Matched | _Wanted:
        """What is changed, where all is known of the rows that are concerned; else what has to be known."""
        if self._outcome.appends and not looked:
            return self._changed(table, KeyedRows([], view.last_seq), [], [], [], self._outcome.upserts)
        news = dict(zip(map(self._table.key_of, self._outcome.upserts), self._outcome.upserts, strict=True))
        keys = [*news, *(key for key in self._outcome.deletes if key not in news)]
        whole = None if looked or self._outcome.deletes or self._outcome.fresh else self._rows.whole(view, keys)
        if whole is not None:
            return self._of_whole(table, whole, keys, list(news.values()), view.last_seq)
        former: list[Former] = [Unknown.ROW] * len(keys) if looked else self._rows.known(view, keys)
        wanted = _Wanted(news, keys, former)
        there = [row for row in former if row is not Unknown.ROW]
        return self._matched(table, wanted, there, view.last_seq) if len(there) == len(keys) else wanted

    def _of_whole(self, table: Table, whole: Whole, keys: Sequence[Key], news: Sequence[Row], seen_seq: int) -> Matched:
        """What is changed of rows that were written together, which mostly is all of them."""
        different = self._differ(whole.rows, news)
        seqs = range(whole.first_seq, whole.first_seq + len(keys))
        chosen = [list(compress(each, different)) for each in (whole.rows, seqs, keys, news)]
        olds, old_seqs, kept, become = chosen
        matched = Matched(
            olds=olds,
            seqs=old_seqs,
            updated_us=[whole.updated_us] * len(olds),
            news=become,
            seen_seq=seen_seq,
            keys=kept,
            packed=whole.packed if len(olds) == len(keys) else None,
        )
        return replace(matched, changes=self._changing(table, matched))

    def _of_found(self, table: Table, view: View, wanted: _Wanted, found: KeyedRows) -> Matched:
        by_key = dict(zip((self._table.key_of(each.row) for each in found.rows), found.rows, strict=True))
        pairs = zip(wanted.keys, wanted.former, strict=True)
        former = [by_key.get(key) if row is Unknown.ROW else row for key, row in pairs]
        return self._matched(table, wanted, former, min(view.last_seq, found.seen_seq))

    def _matched(self, table: Table, wanted: _Wanted, former: Sequence[KeyedRow | None], seen_seq: int) -> Matched:
        news = list(wanted.news.values())
        there, removed = former[: len(news)], list(filter(None, former[len(news) :]))
        olds, become = list(filter(None, there)), list(compress(news, there))
        if self._outcome.fresh:
            for old, new in zip(olds, become, strict=True):
                if self._table.key_of(new) in self._outcome.fresh:
                    raise duplicate(self._table, old.row)
        different = self._differ(list(map(_ROW, olds)), become)
        updated = KeyedRows(list(compress(olds, different)), seen_seq)
        keys = list(compress(compress(wanted.keys, there), different))
        inserts = list(compress(news, map(not_, there)))
        return self._changed(table, updated, keys, list(compress(become, different)), removed, inserts)

    def _changed(
        self,
        table: Table,
        updated: KeyedRows,
        keys: Sequence[Key],
        news: Sequence[Row],
        removed: Sequence[KeyedRow],
        inserts: Sequence[Row],
    ) -> Matched:
        of_removed = Matched.of_keyed(KeyedRows(list(removed), updated.seen_seq), None) if removed else None
        matched = replace(Matched.of_keyed(updated, news), keys=keys, inserts=inserts, removed=of_removed)
        return replace(matched, changes=self._changing(table, matched))

    def _differ(self, olds: Sequence[Row], news: Sequence[Row]) -> Sequence[bool]:
        """Which rows are others than they were; looked at from behind, where the aggregates mostly are."""
        different = [False] * len(olds)
        for place in sorted(set(range(len(self._table.columns))) - set(self._table.key_places), reverse=True):
            was, now = (list(map(itemgetter(place), rows)) for rows in (olds, news))
            different = list(map(or_, different, which_differ(was, now, self._table.columns[place].type)))
            if all(different):
                break
        return different
