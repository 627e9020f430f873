"""FLUSH POLICY: rows and age are counted for each copy, and what is due is flushed without anybody asking."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from server_process import ServerProcess

COLUMNS = "(id BIGINT PRIMARY KEY, v TEXT)"


def insert(server: ServerProcess, table: str, first: int, count: int, user: str = "ann") -> None:
    server.sql(f"INSERT INTO {table} SELECT value, 'v' FROM range({first}, {first + count})", user=user)


def flushed(server: ServerProcess, table: str) -> dict[str, int]:
    """The cold rows of each copy, by its user."""
    query = """SELECT coalesce(user_id, ''), sum(rows) FROM system.segments
        WHERE namespace || '.' || table_name = $1 GROUP BY 1"""
    return dict(server.sql(query, table))


def reasons(server: ServerProcess, table: str) -> list[str]:
    query = "SELECT parameters FROM system.jobs WHERE namespace || '.' || table_name = $1 ORDER BY created_at"
    return [parameters for [parameters] in server.sql(query, table)]


async def test_a_shared_table_is_flushed_when_so_many_rows_wait(shared_server: ServerProcess, wait_until: Any) -> None:
    shared_server.sql(f"CREATE NAMESPACE rows; CREATE TABLE rows.t {COLUMNS} FLUSH POLICY ROWS 20")
    insert(shared_server, "rows.t", 0, 19)
    shared_server.sql("DELETE FROM rows.t WHERE id = 0")  # what was deleted counts, too
    await wait_until(lambda: flushed(shared_server, "rows.t"))
    assert shared_server.sql("SELECT count(*) FROM rows.t") == [[18]]
    assert reasons(shared_server, "rows.t") == ['{"reason":"rows"}']


async def test_a_users_rows_are_counted_apart(shared_server: ServerProcess, wait_until: Any) -> None:
    shared_server.sql(f"CREATE NAMESPACE peoples; CREATE USER TABLE peoples.t {COLUMNS} FLUSH POLICY ROWS 20")
    insert(shared_server, "peoples.t", 0, 19, user="bob")
    insert(shared_server, "peoples.t", 0, 19, user="ann")
    insert(shared_server, "peoples.t", 19, 1, user="ann")
    await wait_until(lambda: flushed(shared_server, "peoples.t") == {"ann": 20})
    insert(shared_server, "peoples.t", 19, 1, user="bob")
    await wait_until(lambda: flushed(shared_server, "peoples.t") == {"ann": 20, "bob": 20})
    for user in ("ann", "bob"):
        assert shared_server.sql("SELECT count(*) FROM peoples.t", user=user) == [[20]]


async def test_a_shared_table_is_flushed_when_its_oldest_row_is_old_enough(
    shared_server: ServerProcess, wait_until: Any
) -> None:
    shared_server.sql(f"CREATE NAMESPACE aged; CREATE TABLE aged.t {COLUMNS} FLUSH POLICY TIME 1s")
    for number in range(2):
        insert(shared_server, "aged.t", number, 1)
        rows = number + 1
        await wait_until(lambda rows=rows: flushed(shared_server, "aged.t") == {"": rows})
    assert set(reasons(shared_server, "aged.t")) == {'{"reason":"policy"}'}


async def test_of_a_user_table_the_interval_flushes_only_copies_of_some_size(
    start_kalam: Callable[..., ServerProcess], wait_until: Any
) -> None:
    server = start_kalam(KALAM_USER_FLUSH_ROWS_MIN="5")
    server.sql(f"CREATE NAMESPACE aged; CREATE USER TABLE aged.t {COLUMNS} FLUSH POLICY TIME 1s")
    insert(server, "aged.t", 0, 4, user="bob")  # older, and too few
    insert(server, "aged.t", 0, 5, user="ann")
    await wait_until(lambda: flushed(server, "aged.t") == {"ann": 5})
    insert(server, "aged.t", 4, 1, user="bob")
    await wait_until(lambda: flushed(server, "aged.t") == {"ann": 5, "bob": 5})


@pytest.mark.parametrize("policy", ["ROWS 1000000", "TIME 86400s"])
async def test_another_policy_takes_effect_on_rows_that_wait_already(
    shared_server: ServerProcess, wait_until: Any, policy: str
) -> None:
    namespace = f"other_{policy[:4].lower()}"
    shared_server.sql(f"CREATE NAMESPACE {namespace}; CREATE TABLE {namespace}.t {COLUMNS} FLUSH POLICY {policy}")
    insert(shared_server, f"{namespace}.t", 0, 10)
    shared_server.sql(f"ALTER TABLE {namespace}.t SET (flush_policy = 'rows:5')")
    await wait_until(lambda: flushed(shared_server, f"{namespace}.t") == {"": 10})


async def test_what_waited_before_a_start_is_flushed_after_it_though_nobody_touches_the_table(
    kalam_server: ServerProcess, wait_until: Any
) -> None:
    kalam_server.sql(f"CREATE NAMESPACE aged; CREATE TABLE aged.t {COLUMNS} FLUSH POLICY TIME 5s")
    insert(kalam_server, "aged.t", 0, 3)
    kalam_server.kill()
    kalam_server.restart()
    await wait_until(lambda: flushed(kalam_server, "aged.t") == {"": 3})
    assert kalam_server.sql("SELECT count(*) FROM aged.t") == [[3]]
