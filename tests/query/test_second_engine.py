"""What DataFusion has no plan for is answered as SQLite answers it, or refused as before; never otherwise."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from kalam.errors import InvalidValue, KalamError, TooLarge, Unsupported
from kalam.query.wire import Ask, Bound, Rows
from kalam.query.worker.faults import explain
from kalam.query.worker.limits import Limits
from kalam.query.worker.planning import Planner
from kalam.query.worker.second_engine import rows_of

BIGGEST = (1 << 63) - 1
COUNTED = "(SELECT count(*) FROM t1 AS x WHERE x.b < t1.b)"
THERE = "EXISTS (SELECT 1 FROM t1 AS x WHERE x.b < t1.b)"
VALUES = (
    "a",
    "b",
    "a+b*2",
    "a+b*2+c*3",
    "a+b*2+c*3+d*4+e*5",
    "(a+b+c+d+e)/5",
    "a-b",
    "abs(b-c)",
    "-a % 7",
    "coalesce(a, b, c, d, e)",
    "CASE WHEN c>(SELECT avg(c) FROM t1) THEN a*2 ELSE b*10 END",
    "CASE WHEN a<b-3 THEN 111 WHEN a<=b THEN 222 WHEN a<b+3 THEN 333 ELSE 444 END",
    "CASE a+1 WHEN b THEN 111 WHEN c THEN 222 WHEN d THEN 333 WHEN e THEN 444 ELSE 555 END",
)
SUB_QUERIES = (
    "(SELECT sum(x.a) FROM t1 AS x WHERE x.c > t1.d)",
    "(SELECT max(x.a) - min(x.e) FROM t1 AS x WHERE x.c <> t1.c)",
    f"CASE WHEN {THERE} THEN 1 ELSE 2 END",
    COUNTED,
)
CONDITIONS = (
    "c > (SELECT avg(c) FROM t1)",
    "c BETWEEN b-2 AND d+2",
    "d NOT BETWEEN 110 AND 150",
    "e+d BETWEEN a+b-10 AND c+130",
    "(a>b-2 AND a<b+2)",
    "(e>c OR e<d)",
    "a IS NULL",
    "b IS NOT NULL",
    "a IN (SELECT x.b + 1 FROM t1 AS x WHERE x.c > t1.c)",
    "b NOT IN (101, 107, 112)",
    THERE,
    f"NOT {THERE}",
    f"{COUNTED} > 10",
)


def rows_like(chance: random.Random, *, nulls: bool) -> list[tuple[int | None, ...]]:
    """Thirty rows, each with five neighbouring numbers in any order."""
    rows: list[tuple[int | None, ...]] = []
    for first in range(100, 250, 5):
        row: list[int | None] = list(range(first, first + 5))
        chance.shuffle(row)
        rows.append(tuple(None if nulls and chance.random() < 0.15 else value for value in row))
    return rows


def random_query(chance: random.Random) -> str:
    shown = [*chance.sample(VALUES, chance.randint(1, 4)), chance.choice(SUB_QUERIES)]
    chance.shuffle(shown)
    conditions = chance.sample(CONDITIONS, chance.randint(0, 3))
    where = f" WHERE {chance.choice([' AND ', ' OR ']).join(conditions)}" if conditions else ""
    order = ",".join(map(str, chance.sample(range(1, len(shown) + 1), len(shown))))
    distinct = chance.choice(["", "", "DISTINCT "])
    return f"SELECT {distinct}{', '.join(shown)} FROM t1{where} ORDER BY {order}"


Answer = Callable[..., list[tuple[Any, ...]]]


def engine(table: pa.Table, memory_bytes: int = 256 << 20) -> Answer:
    limits = Limits(memory_bytes=memory_bytes, partitions=2)
    planner = Planner(limits)
    planner.frames.take_rows(1, table)
    planner.frames.take(Rows(2, table.schema.serialize().to_pybytes(), [1]))

    def answer(text: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        bound = text.replace("FROM t1", 'FROM "app"."t1"')
        ask = Ask(text=bound, bound=[Bound("app", "t1", 2)], parameters=list(parameters))
        try:
            planned = planner.plan(ask)
            told = [field.type for field in planned.frame.schema()]
            batches = list(rows_of(ask, planned, limits))
        except KalamError:
            raise
        except Exception as exc:
            raise explain(exc) from exc
        assert all([field.type for field in batch.schema] == told for batch in batches)
        return [tuple(row.values()) for batch in batches for row in _named(batch).to_pylist()]

    return answer


def _named(batch: pa.RecordBatch) -> pa.RecordBatch:
    return batch.rename_columns([str(place) for place in range(batch.num_columns)])


def numbers(rows: Sequence[Sequence[int | None]]) -> pa.Table:
    return pa.table(
        {name: pa.array(column, pa.int32()) for name, column in zip("abcde", zip(*rows, strict=True), strict=True)}
    )


@pytest.mark.parametrize("nulls", [False, True], ids=["numbers", "nulls"])
def test_random_queries_mean_the_same_as_in_sqlite(nulls: bool) -> None:
    chance = random.Random(17)
    rows = rows_like(chance, nulls=nulls)
    sqlite = sqlite3.connect(":memory:")
    sqlite.execute("CREATE TABLE t1 (a INTEGER, b INTEGER, c INTEGER, d INTEGER, e INTEGER)")
    sqlite.executemany("INSERT INTO t1 VALUES (?,?,?,?,?)", rows)
    answer = engine(numbers(rows))
    for query in [random_query(chance) for _ in range(80)]:
        assert sorted(answer(query), key=repr) == sorted(sqlite.execute(query).fetchall(), key=repr), query
    sqlite.close()


@pytest.fixture(scope="module")
def answer() -> Answer:
    return engine(
        pa.table(
            {
                "a": pa.array([1, 2, 3, None], pa.int32()),
                "b": pa.array([BIGGEST, 5, 4, None], pa.int64()),
                "s": pa.array(["b", "B", "é", None]),
                "f": pa.array([1.5, 2.5, -0.0, None]),
            }
        )
    )


LESS = "(SELECT count(*) FROM t1 AS x WHERE x.a < t1.a)"


def test_null_is_last_ascending_and_first_descending(answer: Answer) -> None:
    assert answer(f"SELECT a, {LESS} FROM t1 ORDER BY a") == [(1, 0), (2, 1), (3, 2), (None, 0)]
    assert answer(f"SELECT a, {LESS} FROM t1 ORDER BY a DESC LIMIT 2") == [(None, 0), (3, 2)]


def test_texts_are_compared_by_their_bytes(answer: Answer) -> None:
    before = "(SELECT count(*) FROM t1 AS x WHERE x.s < t1.s)"
    assert answer(f"SELECT s, {before} FROM t1 WHERE s >= 'B' ORDER BY s") == [("B", 0), ("b", 1), ("é", 2)]


def test_parameters_and_columns_that_are_only_shown_take_part(answer: Answer) -> None:
    assert answer(f"SELECT a + $1, {LESS} FROM t1 WHERE s = $2", [10, "é"]) == [(13, 2)]
    assert answer(f"SELECT *, {LESS} FROM t1 WHERE a = 2") == [(2, 5, "B", 2.5, 1)]


@pytest.mark.parametrize(
    "text",
    [
        f"SELECT b + 1, {LESS} FROM t1",
        f"SELECT sum(b) + {BIGGEST}, max({LESS}) FROM t1",
    ],
)
def test_numbers_do_not_leave_64_bits(answer: Answer, text: str) -> None:
    with pytest.raises((InvalidValue, Unsupported)):
        answer(text)


@pytest.mark.parametrize(
    "text",
    [
        f"SELECT 1 / (a - 1), {LESS} FROM t1",
        f"SELECT a / 0, {LESS} FROM t1",
        f"SELECT f + 1, {LESS} FROM t1",
        f"SELECT upper(s), {LESS} FROM t1",
        f"SELECT CAST(s AS INT), {LESS} FROM t1",
        f"SELECT a > '2', {LESS} FROM t1",
        f"SELECT a AS b, b - 1, {LESS} FROM t1",
        f"SELECT a + 0.5, {LESS} FROM t1",
        "SELECT (SELECT sum(t1.a) FROM t1 AS x WHERE x.a < t1.a) FROM t1",
        f"SELECT a, {LESS} FROM t1 ORDER BY (1)",
        f"SELECT a * (SELECT avg(a) FROM t1), {LESS} FROM t1",
        f"SELECT random(), {LESS} FROM t1",
        f"SELECT sum(a) OVER (), {LESS} FROM t1",
    ],
)
def test_what_the_engines_may_read_otherwise_stays_refused(answer: Answer, text: str) -> None:
    with pytest.raises(Unsupported, match="Physical plan does not support"):
        answer(text)


def test_an_engine_that_is_refused_everything_reads_no_file(answer: Answer, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a\n1\n")
    with pytest.raises(KalamError):
        answer(f"SELECT {LESS} FROM t1, '{tmp_path / 'x.csv'}' AS y")


def test_a_query_past_its_memory_is_told_so() -> None:
    wide = engine(
        pa.table({"a": pa.array(range(400_000), pa.int32()), "b": pa.array(range(400_000), pa.int64())}), 4 << 20
    )
    with pytest.raises(TooLarge, match="memory"):
        wide("SELECT a, (SELECT count(*) FROM t1 AS x WHERE x.b < t1.b) FROM t1")
