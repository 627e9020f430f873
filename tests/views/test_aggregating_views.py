"""Views of aggregates and views that are run again, as a user meets them: sources, bounds, errors, refusals."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest
from patience import PATIENCE_S
from server_process import ServerProcess, SqlFailed

numbers = count(1)


class Space:
    """A namespace of a test's own in which views are made."""

    def __init__(self, server: ServerProcess) -> None:
        self.server, self.name = server, f"space{next(numbers)}"
        server.sql(f"CREATE NAMESPACE {self.name}")

    def sql(self, text: str) -> Any:
        return self.server.sql(text, namespace=self.name)

    def view(self, query: str, options: str = "refresh = '0'", name: str = "v") -> None:
        self.sql(f"CREATE MATERIALIZED VIEW {name} WITH ({options}) AS {query}")

    def rows(self, name: str = "v") -> list[list[Any]]:
        return sorted(self.sql(f"SELECT * EXCEPT (_updated, _deleted) FROM {name}"), key=repr)

    def wait_rows(self, rows: list[list[Any]], name: str = "v") -> None:
        deadline = time.monotonic() + PATIENCE_S
        while (found := self.rows(name)) != rows:
            assert time.monotonic() < deadline, f"{found} is not {rows}: {self.state('state, reason')}"
            time.sleep(0.01)

    def state(self, columns: str) -> list[Any]:
        [row] = self.sql(f"SELECT {columns} FROM system.views WHERE namespace = '{self.name}'")
        return list(row)

    def wait_state(self, columns: str, wanted: Callable[[list[Any]], bool]) -> list[Any]:
        deadline = time.monotonic() + PATIENCE_S
        while not wanted(found := self.state(columns)):
            assert time.monotonic() < deadline, found
            time.sleep(0.01)
        return found


@pytest.fixture
def space(shared_server: ServerProcess) -> Iterator[Space]:
    found = Space(shared_server)
    yield found
    shared_server.sql(f"DROP NAMESPACE {found.name} CASCADE")


def test_what_a_stream_evicts_stays_counted(space: Space) -> None:
    space.sql("CREATE STREAM TABLE s (k TEXT, v DOUBLE) WITH (max_buffer = 5)")
    space.sql("INSERT INTO s VALUES ('a', 1)")
    space.view("SELECT k, count(*) AS n, sum(v) AS total, max(v) AS top, count(DISTINCT v) AS kinds FROM s GROUP BY k")
    for value in range(2, 31):
        space.sql(f"INSERT INTO s VALUES ('a', {value})")
    space.wait_rows([["a", 30, 465.0, 30.0, 30]])
    assert space.sql("SELECT count(*) FROM s")[0][0] < 30


def test_a_sum_out_of_range_leaves_out_its_group_until_it_is_right_again(space: Space) -> None:
    space.sql("CREATE SHARED TABLE t (id BIGINT PRIMARY KEY, k TEXT NOT NULL, v BIGINT)")
    space.sql("INSERT INTO t VALUES (1, 'a', 9223372036854775807), (2, 'b', 1)")
    space.view("SELECT k, sum(v) AS total FROM t GROUP BY k")
    space.sql("INSERT INTO t VALUES (3, 'a', 1)")
    space.wait_rows([["b", 1]])
    assert space.state("state, failed") == ["running", 1]
    space.sql("INSERT INTO t VALUES (4, 'a', -1)")
    space.wait_rows([["a", 9223372036854775807], ["b", 1]])


def test_a_row_on_which_an_expression_fails_is_left_out_and_counted(space: Space) -> None:
    space.sql("CREATE SHARED TABLE t (id BIGINT PRIMARY KEY, k BIGINT NOT NULL, v BIGINT NOT NULL)")
    space.sql("INSERT INTO t VALUES (1, 1, 5), (2, 1, 0)")
    space.view("SELECT k, sum(10 / v) AS total, 6 / count(*) AS share FROM t GROUP BY k")
    assert space.rows() == [[1, 2, 6]]
    space.sql("INSERT INTO t VALUES (3, 1, 2), (4, 1, 0), (5, 2, 10)")
    space.wait_rows([[1, 7, 3], [2, 1, 6]])
    assert space.state("failed") == [2]
    space.sql("UPDATE t SET v = 10 WHERE v = 0")
    space.wait_rows([[1, 9, 1], [2, 1, 6]])


