"""The law of views: a view equals its SELECT, whatever changes its source, however it is kept."""

from __future__ import annotations

import itertools
import random
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from patience import PATIENCE_S
from server_process import ServerProcess

COLUMNS = """
    id BIGINT PRIMARY KEY, t TEXT, n INT, big BIGINT NOT NULL, f DOUBLE, g FLOAT, d DECIMAL(38,2), b BOOLEAN,
    ts TIMESTAMP NOT NULL
"""
# Sums of these are exact in whatever order.
FLOATS = ["0.0", "-0.0", "1.5", "-2.25", "CAST('NaN' AS DOUBLE)", "NULL", "1024"]
# A view of each name, kept by its groups.
AGGREGATING = """
by_text: SELECT t, count(*) AS n, sum(n) AS total, min(f) AS low, max(f) AS high FROM lab.src GROUP BY t
by_minute: SELECT date_bin(INTERVAL '1 minute', ts) AS minute, b, count(n) AS n, sum(d) AS total, avg(d) AS mean
    FROM lab.src GROUP BY 1, 2
by_float: SELECT f, count(DISTINCT t) AS kinds, bool_and(b) AS every, bool_or(b) AS any_of FROM lab.src GROUP BY f
one: SELECT count(*) AS n, sum(big) AS total, avg(big) AS mean, max(t) AS last, avg(f) AS floats FROM lab.src
filtered: SELECT t, count(*) FILTER (WHERE b) AS truths, sum(g) FILTER (WHERE n > 0) AS above
    FROM lab.src WHERE n IS NOT NULL GROUP BY t
of_two: SELECT n, max(big) - min(big) AS spread, upper(coalesce(max(t), '-')) AS name
    FROM lab.src GROUP BY n HAVING count(*) > 1 AND n IS DISTINCT FROM 2
hops: SELECT unnest(make_array(date_bin(INTERVAL '2 minutes', ts), date_bin(INTERVAL '2 minutes', ts) - INTERVAL
    '1 minute')) AS w, count(*) AS n FROM lab.src GROUP BY 1
by_rest: SELECT big % 3 AS rest, CASE WHEN sum(n) > 0 THEN avg(f) END AS mean FROM lab.src GROUP BY big % 3
"""
# And by running it again.
RERUN = """
again: SELECT t, count(*) AS n, sum(n) AS total, min(f) AS low, max(f) AS high FROM lab.src GROUP BY t
top: SELECT id, f FROM lab.src WHERE n > 0 ORDER BY f DESC NULLS LAST, id LIMIT 3
joined: SELECT a.id, b.n FROM lab.src a JOIN lab.src b ON a.id = b.id + 1
ranked: SELECT id, rank() OVER (PARTITION BY t ORDER BY big) AS place FROM lab.src
"""
OVER_A_VIEW = """
above: SELECT n, count(*) AS groups, max(total) AS most FROM lab.by_text GROUP BY n
"""
OPTIONS = {"again": ", maintain = 'rerun'", "joined": ", key = 'id'"}
HIDING = " EXCEPT (_updated, _deleted)"


def views(text: str) -> dict[str, str]:
    """The SELECTs by the names of their views."""
    listed = re.findall(r"^(\w+): (.*(?:\n .*)*)", text, re.MULTILINE)
    return {name: " ".join(query.split()) for name, query in listed}


KEPT = views(AGGREGATING) | views(OVER_A_VIEW)


@pytest.fixture(scope="module")
def lab(shared_server: ServerProcess) -> ServerProcess:
    """A table, with a view of each shape over it, and one over a view."""
    make(shared_server)
    return shared_server


def make(server: ServerProcess) -> None:
    server.sql(f"CREATE NAMESPACE lab; CREATE SHARED TABLE lab.src ({COLUMNS})")
    make_views(server, KEPT)


def make_views(server: ServerProcess, queries: Mapping[str, str]) -> None:
    for name, query in queries.items():
        options = f"refresh = '0'{OPTIONS.get(name, '')}"
        server.sql(f"CREATE MATERIALIZED VIEW lab.{name} WITH ({options}) AS {query}")


def shown(rows: list[list[Any]]) -> list[str]:
    # The two zeros are one.
    return sorted(repr([0.0 if value == 0 and isinstance(value, float) else value for value in row]) for row in rows)


