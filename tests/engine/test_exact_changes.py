"""What is computed and stored is right or refused, at every place of a statement, and as SELECT computes it."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from live_subscriber import connected, subscribe
from server_process import ServerProcess, SqlFailed

BIGGEST = 9223372036854775807
_numbers = itertools.count(1)


@pytest.fixture
def orders(shared_server: ServerProcess) -> str:
    """A new table of two rows, the first with values at the bounds of their types."""
    namespace = f"exact{next(_numbers)}"
    table = f"{namespace}.o"
    shared_server.sql(f"CREATE NAMESPACE {namespace}")
    shared_server.sql(
        f"CREATE SHARED TABLE {table} (id INT PRIMARY KEY, qty INT, cents INT, total BIGINT, small INT, "
        "bal DECIMAL(20,2), x DOUBLE, excluded INT, owner TEXT DEFAULT CURRENT_USER())"
    )
    shared_server.sql(
        f"INSERT INTO {table} (id, qty, cents, total, bal, x, excluded) VALUES "
        f"(1, 30000, 99900, {BIGGEST}, 123456789012345678.91, 1.5, 7), (2, 2, 3, 6, 0.10, 'NaN', 8)"
    )
    return table


def value(server: ServerProcess, text: str) -> Any:
    [[found]] = server.sql(text)
    return found


# How an expression gets into the column ``total`` of the row with the key 1.
PLACES: dict[str, str] = {
    "UPDATE by key": "UPDATE {t} SET total = {e} WHERE id = 1",
    "UPDATE": "UPDATE {t} SET total = {e} WHERE id < 2",
    "RETURNING": "UPDATE {t} SET x = 2 WHERE id = 1 RETURNING {e}",
    "ON CONFLICT": "INSERT INTO {t} (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET total = {e}",
    "INSERT SELECT": "INSERT INTO {t} (id, total) SELECT 3, {e} FROM {t} AS o WHERE id = 1",
}


@pytest.mark.parametrize("place", PLACES)
def test_products_and_sums_of_integers_do_not_wrap(shared_server: ServerProcess, orders: str, place: str) -> None:
    def put(expression: str) -> None:
        shared_server.sql(PLACES[place].format(t=orders, e=expression))

    with pytest.raises(SqlFailed, match=r"out of range of BIGINT"):
        put("o.total + 1")
    with pytest.raises(SqlFailed, match=r"out of range of BIGINT"):
        put("o.total * o.qty")
    assert shared_server.sql(f"SELECT count(*), max(total) FROM {orders}") == [[2, BIGGEST]]
    put("o.qty * o.cents")
    if place != "RETURNING":
        assert value(shared_server, f"SELECT min(total) FROM {orders} WHERE total > 6") == 2997000000


def test_a_value_too_large_for_a_column_names_it(shared_server: ServerProcess, orders: str) -> None:
    for where in ("id = 1", "id < 2"):
        with pytest.raises(SqlFailed, match=r"column small"):
            shared_server.sql(f"UPDATE {orders} SET small = qty * cents WHERE {where}")
        with pytest.raises(SqlFailed, match=r"column total"):
            shared_server.sql(f"UPDATE {orders} SET x = 1.5, total = total + 1 WHERE {where}")
    with pytest.raises(SqlFailed, match=r"column total"):
        shared_server.sql(
            f"INSERT INTO {orders} (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET x = 2.5, total = o.total + 1"
        )
    with pytest.raises(SqlFailed, match=r"column total"):
        shared_server.sql(f"INSERT INTO {orders} (id, total) VALUES (9, {BIGGEST} + 1)")
    assert shared_server.sql(f"SELECT x, total FROM {orders} WHERE id = 1") == [[1.5, BIGGEST]]


def test_a_decimal_keeps_every_digit(shared_server: ServerProcess, orders: str) -> None:
    found = f"SELECT id FROM {orders} WHERE bal = 123456789012345678.91"
    assert value(shared_server, found) == 1
    shared_server.sql(f"UPDATE {orders} SET bal = bal + 0.01 WHERE bal = 123456789012345678.91")
    assert value(shared_server, f"SELECT bal FROM {orders} WHERE id = 1") == "123456789012345678.92"
    shared_server.sql(f"UPDATE {orders} SET bal = bal * 2 WHERE id = 1")
    assert value(shared_server, f"SELECT bal FROM {orders} WHERE id = 1") == "246913578024691357.84"
    for where in ("id = 1", "id < 2"):
        shared_server.sql(f"UPDATE {orders} SET bal = bal + $1 WHERE {where}", 0.5)
        shared_server.sql(f"UPDATE {orders} SET bal = bal - 0.5 WHERE {where}")
    assert value(shared_server, f"DELETE FROM {orders} WHERE bal = 246913578024691357.84 RETURNING id") == 1


def test_nan_is_the_greatest_hot_and_cold(shared_server: ServerProcess, orders: str) -> None:
    def seen() -> list[list[Any]]:
        return [
            *shared_server.sql(f"SELECT max(x) FROM {orders}"),
            *shared_server.sql(f"SELECT max(x) FROM {orders} GROUP BY id > 0"),
            *shared_server.sql(f"SELECT id FROM {orders} WHERE x > 1e300"),
            *shared_server.sql(f"SELECT x FROM {orders} ORDER BY x DESC LIMIT 1"),
        ]

    right = [["NaN"], ["NaN"], [2], ["NaN"]]
    assert seen() == right
    shared_server.sql(f"FLUSH TABLE {orders}")
    assert seen() == right


@pytest.mark.parametrize("number", ["1e309", "-1e309"])
def test_what_no_double_can_hold_is_refused(shared_server: ServerProcess, orders: str, number: str) -> None:
    for text in (
        f"INSERT INTO {orders} (id, x) VALUES (3, {number})",
        f"UPDATE {orders} SET x = {number} WHERE id = 1",
        f"UPDATE {orders} SET x = {number} WHERE id < 2",
    ):
        with pytest.raises(SqlFailed, match=r"1e309|out of range|column x"):
            shared_server.sql(text)
    assert shared_server.sql(f"SELECT count(*) FROM {orders} WHERE x = 1.5") == [[1]]


def test_a_column_may_be_called_excluded(shared_server: ServerProcess, orders: str) -> None:
    upsert = f"INSERT INTO {orders} (id, qty, excluded) VALUES (1, 5, 70) ON CONFLICT (id) DO UPDATE SET "
    shared_server.sql(upsert + "excluded = excluded.excluded + o.excluded, qty = excluded.qty + excluded")
    assert shared_server.sql(f"SELECT qty, excluded FROM {orders} WHERE id = 1") == [[12, 77]]
    shared_server.sql(upsert + "excluded = excluded.excluded")
    assert value(shared_server, f"SELECT excluded FROM {orders} WHERE id = 1") == 70


def test_the_user_can_be_asked_for_everywhere(shared_server: ServerProcess, orders: str) -> None:
    user = value(shared_server, "SELECT CURRENT_USER()")
    assert value(shared_server, f"SELECT count(*) FROM {orders} WHERE owner = current_user ( )") == 2
    assert shared_server.sql("SELECT CURRENT_USER() || '!' AS u, 'CURRENT_USER()' AS v") == [
        [f"{user}!", "CURRENT_USER()"]
    ]
    shared_server.sql(f"UPDATE {orders} SET owner = upper(CURRENT_USER()) WHERE owner = CURRENT_USER() AND id = 1")
    assert value(shared_server, f"SELECT owner FROM {orders} WHERE id = 1") == user.upper()
    assert value(shared_server, f"DELETE FROM {orders} WHERE id = 1 RETURNING CURRENT_USER()") == user


def test_not_in_deletes_what_sql_says(shared_server: ServerProcess, orders: str) -> None:
    other = orders.replace(".o", ".other")
    shared_server.sql(f"CREATE SHARED TABLE {other} (k INT PRIMARY KEY, id INT, g INT)")
    shared_server.sql(f"INSERT INTO {other} VALUES (1, 1, 1), (2, NULL, 2)")
    text = f"DELETE FROM {orders} WHERE 3 NOT IN (SELECT id FROM {other} AS p WHERE p.g = o.id) RETURNING id"
    assert shared_server.sql(text) == [[1]]
    shared_server.sql(f"INSERT INTO {orders} (id) VALUES (1)")
    text = f"UPDATE {orders} SET qty = 1 WHERE id NOT IN (SELECT id FROM {other}) OR id = 2 RETURNING id"
    assert shared_server.sql(text) == [[2]]
    one_of_two = (
        f"DELETE FROM {orders} WHERE id IN (SELECT max(id) FROM {orders} GROUP BY qty) "
        f"OR id IN (SELECT min(id) FROM {orders} GROUP BY qty)"
    )
    assert shared_server.sql(one_of_two) == "2 rows deleted"


def test_rows_of_values_that_a_sub_query_has_are_deleted(shared_server: ServerProcess, orders: str) -> None:
    ids = [row[0] for row in shared_server.sql(f"SELECT id FROM {orders} ORDER BY id")]
    text = f"DELETE FROM {orders} AS d WHERE (id, id + 1) NOT IN (SELECT DISTINCT id, id + 1 FROM {orders} AS s) "
    assert shared_server.sql(f"{text} RETURNING id") == []
    among = f"DELETE FROM {orders} AS d WHERE (d.id, id + 1) IN (SELECT id, id + 1 FROM {orders} WHERE id < {ids[-1]})"
    assert shared_server.sql(f"{among} AND id > {ids[0]} RETURNING id") == [[each] for each in ids[1:-1]]


def test_names_of_columns_are_as_they_were(shared_server: ServerProcess, orders: str) -> None:
    text = f"SELECT total - 1, sum(total - 1) OVER (), bal / 3, qty + 1 AS q FROM {orders} WHERE id = 2"
    [result] = shared_server.results(text)
    assert [column["name"] for column in result["columns"]] == [
        f"{orders}.total - Int64(1)",
        f"sum({orders}.total - Int64(1)) ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING",
        f"{orders}.bal / Int64(3)",
        "q",
    ]


@pytest.mark.parametrize(
    ("interval", "shown"),
    [
        ("1 year 2 months 3 days 4 hours 5 minutes 6.789 seconds", "1 year 2 mons 3 days 04:05:06.789"),
        ("-1 month", "-1 mons"),
        ("1 day", "1 day"),
        ("100 hours", "100:00:00"),
        ("0 days", "00:00:00"),
        ("-1 day 2 hours", "-1 days +02:00:00"),
    ],
)
def test_an_interval_is_shown_as_postgresql_shows_it(shared_server: ServerProcess, interval: str, shown: str) -> None:
    assert value(shared_server, f"SELECT INTERVAL '{interval}'") == shown


def test_the_time_between_two_timestamps_is_an_interval(shared_server: ServerProcess) -> None:
    later, earlier = "TIMESTAMP '2024-01-03 05:00:00'", "TIMESTAMP '2024-01-01 03:00:00.5'"
    assert value(shared_server, f"SELECT {later} - {earlier}") == "2 days 01:59:59.5"
    assert value(shared_server, f"SELECT {earlier} - {later}") == "-2 days -01:59:59.5"


async def test_a_live_query_judges_as_select_does(shared_server: ServerProcess, orders: str) -> None:
    async with connected(shared_server.nats_url) as client:
        conditions = {
            "bal = 123456789012345678.92": 1,
            "total * 0 + qty * cents = 2997000000": 1,
            "x > 1.4 AND x < 2.0": 1,
            "owner = CURRENT_USER() AND id < 0": 0,
            "x > 1e300": 1,
            "cents <> 3 AND x / (cents - 3) < 0": 0,
        }
        lives = [await subscribe(client, f"SELECT id FROM {orders} WHERE {where}") for where in conditions]
        wrapping = await subscribe(client, f"SELECT id FROM {orders} WHERE total + 1 < 0", last_rows=0)
        dividing = await subscribe(client, f"SELECT id FROM {orders} WHERE id / (cents - 3e0) > 1", last_rows=0)
        shared_server.sql(f"UPDATE {orders} SET bal = 123456789012345678.92, total = {BIGGEST} WHERE id = 2")
        assert await lives[0].wait_changes(1)
        assert [len(live.rows) for live in lives[1:]] == list(conditions.values())[1:]
        await wrapping.wait(lambda: wrapping.messages[-1]["type"] not in ("ready", "changes"))
        assert "out of range of BIGINT" in str(wrapping.messages[-1])
        await dividing.wait(lambda: dividing.messages[-1]["type"] not in ("ready", "changes", "heartbeat"))
        assert "division by zero" in str(dividing.messages[-1])


FLOATS_AT: dict[str, str] = {
    "UPDATE by key": "UPDATE {t} SET x = {e} WHERE id = 1",
    "UPDATE": "UPDATE {t} SET x = {e} WHERE id < 2",
    "RETURNING": "UPDATE {t} SET qty = 2 WHERE id = 1 RETURNING {e}",
    "ON CONFLICT": "INSERT INTO {t} (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET x = {e}",
    "INSERT SELECT": "INSERT INTO {t} (id, x) SELECT 3, {e} FROM {t} AS o WHERE id = 1",
    "VALUES": "INSERT INTO {t} (id, x) SELECT 3, v FROM (VALUES ({v})) AS q(v)",
}


@pytest.mark.parametrize("place", FLOATS_AT)
def test_no_infinity_is_stored_or_shown_that_nobody_wrote(
    shared_server: ServerProcess, orders: str, place: str
) -> None:
    def put(expression: str, value: str) -> None:
        shared_server.sql(FLOATS_AT[place].format(t=orders, e=expression, v=value))

    for expression, literal, words in (
        ("o.x * 1e308 * 10", "1e308 * 10", "out of range of DOUBLE"),
        ("o.x / 0.0", "1.5e0 / 0.0", "division by zero"),
        ("CAST('1e400' AS DOUBLE)", "CAST('1e400' AS DOUBLE)", "out of range of DOUBLE"),
    ):
        with pytest.raises(SqlFailed, match=words):
            put(expression, literal)
    assert shared_server.sql(f"SELECT x, qty FROM {orders} WHERE id = 1") == [[1.5, 30000]]
    assert value(shared_server, f"SELECT count(*) FROM {orders}") == 2


def test_an_infinity_that_was_written_stays_one(shared_server: ServerProcess, orders: str) -> None:
    shared_server.sql(f"UPDATE {orders} SET x = 'Infinity' WHERE id = 1")
    shared_server.sql(f"UPDATE {orders} SET x = x * 2 + 1 WHERE id = 1")
    assert value(shared_server, f"SELECT sum(x) FROM {orders} WHERE id = 1") == "Infinity"


def test_a_negative_zero_is_the_same_however_it_is_set(shared_server: ServerProcess, orders: str) -> None:
    for text in (
        f"INSERT INTO {orders} (id, x) VALUES (3, -0.0)",
        f"UPDATE {orders} SET x = -0.0 WHERE id = 3",
        f"UPDATE {orders} SET x = - 0.00 WHERE id > 2",
        f"INSERT INTO {orders} (id) VALUES (3) ON CONFLICT (id) DO UPDATE SET x = -.0",
    ):
        shared_server.sql(text)
        found = value(shared_server, f"SELECT x FROM {orders} WHERE id = 3")
        assert str(found) == "-0.0"
        shared_server.sql(f"UPDATE {orders} SET x = 1 WHERE id = 3")
    shared_server.sql(f"UPDATE {orders} SET bal = -0.0 WHERE id = 3")
    assert value(shared_server, f"SELECT bal FROM {orders} WHERE id = 3") == "0.00"


def test_two_aggregates_that_differ_by_a_cast_are_two_columns(shared_server: ServerProcess, orders: str) -> None:
    [answer] = shared_server.results(f"SELECT sum(x), sum(CAST(x AS DOUBLE)), sum(qty) FROM {orders} WHERE id = 1")
    assert answer["rows"] == [[1.5, 1.5, 30000]]
    assert [column["name"] for column in answer["columns"]] == ["sum(x)", "sum(CAST(x AS DOUBLE))", "sum(qty)"]