def test_a_greatest_value_that_goes_is_found_among_the_others(space: Space) -> None:
    space.sql("CREATE SHARED TABLE t (id BIGINT PRIMARY KEY, k TEXT, v BIGINT)")
    space.sql("INSERT INTO t VALUES " + ", ".join(f"({n}, '{n % 2}', {n})" for n in range(40)))
    space.view("SELECT k, max(v) AS top, min(v) AS low FROM t GROUP BY k")
    space.sql("FLUSH TABLE t")
    space.sql("DELETE FROM t WHERE id > 35")
    space.sql("UPDATE t SET v = 20 WHERE id = 1")
    space.wait_rows([["0", 34, 0], ["1", 35, 3]])
    space.sql("DELETE FROM t WHERE k = '1'")
    space.wait_rows([["0", 34, 0]])


@pytest.mark.parametrize(
    "query", ["SELECT k, sum(v) AS total, max(v) AS top FROM t GROUP BY k", "SELECT count(*) AS n FROM t"]
)
def test_columns_that_leave_a_source_and_come_to_it_change_no_groups(space: Space, query: str) -> None:
    space.sql("CREATE SHARED TABLE t (x BIGINT, y TEXT, id BIGINT PRIMARY KEY, k BIGINT, v BIGINT)")
    space.sql("INSERT INTO t VALUES (7, 'a', 1, 1, 10), (8, 'b', 2, 1, 20), (9, 'c', 3, 2, 30)")
    space.view(query)
    space.wait_rows(space.sql(f"{query} ORDER BY 1"))
    space.sql("ALTER TABLE t DROP COLUMN x; INSERT INTO t VALUES ('d', 4, 2, 40), ('e', 5, 3, 50)")
    space.wait_rows(space.sql(f"{query} ORDER BY 1"))
    space.sql("ALTER TABLE t DROP COLUMN y; ALTER TABLE t ADD COLUMN z BIGINT; DELETE FROM t WHERE id IN (2, 4)")
    space.wait_rows(space.sql(f"{query} ORDER BY 1"))
    assert space.state("state, failed") == ["running", 0]


@pytest.mark.parametrize("kind", ["DECIMAL(2,1)", "DECIMAL(10,2)", "DECIMAL(18,6)", "DECIMAL(38,4)"])
def test_a_view_of_decimals_is_made_of_rows_that_are_there(space: Space, kind: str) -> None:
    space.sql(f"CREATE SHARED TABLE t (id BIGINT PRIMARY KEY, k BIGINT, v {kind})")
    space.sql("INSERT INTO t VALUES (1, 1, 1.5), (2, 1, -0.5), (3, 2, NULL), (4, 3, 9.9)")
    query = "SELECT k, sum(v) AS total, avg(v) AS mean, min(v) AS low, count(DISTINCT v) AS n FROM t GROUP BY k"
    space.view(query)
    space.wait_rows(sorted(space.sql(query), key=repr))
    space.sql("UPDATE t SET v = 0.1 WHERE id = 3; REFRESH MATERIALIZED VIEW v")
    assert space.rows() == sorted(space.sql(query), key=repr)


def test_a_refresh_of_a_view_whose_select_fails_says_why_and_the_view_goes_on_later(space: Space) -> None:
    space.sql("CREATE SHARED TABLE t (id BIGINT PRIMARY KEY, v BIGINT); INSERT INTO t VALUES (1, 5)")
    space.view("SELECT id, 10 / v AS part FROM t ORDER BY id LIMIT 5", "refresh = '0', key = 'id'")
    space.wait_rows([[1, 2]])
    space.sql("INSERT INTO t VALUES (2, 0)")
    with pytest.raises(SqlFailed, match="Divide by zero") as refused:
        space.sql("REFRESH MATERIALIZED VIEW v")
    assert refused.value.code == "too_busy"
    space.sql("DELETE FROM t WHERE id = 2")
    space.wait_state("state", lambda row: row == ["running"])
    space.wait_rows([[1, 2]])


def test_refreshes_that_are_asked_for_together_are_all_done(space: Space) -> None:
    space.sql("CREATE SHARED TABLE t (id BIGINT PRIMARY KEY, k BIGINT NOT NULL)")
    space.sql("INSERT INTO t SELECT value, value % 9000 FROM range(0, 20000)")
    query = "SELECT k, count(*) AS n FROM t GROUP BY k"
    space.view(query)
    space.wait_state("state", lambda row: row == ["running"])
    answers: list[Any] = []

    def refresh() -> None:
        try:
            answers.append(space.sql("REFRESH MATERIALIZED VIEW v"))
        except SqlFailed as exc:
            answers.append(exc)

    together = [threading.Thread(target=refresh) for _ in range(4)]
    for each in together:
        each.start()
    for each in together:
        each.join()
    assert answers == 4 * [f"materialized view {space.name}.v filled anew"]
    assert space.rows() == sorted(space.sql(query), key=repr)