def wait_equal(server: ServerProcess, view: str, query: str, namespace: str = "lab") -> None:
    """Wait until a view shows what its SELECT does."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        found = shown(server.sql(f"SELECT *{HIDING} FROM {namespace}.{view}"))
        expected = shown(server.sql(query))
        if found == expected:
            return
        assert time.monotonic() < deadline, f"{view} {server.sql('SHOW VIEWS')}: {found} is not {expected}"
        time.sleep(0.02)


def check(server: ServerProcess, queries: Mapping[str, str] = KEPT) -> None:
    for name, query in queries.items():
        wait_equal(server, name, query)


def row(dice: random.Random, number: int) -> str:
    text = dice.choice(["'a'", "'b'", "''", "'ä'", "NULL"])
    whole = dice.choice(["0", "1", "-1", "2", "7", "NULL"])
    big = dice.choice([str(2**50), str(-(2**50)), "3", "4", "5"])
    amount = dice.choice(["0.10", "1.00", "-3.25", f"{'9' * 18}.99", "NULL"])
    when = f"'2026-01-01T00:{dice.randrange(6):02d}:{dice.randrange(60):02d}Z'"
    truth = dice.choice(["true", "false", "NULL"])
    real, single = dice.choice(FLOATS), dice.choice(["0.5", "-1.25", "NULL"])
    return f"({number}, {text}, {whole}, {big}, {real}, {single}, {amount}, {truth}, {when})"


def change(dice: random.Random) -> str:
    """A random statement that changes some rows of some sixty."""
    condition = dice.choice(["id % 5 = {}", "n = {}", "id < {}", "length(t) = {}"]).format(dice.randrange(5))
    match dice.randrange(6):
        case 0 | 1:
            rows = ", ".join(row(dice, number) for number in dice.sample(range(60), dice.randrange(1, 15)))
            return f"INSERT INTO lab.src VALUES {rows} ON CONFLICT (id) DO UPDATE SET " + ", ".join(
                f"{column} = excluded.{column}" for column in ("t", "n", "big", "f", "g", "d", "b", "ts")
            )
        case 2:
            column, value = dice.choice(
                [("f", "f * 2"), ("n", "n + 1"), ("t", "'a'"), ("d", "d - 0.01"), ("b", "NOT b"), ("f", "NULL")]
            )
            return f"UPDATE lab.src SET {column} = {value} WHERE {condition}"
        case 3:
            return f"UPDATE lab.src SET ts = '2026-01-01T00:01:00Z', big = 1 WHERE {condition}"
        case 4:
            return f"DELETE FROM lab.src WHERE {condition}"
    return dice.choice(["FLUSH TABLE lab.src", "FLUSH TABLE lab.by_text", "COMPACT TABLE lab.src"])


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 2**32), min_size=1, max_size=8))
def test_a_view_equals_its_select(lab: ServerProcess, seeds: list[int]) -> None:
    for seed in seeds:
        lab.sql(change(random.Random(seed)))
    check(lab)


def test_views_over_one_table_equal_their_selects_wherever_each_of_them_stands(shared_server: ServerProcess) -> None:
    """Some take every commit and some wait, one stops, one fails on rows, one leaves and one comes meanwhile."""
    server = shared_server
    server.sql(f"CREATE NAMESPACE many; CREATE SHARED TABLE many.src ({COLUMNS})")
    queries = {name: query.replace("lab.", "many.") for name, query in views(AGGREGATING).items()}
    queries["rows"] = "SELECT id, upper(t) AS t, n FROM many.src WHERE b"
    dice = random.Random(11)

    def change_some(times: int) -> None:
        for _ in range(times):
            server.sql(change(dice).replace("lab.", "many."))

    def make_view(name: str, options: str, query: str) -> None:
        server.sql(f"CREATE MATERIALIZED VIEW many.{name} WITH ({options}) AS {query}")

    change_some(2)
    for name, refresh in zip(queries, itertools.cycle(["0", "20ms", "300ms", "300ms"])):
        make_view(name, f"refresh = '{refresh}'", queries[name])
    make_view("leaves", "refresh = '20ms'", queries["by_text"])
    make_view("stops", "refresh = '0', key = 't'", "SELECT t, id FROM many.src WHERE t IS NOT NULL")
    make_view("fails", "refresh = '0'", "SELECT id, 1 / (n - 7) AS part FROM many.src")
    change_some(4)
    server.sql("DROP MATERIALIZED VIEW many.leaves")
    server.sql("INSERT INTO many.src VALUES (100, 'x', 7, 1, 0, 0, 0, true, '2026-01-01T00:00:00Z')")
    server.sql("INSERT INTO many.src VALUES (101, 'x', 8, 1, 0, 0, 0, true, '2026-01-01T00:00:00Z')")
    make_view("comes", "refresh = '20ms'", queries["by_text"])
    change_some(4)
    queries["comes"] = queries["by_text"]
    queries["fails"] = (
        "SELECT id, CASE WHEN n <> 7 THEN 1 / (n - 7) END AS part FROM many.src WHERE n IS DISTINCT FROM 7"
    )
    for name, query in queries.items():
        wait_equal(server, name, query, "many")
    kept = dict(server.sql("SELECT view_name, state FROM system.views WHERE namespace = 'many'"))
    assert kept == dict.fromkeys(queries, "running") | {"stops": "stopped"}


def test_a_view_equals_its_select_after_kills_and_restarts(start_kalam: Callable[..., ServerProcess]) -> None:
    server = start_kalam()
    make(server)
    dice = random.Random(5)
    for _ in range(3):
        for _ in range(4):
            server.sql(change(dice))
        server.kill()
        server.restart()
        server.sql(change(dice))
        check(server)
    server.sql("; ".join(f"REFRESH MATERIALIZED VIEW lab.{name}" for name in KEPT))
    check(server)


def test_every_shape_is_kept_as_it_is_to_be_and_running_again_comes_to_the_same(lab: ServerProcess) -> None:
    again = views(RERUN)
    make_views(lab, again)
    hows = dict(lab.sql("SELECT view_name, how FROM system.views WHERE namespace = 'lab'"))
    assert hows == dict.fromkeys(KEPT, "aggregating") | dict.fromkeys(again, "re-run")
    dice = random.Random(7)
    for _ in range(5):
        lab.sql(change(dice))
    check(lab, again)
