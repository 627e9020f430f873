"""What there is to change between a view's rows and those of its SELECT run again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from kalam.errors import DuplicateKey
from kalam.rows.types import Row


class Difference(msgspec.Struct, frozen=True):
    """The rows that are new or changed, and the keys of those that are gone."""

    upserts: list[Row]
    deletes: list[Any]


def difference(old: Mapping[Any, Row], new: Iterable[Row], key_of: Callable[[Row], Any]) -> Difference:
    """What makes the old rows, by their keys, the new ones. Raises DuplicateKey where two new rows have one key."""
    upserts: list[Row] = []
    seen: set[Any] = set()
    for rows, row in enumerate(new, 1):
        key = key_of(row)
        seen.add(key)
        if len(seen) < rows:
            raise DuplicateKey(f"the view's SELECT has two rows with the key {key!r}; name other columns in its key")
        before = old.get(key)
        if before is None or not is_equal(before, row):
            upserts.append(row)
    return Difference(upserts, [key for key in old if key not in seen])


def is_equal(row: Row, other: Row) -> bool:
    """Whether two rows show the same: NaN is equal to itself."""
    if row == other:
        return True
    return all(
        value == beside or (value != value and beside != beside) for value, beside in zip(row, other, strict=True)
    )