def test_a_view_that_is_refreshed_again_and_again_while_rows_come_and_go_is_its_select(space: Space) -> None:
    space.sql("CREATE SHARED TABLE t (id BIGINT PRIMARY KEY, k BIGINT NOT NULL, v DOUBLE)")
    space.sql("INSERT INTO t SELECT value, value % 7, value / 8.0 FROM range(1, 500)")
    query = "SELECT k, count(*) AS n, sum(v) AS total, max(v) AS top FROM t GROUP BY k"
    space.view(query)
    failed: list[SqlFailed] = []

    def write() -> None:
        try:
            for start in range(500, 1_500, 50):
                space.sql(f"INSERT INTO t SELECT value, value % 9, value / 8.0 FROM range({start}, {start + 50})")
                space.sql(f"DELETE FROM t WHERE id >= {start + 25} AND id < {start + 50}")
        except SqlFailed as exc:
            failed.append(exc)

    writing = threading.Thread(target=write)
    writing.start()
    while writing.is_alive():
        space.sql("REFRESH MATERIALIZED VIEW v")
    writing.join()
    assert not failed
    space.wait_rows(sorted(space.sql(query), key=repr))
    space.sql("DELETE FROM t WHERE k >= 5; REFRESH MATERIALIZED VIEW v")
    assert space.rows() == sorted(space.sql(query), key=repr)
    space.sql("DELETE FROM t WHERE id > 1000")  # what it goes on from is what it was filled with
    space.wait_rows(sorted(space.sql(query), key=repr))
    assert space.state("state, failed") == ["running", 0]


def test_group_columns_that_are_not_null_are_the_key_and_others_a_hidden_one(space: Space) -> None:
    space.sql("CREATE SHARED TABLE t (id BIGINT PRIMARY KEY, k TEXT NOT NULL, o TEXT, at TIMESTAMP NOT NULL)")
    space.sql("INSERT INTO t VALUES (1, 'a', NULL, '2026-01-01T00:00:30Z')")
    space.view(
        "SELECT date_bin(INTERVAL '1 minute', at) AS minute, k, count(*) AS n FROM t GROUP BY 1, 2", name="named"
    )
    space.view("SELECT o, count(*) AS n FROM t GROUP BY o", name="hidden")
    space.view("SELECT count(*) AS n FROM t", name="one")
    columns = f"FROM system.columns WHERE namespace = '{space.name}' AND key_ordinal IS NOT NULL"
    found = space.sql(f"SELECT table_name, column_name {columns} AND table_name <> 't' ORDER BY 1, key_ordinal")
    assert [row for row in found if row[0] == "named"] == [["named", "minute"], ["named", "k"]]
    assert space.rows("hidden") == [[None, 1]]
    assert space.sql("SELECT _key, n FROM hidden") == [["[null]", 1]]
    assert space.sql("SELECT _key, n FROM one") == [["[]", 1]]


def test_groups_whose_time_is_over_leave_and_rows_that_come_then_are_late(space: Space) -> None:
    space.sql("CREATE SHARED TABLE t (id BIGINT PRIMARY KEY, at TIMESTAMP NOT NULL)")
    options = "refresh = '0', retention = '1h', retention_on = 'hour'"
    space.view("SELECT date_bin(INTERVAL '1 hour', at) AS hour, count(*) AS n FROM t GROUP BY 1", options)
    space.wait_state("state", lambda found: found == ["running"])
    space.sql("INSERT INTO t VALUES (1, NOW()), (2, NOW()), (3, '2026-01-01T00:00:00Z')")
    space.wait_state("late", lambda found: found == [1])
    space.sql("INSERT INTO t VALUES (4, NOW()); DELETE FROM t WHERE id = 3; INSERT INTO t VALUES (5, NOW())")
    deadline = time.monotonic() + PATIENCE_S
    while sum(row[1] for row in space.rows()) != 4:
        assert time.monotonic() < deadline, space.rows()
        time.sleep(0.01)


