"""What a change means for a result: a row that enters is an insert, one that leaves is a delete. Pure."""

from __future__ import annotations

from collections.abc import Collection

from kalam.storage.log.copies import Op
from kalam.tables.versions import ChangeBatch

Pick = tuple[Op, int]
"""What happens in a result because of the batch's change of that number."""


def transitions(batch: ChangeBatch, news: Collection[int], olds: Collection[int], *, sees_deleted: bool) -> list[Pick]:
    """The changes of a result whose WHERE holds for the new versions ``news`` and the former ones ``olds``.

    A deleted version is in no result, unless the WHERE itself speaks of deleted rows.
    """
    if not olds:
        return [("insert", place) for place in sorted(news) if sees_deleted or not is_deletion(batch, place)]
    picks: list[Pick] = []
    for place in sorted({*news, *olds}):
        entered = place in news and (sees_deleted or not is_deletion(batch, place))
        if place in olds:
            picks.append(("update" if entered else "delete", place))
        elif entered:
            picks.append(("insert", place))
    return picks


def is_deletion(batch: ChangeBatch, place: int) -> bool:
    """Whether a change deleted its row: the former version lives, the new one is marked as deleted."""
    old, new = batch.olds[place], batch.news[place]
    return new is None or (old is not None and new[-1] is True and old[-1] is False)
