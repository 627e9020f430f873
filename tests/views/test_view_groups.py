"""Groups that are kept by signed rows: tables of values, and a model that adds everything up anew."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from datafusion import SessionConfig, SessionContext
from datafusion.catalog import Schema
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from kalam.errors import DuplicateKey, TooLarge
from kalam.views.groups import GroupTable, KeptCall, difference
from kalam.views.groups.gathering import ROWS_MAX
from kalam.views.keys import hidden_key, hidden_keys
from kalam.views.shape.classified import AggregateKind as Kind

NAN, INF = math.nan, math.inf
WIDE = pa.decimal128(38, 2)


def table_of(kind: Kind, argument: pa.DataType, value: pa.DataType, **bounds: int) -> GroupTable:
    """Groups by a text, with one aggregate."""
    return GroupTable([pa.string()], [KeptCall(kind, argument, value)], bounds.pop("groups_max", 100), **bounds)


def take(groups: GroupTable, kind: pa.DataType, rows: Sequence[tuple[Any, Any, int]]) -> None:
    keys, values, weights = zip(*rows, strict=True) if rows else ((), (), ())
    data = pa.table({"_k0": pa.array(keys, pa.string()), "_a0": pa.array(values, kind)})
    groups.take(data, np.array(weights, np.int64))


def shown(groups: GroupTable) -> dict[Any, Any]:
    """The value of each group that has rows; of one whose value is out of range the word."""
    slots = groups.all_slots()
    slots = slots[~np.isin(slots, groups.gone(slots))]
    values = groups.values(slots)
    found = {row["_k0"]: row["_v0"] for row in values.rows.to_pylist()}
    return found | dict.fromkeys((groups.keys_of(np.array([slot]))[0][0] for slot in values.failed), "out of range")


F8, I8, TEXT, BOOL = pa.float64(), pa.int64(), pa.string(), pa.bool_()
ALL_NINES = "9" * 36
OUT = "out of range"
# An aggregate, the types of its argument and value, rows of (group, value, sign), and the value of each group.
VALUES: list[tuple[Kind, pa.DataType, pa.DataType, list[tuple[str | None, Any, int]], dict[str | None, Any]]] = [
    (Kind.COUNT, I8, I8, [("a", 1, 1), ("a", None, 1), (None, None, 1)], {"a": 1, None: 0}),
    (Kind.SUM, I8, I8, [("a", 2**62, 1), ("a", 2**62, 1), ("b", None, 1)], {"a": OUT, "b": None}),
    (Kind.SUM, I8, I8, [("a", 2**62, 1)] * 3 + [("a", 2**62, -1)] * 2, {"a": 2**62}),
    (Kind.SUM, I8, I8, [("a", -(2**63), 1), ("a", -1, 1), ("a", 1, 1)], {"a": -(2**63)}),
    (Kind.SUM, pa.int16(), I8, [("a", -5, 1), ("a", 3, 1)], {"a": -2}),
    (Kind.SUM, WIDE, WIDE, [("a", Decimal("-0.01"), 1), ("a", Decimal("7.50"), 1)], {"a": Decimal("7.49")}),
    (Kind.SUM, WIDE, WIDE, [("a", Decimal(f"{ALL_NINES}.99"), 1), ("a", Decimal("0.01"), 1)], {"a": OUT}),
    (
        *(Kind.SUM, WIDE, WIDE, [("a", Decimal(f"{ALL_NINES}.99"), 1), ("a", Decimal("-0.01"), 1)]),
        {"a": Decimal(f"{ALL_NINES}.98")},
    ),
    (Kind.SUM, F8, F8, [("a", 1e300, 1), ("a", 0.5, 1), ("a", 1e300, -1)], {"a": 0.5}),
    (Kind.SUM, F8, F8, [("a", 5e-324, 1), ("a", 5e-324, 1), ("b", -0.0, 1)], {"a": 1e-323, "b": 0.0}),
    (Kind.SUM, F8, F8, [("a", 1.7e308, 1), ("a", 1.7e308, 1)], {"a": OUT}),
    (Kind.SUM, F8, F8, [("a", INF, 1), ("a", 1.0, 1)], {"a": INF}),
    (Kind.SUM, F8, F8, [("a", INF, 1), ("a", INF, -1), ("a", 2.0, 1)], {"a": 2.0}),
    (Kind.SUM, F8, F8, [("a", 0.1, 1)] * 10, {"a": 1.0}),
    (Kind.SUM, pa.float32(), F8, [("a", 0.5, 1), ("a", 0.25, 1)], {"a": 0.75}),
    (Kind.AVG, I8, F8, [("a", 1, 1), ("a", 2, 1), ("b", None, 1)], {"a": 1.5, "b": None}),
    (Kind.AVG, F8, F8, [("a", 1.0, 1), ("a", 2.0, 1)], {"a": 1.5}),
    (
        *(Kind.AVG, pa.decimal128(5, 2), pa.decimal128(38, 6), [("a", Decimal("1.00"), 1), ("a", Decimal("0.01"), 2)]),
        {"a": Decimal("0.340000")},
    ),
    (Kind.MAX, F8, F8, [("a", NAN, 1), ("a", 5.0, 1), ("b", -1.0, 1), ("b", None, 1)], {"a": NAN, "b": -1.0}),
    (Kind.MIN, F8, F8, [("a", NAN, 1), ("a", 5.0, 1), ("b", NAN, 1)], {"a": 5.0, "b": NAN}),
    (Kind.MAX, TEXT, TEXT, [("a", "é", 1), ("a", "z", 1), ("b", None, 1)], {"a": "é", "b": None}),
    (Kind.ALL, BOOL, BOOL, [("a", True, 1), ("a", None, 1), ("b", False, 1)], {"a": True, "b": False}),
    (Kind.ALL, BOOL, BOOL, [("a", None, 1)], {"a": None}),
    (Kind.ANY, BOOL, BOOL, [("a", True, 1), ("a", True, -1), ("a", False, 1)], {"a": False}),
    (Kind.COUNT_DISTINCT, F8, I8, [("a", NAN, 1), ("a", NAN, 1), ("a", 1.0, 1), ("a", None, 1)], {"a": 2}),
    (Kind.COUNT_DISTINCT, TEXT, I8, [("a", "x", 1), ("a", "x", 1), ("a", "y", 1), ("a", "y", -1)], {"a": 1}),
]


@pytest.mark.parametrize(
    ("kind", "argument", "value", "rows", "expected"),
    VALUES,
    ids=[f"{number}-{case[0].name.lower()}" for number, case in enumerate(VALUES)],
)
def test_values_of_groups(
    kind: Kind,
    argument: pa.DataType,
    value: pa.DataType,
    rows: list[tuple[str | None, Any, int]],
    expected: dict[str | None, Any],
) -> None:
    groups = table_of(kind, argument, value)
    for row in rows:  # one by one, which comes to the same as all at once
        take(groups, argument, [row])
    together = table_of(kind, argument, value)
    take(together, argument, rows)
    for kept in (groups, together):
        found = shown(kept)
        assert found.keys() == expected.keys()
        assert {key: repr(found[key]) for key in expected} == {key: repr(value) for key, value in expected.items()}


@pytest.mark.parametrize("seed", range(3))
def test_few_groups_are_found_together_whatever_came_and_went(seed: int) -> None:
    dice, groups, kept = random.Random(seed), table_of(Kind.COUNT, I8, I8), Counter[str | None]()
    for _ in range(300):
        new = dice.choices([*"abcdefgh", None], k=dice.randrange(8))
        old = [key for key in kept if not dice.randrange(6)]
        take(groups, I8, [*((key, 1, 1) for key in new), *((key, 1, -1) for key in old)])
        kept += Counter(new)
        kept -= Counter(old)
        groups.forget(groups.gone(groups.all_slots()))
        slots = groups.all_slots()
        assert shown(groups) == kept
        assert groups.named(slots, hidden_keys) == hidden_keys(groups.keys_of(slots))
        assert groups.key_columns(slots)["_k0"].to_pylist() == [key for (key,) in groups.keys_of(slots)]
        some = slots[::2]
        assert groups.named(some, hidden_keys) == [hidden_key(key) for key in groups.keys_of(some)]
        assert groups.key_columns(some)["_k0"].to_pylist() == [key for (key,) in groups.keys_of(some)]


def test_the_two_zeros_every_nan_and_null_are_one_group_each() -> None:
    groups = GroupTable([pa.float64(), pa.string()], [], 100)
    keys = pa.array([0.0, -0.0, NAN, -NAN, None, None], pa.float64())
    groups.take(pa.table({"_k0": keys, "_k1": pa.array(["x"] * 6)}))
    groups.take(pa.table({"_k0": keys, "_k1": pa.array(["x"] * 6)}))
    slots = groups.all_slots()
    assert repr(groups.keys_of(slots)) == "[(0.0, 'x'), (nan, 'x'), (None, 'x')]"
    assert groups.rows_of(slots).tolist() == [4, 4, 4]


def test_without_keys_there_is_one_group_before_the_first_row() -> None:
    groups = GroupTable([], [KeptCall(Kind.SUM, pa.int64(), pa.int64())], 100)
    assert groups.values(groups.all_slots()).rows.to_pylist() == [{"_v0": None, "kalam_place": 0}]
    groups.take(pa.table({"_a0": pa.array([3, 4])}))
    groups.take(pa.table({"_a0": pa.array([3, 4])}), np.array([-1, -1]))
    assert groups.gone(groups.all_slots()).tolist() == []
    assert groups.values(groups.all_slots()).rows.to_pylist() == [{"_v0": None, "kalam_place": 0}]


def test_an_extreme_that_is_taken_away_leaves_its_group_stale_until_it_is_made_anew() -> None:
    groups = table_of(Kind.MAX, pa.int64(), pa.int64())
    take(groups, pa.int64(), [("a", 5, 1), ("a", 3, 1), ("b", 1, 1), ("c", 9, 1), ("c", 9, 1)])
    take(groups, pa.int64(), [("a", 3, -1), ("b", 1, -1)])
    assert groups.stale.tolist() == []
    take(groups, pa.int64(), [("a", 5, -1), ("a", 4, 1)])
    assert groups.keys_of(groups.stale) == [("a",)]
    rows = pa.table({"_k0": ["a", "a", "c", "c", "d", "a"], "_a0": pa.array([4, 8, 9, 9, 1, 8])})
    groups.remake(rows, np.array([1, 1, 1, 1, 1, -1]))  # 8 came after what is to be known
    assert groups.stale.tolist() == []
    assert shown(groups) == {"a": 4, "c": 9}


DAYS = [datetime(2026, 1, day, tzinfo=UTC) for day in (1, 2, 3)]
# A type, and values of it in their order.
ORDERED: list[tuple[pa.DataType, list[Any]]] = [
    (pa.int8(), [-128, 0, 127]),
    (pa.uint16(), [0, 1, 65_535]),
    (pa.float32(), [-INF, -1.5, 2.5]),
    (F8, [-INF, 0.0, INF]),
    (F8, [1.0, INF, NAN]),
    (pa.date32(), [day.date() for day in DAYS]),
    (pa.timestamp("us", "UTC"), DAYS),
    (pa.decimal128(12, 2), [Decimal("-1.00"), Decimal("0.01"), Decimal("10.00")]),
    (TEXT, ["", "a", "b"]),
    (pa.binary(), [b"", b"a", b"ab"]),
]


def as_text(found: dict[str, Any]) -> dict[str, str]:
    """Values that are compared; NaN is equal to itself."""
    return {key: str(value) for key, value in found.items()}


@pytest.mark.parametrize(("kind", "values"), ORDERED, ids=[f"{kind}-{values[-1]}" for kind, values in ORDERED])
@pytest.mark.parametrize("greatest", [True, False])
def test_extremes_of_every_type_come_go_and_are_remembered(
    kind: pa.DataType, values: list[Any], greatest: bool
) -> None:
    call = Kind.MAX if greatest else Kind.MIN
    far, middle, near = values[::-1] if greatest else values
    groups = table_of(call, kind, kind)
    take(groups, kind, [("a", middle, 1), ("b", None, 1), ("a", near, 1)])
    take(groups, kind, [("a", far, 1), ("a", near, -1), ("c", near, 1)])
    assert as_text(shown(groups)) == as_text({"a": far, "b": None, "c": near})
    loaded = table_of(call, kind, kind)
    take(loaded, kind, [("a", near, 1), ("d", far, 1)])
    loaded.load(groups.dump(groups.all_slots()))
    assert as_text(shown(loaded)) == as_text({"a": far, "d": far, "b": None, "c": near})
    for number in range(200):  # for which there is no room yet
        take(loaded, kind, [(f"more {number % 90}", middle, 1)])
    take(loaded, kind, [("a", far, -1), ("c", near, -1), ("d", far, -1)])
    assert loaded.keys_of(loaded.stale) == [("a",)]
    rows = pa.table({"_k0": ["a", "a"], "_a0": pa.array([None, middle], kind)})
    loaded.remake(rows, np.array([1, 1]))
    assert loaded.stale.tolist() == []
    found = as_text(shown(loaded))
    assert (found["a"], found["more 89"]) == (str(middle), str(middle))
    assert found.keys().isdisjoint({"c", "d"})


def test_a_greater_value_takes_the_place_of_one_that_is_not_known() -> None:
    groups = table_of(Kind.MAX, pa.int64(), pa.int64())
    take(groups, pa.int64(), [("a", 5, 1), ("a", 3, 1)])
    take(groups, pa.int64(), [("a", 5, -1)])
    take(groups, pa.int64(), [("a", 7, 1)])
    assert groups.stale.tolist() == []
    assert shown(groups) == {"a": 7}


def test_groups_are_bounded() -> None:
    groups = table_of(Kind.COUNT, pa.int64(), pa.int64(), groups_max=2)
    take(groups, pa.int64(), [("a", 1, 1), ("b", 1, 1)])
    with pytest.raises(TooLarge, match="more than 2 groups"):
        take(groups, pa.int64(), [("c", 1, 1)])


def test_distinct_values_are_bounded() -> None:
    groups = table_of(Kind.COUNT_DISTINCT, pa.int64(), pa.int64(), pairs_max=2)
    with pytest.raises(TooLarge, match="distinct values"):
        take(groups, pa.int64(), [("a", number, 1) for number in range(3)])


def test_a_slot_of_a_group_that_went_is_used_again_and_empty() -> None:
    groups = table_of(Kind.SUM, pa.float64(), pa.float64())
    take(groups, pa.float64(), [("a", 2.5, 1), ("a", NAN, 1)])
    take(groups, pa.float64(), [("a", 2.5, -1), ("a", NAN, -1)])
    gone = groups.gone(groups.all_slots())
    groups.forget(gone)
    take(groups, pa.float64(), [("b", 1.0, 1)])
    assert shown(groups) == {"b": 1.0}
    assert groups.all_slots().tolist() == gone.tolist()


FLOATS = st.sampled_from([0.0, -0.0, 1.5, -1e-300, 3e300, -3e300, 1e308, 5e-324, NAN, INF, -INF, 0.1]) | st.floats()
INTEGERS = st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 3)
CALLS = (
    KeptCall(Kind.COUNT_ROWS, None, pa.int64()),
    KeptCall(Kind.SUM, pa.float64(), pa.float64()),
    KeptCall(Kind.SUM, pa.int64(), pa.int64()),
    KeptCall(Kind.COUNT_DISTINCT, pa.float64(), pa.int64()),
    KeptCall(Kind.MAX, pa.float64(), pa.float64()),
    KeptCall(Kind.MIN, pa.int64(), pa.int64()),
)
ROWS = st.tuples(st.sampled_from(["a", "b", None]), st.none() | FLOATS, st.none() | INTEGERS)


def model(rows: Sequence[tuple[Any, Any, Any]]) -> dict[Any, tuple[Any, ...]]:
    """Every group of rows, added up anew."""
    groups: dict[Any, list[tuple[Any, Any]]] = {}
    for key, real, whole in rows:
        groups.setdefault(key, []).append((real, whole))
    return {
        key: (
            len(members),
            float_sum([real for real, _ in members if real is not None]),
            whole_sum([whole for _, whole in members if whole is not None]),
            len({"nan" if math.isnan(real) else real + 0.0 for real, _ in members if real is not None}),
            max(
                (real for real, _ in members if real is not None),
                key=lambda real: (math.isnan(real), real),
                default=None,
            ),
            min((whole for _, whole in members if whole is not None), default=None),
        )
        for key, members in groups.items()
    }


def float_sum(values: list[float]) -> Any:
    if any(map(math.isnan, values)) or (INF in values and -INF in values):
        return "nan"
    if INF in values or -INF in values:
        return INF if INF in values else -INF
    total = sum(map(Fraction, values))
    return None if not values else total


def whole_sum(values: list[int]) -> Any:
    return sum(values) if values else None


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(st.tuples(ROWS, st.booleans()), max_size=12), max_size=5), st.randoms(use_true_random=False))
def test_groups_are_those_of_the_rows_that_are_left(batches: list[list[tuple[Any, bool]]], chance: Any) -> None:
    groups = GroupTable([pa.string()], CALLS, 10)
    left: list[Any] = []
    for batch in batches:
        new = [row for row, _ in batch]
        gone = [left.pop(chance.randrange(len(left))) for _, goes in batch if goes and left]
        left += new
        groups.take(relation(new + gone), signs(new, gone))
        groups.forget(groups.gone(groups.all_slots()))
        if len(groups.stale):  # as if one more row had come since
            groups.remake(relation([*left, ("a", NAN, None), ("a", NAN, None)]), signs([*left, None], [None]))
    again = GroupTable([pa.string()], CALLS, 10)
    again.load(groups.dump(groups.all_slots()))
    for kept in (groups, again):
        check(kept, model(left))


WIDE_CALLS = (
    *CALLS[:4],
    replace(CALLS[4], column=1),
    CALLS[5],
    KeptCall(Kind.SUM, pa.decimal128(12, 2), pa.decimal128(22, 2)),
    KeptCall(Kind.SUM, WIDE, WIDE),
    KeptCall(Kind.AVG, pa.float32(), pa.float64()),
    KeptCall(Kind.MIN, pa.float32(), pa.float32(), 8),
    KeptCall(Kind.ALL, pa.bool_(), pa.bool_()),
    KeptCall(Kind.MAX, pa.string(), pa.string()),
    KeptCall(Kind.SUM, pa.int16(), pa.int64()),
)
DIGITS = st.decimals(-(10**9), 10**9, places=2)
MANY_DIGITS = DIGITS | st.just(Decimal(f"{ALL_NINES}.99")) | st.just(Decimal("0.01"))
SINGLES = st.sampled_from([0.0, -0.0, NAN, INF, -INF]) | st.floats(width=32)
WIDE_ROWS = st.tuples(
    st.sampled_from([0.0, -0.0, NAN, 1.5, None]),
    *(st.none() | values for values in (FLOATS, INTEGERS, DIGITS, MANY_DIGITS, SINGLES, st.booleans())),
    st.sampled_from(["", "é", "z", None]),
    st.none() | st.integers(-(2**15), 2**15 - 1),
)


def wide_relation(rows: list[Any]) -> pa.Table:
    """Rows of the rows text, by the columns that ``WIDE_CALLS`` gather."""
    kinds = [F8, F8, I8, pa.decimal128(12, 2), WIDE, pa.float32(), BOOL, TEXT, pa.int16()]
    places = {"_k0": 0, "_a1": 1, "_a2": 2, "_a3": 1, "_a4": 1, "_a5": 2}
    places |= {"_a6": 3, "_a7": 4, "_a8": 5, "_a9": 5, "_a10": 6, "_a11": 7, "_a12": 8}
    return pa.table({name: pa.array([row[at] for row in rows], kinds[at]) for name, at in places.items()})


def asked(rows: pa.Table) -> SessionContext:
    """DataFusion with these rows as those of the rows text."""
    ctx = SessionContext(SessionConfig().with_target_partitions(2))
    ctx.catalog().register_schema("_view", Schema.memory_schema())
    ctx.catalog().schema("_view").register_table("rows", ctx.from_arrow(rows).into_view())
    return ctx


def gathered(groups: GroupTable, rows: pa.Table, *, careful: bool = False) -> dict[int, int]:
    """Have DataFusion gather rows for groups; of how many rows something was left for each aggregate.

    The plain way gives place to the careful one where it has to.
    """
    ctx = asked(rows)
    gathering = groups.gathering(careful=careful)
    found = ctx.sql(gathering.groups_text()).to_arrow_table()
    if not gathering.is_exact(found):
        assert not careful
        return gathered(groups, rows, careful=True)
    rest = groups.merge(found)
    texts = [gathering.distinct_text(number) for number in gathering.distinct]
    for text in [*texts, *([gathering.rest_text(rest)] if rest else [])]:
        groups.complete(ctx.sql(text).to_arrow_table())
    return rest


@settings(max_examples=60, deadline=None)
@given(st.lists(WIDE_ROWS, max_size=30), st.data())
def test_groups_that_the_engine_gathers_are_those_of_the_rows_one_by_one(rows: list[Any], data: Any) -> None:
    one_by_one, together, careful = (GroupTable([F8], WIDE_CALLS, 10) for _ in range(3))
    one_by_one.take(wide_relation(rows))
    gathered(together, wide_relation(rows))
    gathered(careful, wide_relation(rows), careful=True)
    gone = data.draw(st.permutations(rows))
    for left in (len(rows), len(rows) // 2, 0):
        going, gone = gone[left:], gone[:left]
        for groups in (one_by_one, together, careful):
            groups.take(wide_relation(going), np.array([-1] * len(going), np.int64))
            groups.forget(groups.gone(groups.all_slots()))
        assert told(together) == told(careful) == told(one_by_one)


def told(groups: GroupTable) -> dict[str, str]:
    """All that groups show, by their keys, of which those are told apart that are not right for now."""
    slots = groups.all_slots()
    values = groups.values(slots)
    names = {slot: repr(key) for slot, key in zip(slots.tolist(), groups.keys_of(slots), strict=True)}
    found = {names[row.pop("kalam_place")]: repr(row) for row in values.rows.to_pylist()}
    stale = {names[slot]: "stale" for slot in groups.stale.tolist()}
    return found | {names[slot]: why for slot, why in values.failed.items()} | stale


@pytest.mark.parametrize(("digits", "scale"), [(1, 0), (1, 1), (4, 2), (10, 2), (18, 18), (28, 0), (28, 28), (38, 38)])
def test_an_engine_gathers_sums_of_decimals_of_every_size(digits: int, scale: int) -> None:
    kind, most, least = pa.decimal128(digits, scale), Decimal((0, (9,) * digits, -scale)), Decimal((0, (1,), -scale))
    total, mean = pa.decimal128(min(38, digits + 10), scale), pa.decimal128(min(38, digits + 4), min(38, scale + 4))
    calls = [KeptCall(Kind.SUM, kind, total), KeptCall(Kind.AVG, kind, mean)]
    together, one_by_one = (GroupTable([TEXT], calls, 9) for _ in range(2))
    values = [most, most, most.copy_negate(), None, None, least]
    rows = pa.table({"_k0": list("aaabbb"), **{f"_a{place}": pa.array(values, kind) for place in range(2)}})
    nothing = rows.slice(3, 1)  # a group of which every value is NULL
    for part in (rows, nothing.set_column(0, "_k0", [["c"]])):
        gathered(together, part)
        one_by_one.take(part)
    assert told(together) == told(one_by_one)
    sums = {row["_k0"]: row["_v0"] for row in together.values(together.all_slots()).rows.to_pylist()}
    assert sums == {"a": most, "b": least, "c": None}


PLAIN = st.sampled_from([0.0, -0.0, 0.1, -1e-6, 2e11, 2.0**-23, 123456.789]) | st.floats(-1e9, 1e9).map(
    lambda value: round(value, 3)
)
ODD = [NAN, -NAN, INF, -INF, 2.0**44, -1e300, 1.7976931348623157e308, 5e-324, 1e-30]
SHARED_CALLS = (
    KeptCall(Kind.AVG, F8, F8),
    KeptCall(Kind.MAX, F8, F8, 0),
    KeptCall(Kind.MIN, F8, F8, 0),
    KeptCall(Kind.SUM, F8, F8, 0),
    KeptCall(Kind.COUNT, F8, I8, 0),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.none() | PLAIN), max_size=30), st.none() | st.sampled_from(ODD))
def test_plain_doubles_are_gathered_plainly_and_one_odd_one_is_seen(rows: list[Any], odd: float | None) -> None:
    rows = rows if odd is None else [*rows, (0, odd)]
    columns = {"_k0": pa.array([key for key, _ in rows], I8)}
    columns |= {f"_a{number}": pa.array([value for _, value in rows], F8) for number in range(len(SHARED_CALLS))}
    for calls in (SHARED_CALLS, SHARED_CALLS[1:2], SHARED_CALLS[2:3], [replace(SHARED_CALLS[3], column=None)]):
        one_by_one, together = (GroupTable([I8], calls, 10) for _ in range(2))
        one_by_one.take(pa.table(columns))
        gathering = together.gathering()
        found = asked(pa.table(columns)).sql(gathering.groups_text()).to_arrow_table()
        if odd is None:
            assert gathering.is_exact(found)
        elif not math.isfinite(odd) or len(calls) > 1:
            assert not gathering.is_exact(found)
        gathered(together, pa.table(columns))
        assert told(together) == told(one_by_one)


@pytest.mark.parametrize("careful", [False, True])
def test_an_engine_gathers_sums_of_doubles_exactly_and_few_of_them_one_by_one(*, careful: bool) -> None:
    groups = GroupTable([], [KeptCall(Kind.SUM, F8, F8)], 1)
    values = [0.1, -1e-5, 123456.789, 4e8, -3.5] * 2_000
    assert gathered(groups, pa.table({"_a0": values}), careful=careful) == {}
    assert groups.values(groups.all_slots()).rows["_v0"].to_pylist() == [float(sum(map(Fraction, values)))]
    assert gathered(groups, pa.table({"_a0": [NAN, 1e300, 5e-324, -INF, 0.0, None]})) == {
        0: 4
    }  # the sum of the others is exact as it is gathered
    assert math.isnan(groups.values(groups.all_slots()).rows["_v0"][0].as_py())


def test_sums_of_doubles_of_very_many_rows_need_whole_numbers() -> None:
    size = pa.table({"_n": [5, ROWS_MAX + 1], "_c0_0": [5, ROWS_MAX + 1], "_c0_1": [5.0, None], "_c0_2": [0.0, None]})
    sums = GroupTable([], [KeptCall(Kind.AVG, F8, F8)], 1)
    assert not sums.gathering().is_exact(size)
    assert sums.gathering().is_exact(size.slice(0, 1))
    assert sums.gathering(careful=True).is_exact(size)
    assert GroupTable([], [KeptCall(Kind.SUM, I8, I8)], 1).gathering().is_exact(size)


def relation(rows: list[Any]) -> pa.Table:
    columns = {"_k0": (0, pa.string()), "_a1": (1, pa.float64()), "_a2": (2, pa.int64())}
    columns |= {"_a3": columns["_a1"], "_a4": columns["_a1"], "_a5": columns["_a2"]}
    return pa.table({name: pa.array([row[place] for row in rows], kind) for name, (place, kind) in columns.items()})


def signs(new: list[Any], gone: list[Any]) -> Any:
    return np.array([1] * len(new) + [-1] * len(gone), np.int64)


def check(groups: GroupTable, expected: dict[Any, tuple[Any, ...]]) -> None:
    values = groups.values(groups.all_slots())
    found = {row["_k0"]: row for row in values.rows.to_pylist()}
    failed = {groups.keys_of(np.array([slot]))[0][0] for slot in values.failed}
    assert found.keys() | failed == expected.keys()
    for key, (number, real, whole, distinct, most, least) in expected.items():
        is_out = isinstance(real, Fraction) and abs(real) >= 2**1024 - 2**969
        if is_out or (whole is not None and not -(2**63) <= whole < 2**63):
            assert key in failed
            continue
        row = found[key]
        assert (row["_v0"], row["_v2"], row["_v3"], row["_v5"]) == (number, whole, distinct, least)
        assert row["_v4"] == most or (math.isnan(row["_v4"]) and math.isnan(most))
        if isinstance(real, Fraction):
            assert row["_v1"] == pytest.approx(float(real), rel=4e-16, abs=0)
            assert row["_v1"] == float(real) or Fraction(float(real)) != real
        else:
            assert row["_v1"] == real or (real == "nan" and math.isnan(row["_v1"]))


def test_the_difference_of_two_results_is_what_changed() -> None:
    old = {1: (1, "a", NAN), 2: (2, "b", 0.0), 3: (3, "c", 1.0)}
    found = difference(old, [(1, "a", NAN), (3, "d", 1.0), (4, "e", None)], lambda row: row[0])
    assert (found.upserts, found.deletes) == ([(3, "d", 1.0), (4, "e", None)], [2])


def test_a_result_with_a_key_twice_is_refused_by_the_key() -> None:
    with pytest.raises(DuplicateKey, match="the key 1"):
        difference({}, [(1, "a"), (1, "b")], lambda row: row[0])


PARTS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.decimals(allow_nan=False)


@given(st.lists(st.lists(PARTS, max_size=3).map(tuple), max_size=5))
def test_many_hidden_keys_are_those_that_each_would_be(keys: list[tuple[Any, ...]]) -> None:
    assert hidden_keys(keys) == list(map(hidden_key, keys))