def test_late_is_a_number_of_rows_that_came_whatever_the_number_of_their_groups(space: Space) -> None:
    space.sql("CREATE STREAM TABLE s (k TEXT NOT NULL, at TIMESTAMP NOT NULL)")
    kept = "refresh = '0', retention = '1h', retention_on = 'hour'"
    by_hour = "date_bin(INTERVAL '1 hour', at)"
    space.view(f"SELECT k, {by_hour} AS hour, count(*) AS n FROM s GROUP BY 1, 2", kept)
    space.sql("INSERT INTO s VALUES ('a', NOW()), ('a', '2026-01-01T00:10:00Z'), ('a', '2026-01-01T00:20:00Z')")
    space.sql("INSERT INTO s VALUES ('b', '2026-01-01T00:10:00Z'), ('b', NOW())")
    space.wait_state("late", lambda found: found == [3])
    assert sum(row[2] for row in space.rows()) == 2
    space.sql("DROP MATERIALIZED VIEW v")
    hops = f"make_array({by_hour}, {by_hour} - INTERVAL '1 hour', {by_hour} - INTERVAL '2 hours')"
    space.view(f"SELECT unnest({hops}) AS hour, count(*) AS n FROM s GROUP BY 1", kept)
    space.sql("INSERT INTO s VALUES ('c', '2026-01-01T00:10:00Z'), ('c', '2026-01-01T00:20:00Z')")
    space.wait_state("late", lambda found: found == [2])


def test_what_is_taken_from_a_group_whose_time_is_over_is_not_late(space: Space) -> None:
    space.sql("CREATE SHARED TABLE t (id BIGINT PRIMARY KEY, at TIMESTAMP NOT NULL)")
    space.sql("INSERT INTO t SELECT value, '2026-01-01T00:00:00Z' FROM range(0, 10)")
    space.view(
        "SELECT date_bin(INTERVAL '1 hour', at) AS hour, count(*) AS n FROM t GROUP BY 1",
        "refresh = '0', retention = '1h', retention_on = 'hour'",
    )
    space.wait_state("state", lambda found: found == ["running"])
    space.sql("DELETE FROM t WHERE id < 5; INSERT INTO t VALUES (20, NOW())")
    deadline = time.monotonic() + PATIENCE_S
    while [row[1] for row in space.rows()] != [1]:
        assert time.monotonic() < deadline, space.rows()
        time.sleep(0.01)
    assert space.state("late") == [0]


def test_a_view_that_is_run_again_follows_its_sources(space: Space) -> None:
    space.sql("CREATE SHARED TABLE t (id BIGINT PRIMARY KEY, v BIGINT); CREATE SHARED TABLE u (id BIGINT PRIMARY KEY)")
    space.sql("INSERT INTO t VALUES (1, 10), (2, 20)")
    space.view("SELECT t.id, t.v FROM t JOIN u ON t.id = u.id", "key = 'id', refresh = '0'")
    assert space.rows() == []
    space.sql("INSERT INTO u VALUES (2), (3)")
    space.wait_rows([[2, 20]])
    space.sql("INSERT INTO t VALUES (3, 30); UPDATE t SET v = 21 WHERE id = 2")
    space.wait_rows([[2, 21], [3, 30]])
    space.sql("DELETE FROM u WHERE id = 3")
    space.wait_rows([[2, 21]])
    assert space.state("how, state") == ["re-run", "running"]


@pytest.mark.parametrize(
    ("query", "key"),
    [
        ("SELECT a.id, b.k FROM t a LEFT JOIN t b ON b.id = a.id + 1", "id"),
        ("SELECT k, median(v) AS m FROM t GROUP BY ROLLUP (k)", "k"),
        ("SELECT id, k FROM t UNION SELECT 0, NULL", ""),
        ("SELECT id, k FROM t WHERE id = 1 UNION ALL SELECT id + 10, nullif(k, 'b') FROM t WHERE id = 2", "id"),
        ("SELECT k FROM (SELECT nullif(k, 'a') AS k, min(v) AS v FROM t GROUP BY 1) q ORDER BY v LIMIT 5", "k"),
    ],
)
def test_a_column_that_is_not_null_in_its_table_may_be_in_what_is_made_of_it(
    space: Space, query: str, key: str
) -> None:
    space.sql("CREATE SHARED TABLE t (id BIGINT PRIMARY KEY, k TEXT NOT NULL, v BIGINT NOT NULL)")
    space.sql("INSERT INTO t VALUES (1, 'a', 10), (2, 'b', 20)")
    space.view(query, "refresh = '0'" + (f", key = '{key}'" if key else ""))
    expected = sorted(space.sql(query), key=repr)
    assert any(None in row for row in expected)
    space.wait_rows(expected)
    space.sql("INSERT INTO t VALUES (3, 'a', 30)")
    space.wait_rows(sorted(space.sql(query), key=repr))
    assert space.state("state") == ["running"]


