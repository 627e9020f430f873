"""Statements are transactions: ten writers that add one to the same row a thousand times each end at ten thousand."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from server_process import ServerProcess

WAYS = (
    "UPDATE n.c SET n = n + 1 WHERE id = 'a'",
    "INSERT INTO n.c VALUES ('a', 1) ON CONFLICT (id) DO UPDATE SET n = c.n + excluded.n",
)


@pytest.mark.timeout(600)
def test_ten_writers_end_at_the_sum_through_updates_and_upserts(kalam_server: ServerProcess) -> None:
    kalam_server.sql("CREATE NAMESPACE n; CREATE TABLE n.c (id TEXT PRIMARY KEY, n BIGINT NOT NULL)")
    kalam_server.sql("INSERT INTO n.c VALUES ('a', 0)")

    def write(number: int) -> None:
        for _ in range(20):
            kalam_server.sql(";".join([WAYS[number % 2]] * 50))

    with ThreadPoolExecutor(10) as pool:
        futures = [pool.submit(write, number) for number in range(10)]
        kalam_server.sql("FLUSH TABLE n.c")
        kalam_server.sql("FLUSH TABLE n.c")
        for future in futures:
            future.result()
    assert kalam_server.sql("SELECT n FROM n.c") == [[10_000]]
    kalam_server.kill()
    kalam_server.restart()
    assert kalam_server.sql("SELECT n FROM n.c WHERE id = 'a'") == [[10_000]]
