"""What is decided without looking anywhere: each with a table of values."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from kalam.live.transitions import transitions
from kalam.names import TableName
from kalam.schema import Column, DataType, StoredOptions, StreamOptions, Table, TableKind, TypeName
from kalam.storage.work.compaction_schedule import Fragments, is_overridden
from kalam.storage.work.flush_schedule import Hot, is_due
from kalam.tables.evictions import Evicted, account
from kalam.tables.ports import StreamState
from kalam.tables.versions import ChangeBatch

SECOND_US, DAY_US = 1_000_000, 86_400_000_000
NOW_US = 10 * DAY_US


def stored(kind: TableKind = TableKind.SHARED, **options: Any) -> Table:
    """A table with one column."""
    column = Column(column_id=1, name="id", type=DataType(name=TypeName.BIGINT), nullable=False)
    return Table(
        name=TableName("n", "t"),
        kind=kind,
        columns=(column,),
        key=("id",),
        options=StoredOptions(**options),
        table_id=1,
        schema_version=1,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


@pytest.mark.parametrize(
    ("rows", "age_s", "policy", "due"),
    [
        (0, None, {"flush_rows": 1}, False),
        (99, 0, {"flush_rows": 100, "flush_interval_s": None}, False),
        (100, 0, {"flush_rows": 100, "flush_interval_s": None}, True),
        (99, 10**6, {"flush_rows": 100, "flush_interval_s": None}, False),
        (1, 59, {"flush_rows": None, "flush_interval_s": 60}, False),
        (1, 60, {"flush_rows": None, "flush_interval_s": 60}, True),
        (10**9, 59, {"flush_rows": None, "flush_interval_s": 60}, False),
        (99, 59, {"flush_rows": 100, "flush_interval_s": 60}, False),
        (99, 60, {"flush_rows": 100, "flush_interval_s": 60}, True),
        (100, 0, {"flush_rows": 100, "flush_interval_s": 60}, True),
    ],
)
def test_a_copy_is_flushed_by_its_rows_or_its_age(
    rows: int, age_s: int | None, policy: dict[str, int | None], due: bool
) -> None:
    oldest_us = None if age_s is None else NOW_US - age_s * SECOND_US
    assert is_due(stored(**policy), Hot(rows, rows, oldest_us), NOW_US, user_rows_min=50) is due


@pytest.mark.parametrize(
    ("rows", "age_s", "due"),
    [(49, 60, False), (50, 60, True), (49, 86_399, False), (49, 86_400, True), (1_000, 0, True), (50, 59, False)],
)
def test_a_few_rows_of_one_user_wait_for_more_or_for_a_day(rows: int, age_s: int, due: bool) -> None:
    table = stored(TableKind.USER, flush_rows=1_000, flush_interval_s=60)
    assert is_due(table, Hot(rows, rows, NOW_US - age_s * SECOND_US), NOW_US, user_rows_min=50) is due


@pytest.mark.parametrize(
    ("overrides", "cold_rows", "worth"),
    [(999, 0, False), (1_000, 0, True), (1_000, 5_000, True), (1_000, 5_100, False), (1_020, 5_100, True)],
)
def test_so_many_overrides_are_worth_a_compaction(overrides: int, cold_rows: int, worth: bool) -> None:
    assert is_overridden(Fragments(0, overrides, cold_rows), percent=20) is worth


@pytest.mark.parametrize(
    ("last_seq", "messages", "holes", "accounted", "retention_s", "evicted"),
    [
        (0, 0, 0, 0, None, Evicted(0, 0)),
        (100, 100, 0, 0, None, Evicted(0, 0)),
        (150, 100, 0, 0, None, Evicted(0, 50)),
        (150, 100, 0, 50, None, Evicted(0, 0)),
        (150, 90, 0, 50, None, Evicted(0, 10)),
        (80, 60, 0, 0, 10, Evicted(20, 0)),
        (150, 60, 0, 0, 10, Evicted(40, 50)),
        (150, 60, 0, 90, 10, Evicted(0, 0)),
        (150, 60, 5, 0, 10, Evicted(35, 50)),
        (100, 100, 0, 7, 10, Evicted(0, 0)),
    ],
)
def test_what_is_gone_and_was_not_counted_was_evicted(
    last_seq: int, messages: int, holes: int, accounted: int, retention_s: int | None, evicted: Evicted
) -> None:
    state = StreamState(
        created="",
        messages=messages,
        bytes=0,
        first_seq=last_seq - messages + 1,
        last_seq=last_seq,
        first_at=None,
        last_at=None,
        doubtful_seq=0,
        holes=holes,
        lost=0,
    )
    assert account(StreamOptions(max_buffer_rows=100, retention_s=retention_s), state, accounted) == evicted


OLD, NEW, DELETED = (1, "old", False), (1, "new", False), (1, "old", True)


@pytest.mark.parametrize(
    ("old", "new", "held_before", "holds_now", "sees_deleted", "op"),
    [
        (None, NEW, False, True, False, "insert"),
        (None, NEW, False, False, False, None),
        (OLD, NEW, True, True, False, "update"),
        (OLD, NEW, False, True, False, "insert"),
        (OLD, NEW, True, False, False, "delete"),
        (OLD, NEW, False, False, False, None),
        (OLD, DELETED, True, True, False, "delete"),
        (OLD, DELETED, False, True, False, None),
        (OLD, DELETED, True, True, True, "update"),
        (OLD, DELETED, False, True, True, "insert"),
        (OLD, None, True, False, False, "delete"),
        (DELETED, NEW, False, True, False, "insert"),
    ],
)
def test_what_a_change_means_for_a_result(
    old: tuple[Any, ...] | None,
    new: tuple[Any, ...] | None,
    held_before: bool,
    holds_now: bool,
    sees_deleted: bool,
    op: str | None,
) -> None:
    batch = ChangeBatch([7], [old], [new])
    picks = transitions(batch, [0] if holds_now else [], [0] if held_before else [], sees_deleted=sees_deleted)
    assert picks == ([] if op is None else [(op, 0)])