def test_a_key_that_comes_twice_stops_a_view_and_says_which(space: Space) -> None:
    space.sql("CREATE SHARED TABLE t (id BIGINT PRIMARY KEY, v BIGINT)")
    space.sql("INSERT INTO t VALUES (1, 10)")
    space.view("SELECT v, rank() OVER (ORDER BY v) < 5 AS low FROM t", "key = 'v', refresh = '0'")
    space.wait_rows([[10, True]])
    space.sql("INSERT INTO t VALUES (2, 10)")
    [_, reason] = space.wait_state("state, reason", lambda found: found[0] == "stopped")
    assert "10" in reason
    assert space.rows() == [[10, True]]


@pytest.mark.parametrize(
    ("query", "maintain", "code", "told"),
    [
        ("SELECT k, median(v) AS m FROM t GROUP BY k", "incremental", "unsupported", "median(v)"),
        ("SELECT k, sum(DISTINCT v) AS m FROM t GROUP BY k", "incremental", "unsupported", "sum(DISTINCT v)"),
        ("SELECT t.k FROM t JOIN t AS u ON t.id = u.id", "incremental", "unsupported", "several tables"),
        ("SELECT k, max(j) AS m FROM t GROUP BY k", "incremental', key = 'm", "unsupported", "KEY = 'm'"),
        ("SELECT t.k FROM t JOIN t AS u ON t.id = u.id", "auto", "invalid_option", "needs a key"),
        ("SELECT k, median(v) AS m FROM s GROUP BY k", "auto", "unsupported", "median(v)"),
        ("SELECT k, string_agg(k, ',') AS m FROM t GROUP BY k", "auto", "unsupported", "string_agg()"),
        ("SELECT k, count(*) AS n FROM t WHERE at < now() GROUP BY k", "auto", "unsupported", "now()"),
        ("SELECT k, count(*) AS n FROM t GROUP BY k LIMIT 3", "auto", "unsupported", "LIMIT without ORDER BY"),
        ("SELECT k, count(*) FROM t GROUP BY k", "auto", "unsupported", "has no name"),
        ("SELECT k, sum(k) AS n FROM t GROUP BY k", "auto", "invalid_value", "sum"),
    ],
)  # fmt: skip
def test_what_cannot_be_kept_is_refused_and_named(
    space: Space, query: str, maintain: str, code: str, told: str
) -> None:
    space.sql("CREATE SHARED TABLE t (id BIGINT PRIMARY KEY, k TEXT, v BIGINT, j JSON, at TIMESTAMP)")
    space.sql("CREATE STREAM TABLE s (k TEXT, v BIGINT)")
    with pytest.raises(SqlFailed) as refused:
        space.view(query, f"maintain = '{maintain}'")
    assert refused.value.problem["code"] == code
    assert told in refused.value.problem["detail"]


def test_a_view_with_too_many_groups_stops_and_says_so(start_kalam: Callable[..., ServerProcess]) -> None:
    space = Space(start_kalam(KALAM_VIEW_GROUPS_MAX="2"))
    space.sql("CREATE SHARED TABLE t (id BIGINT PRIMARY KEY)")
    space.sql("INSERT INTO t VALUES (1), (2)")
    space.view("SELECT id, count(*) AS n FROM t GROUP BY id")
    space.wait_rows([[1, 1], [2, 1]])
    space.sql("INSERT INTO t VALUES (3)")
    [_, reason] = space.wait_state("state, reason", lambda found: found[0] == "stopped")
    assert "view_groups_max" in reason
    assert space.rows() == [[1, 1], [2, 1]]


def test_what_waited_long_becomes_one_change_of_each_group(space: Space) -> None:
    space.sql("CREATE SHARED TABLE t (id BIGINT PRIMARY KEY, k BIGINT NOT NULL, v BIGINT NOT NULL)")
    query = "SELECT k, count(*) AS n, sum(100 / v) AS total, max(v) AS top FROM t GROUP BY k"
    space.view(query, "refresh = '1h'")
    for start in range(0, 70_000, 10_000):
        values = f"SELECT value, value % 5, 1 + value % 100 FROM range({start}, {start + 10_000})"
        space.sql(f"INSERT INTO t {values}")
    space.sql("INSERT INTO t VALUES (-1, 0, 0), (-2, 9, 0), (-3, 8, 1)")
    space.sql("UPDATE t SET v = 7 WHERE v > 90; DELETE FROM t WHERE k = 3 OR k = 8; UPDATE t SET v = 0 WHERE id = 5")
    [before] = space.state("refreshes")  # the first look of the view may have found the first rows
    space.sql("ALTER MATERIALIZED VIEW v SET (refresh = '0')")
    space.wait_rows(sorted(space.sql(query.replace("FROM t", "FROM t WHERE v > 0"))))
    refreshes, failed = space.state("refreshes, failed")
    assert failed == 3  # rows that were there at some time, each once
    assert refreshes == before + 1
