"""Statements are transactions: ten writers that add one to the same row a hundred times each end at a thousand.

Without the turns that changes take, and without the check that a row is still as it was read, nine of ten are lost.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from server_process import ServerProcess

WAYS = (
    "UPDATE n.c SET n = n + 1 WHERE id = 'a'",
    "INSERT INTO n.c VALUES ('a', 1) ON CONFLICT (id) DO UPDATE SET n = c.n + excluded.n",
)


def test_ten_writers_end_at_the_sum_through_updates_and_upserts(kalam_server: ServerProcess) -> None:
    kalam_server.sql("CREATE NAMESPACE n; CREATE TABLE n.c (id TEXT PRIMARY KEY, n BIGINT NOT NULL)")
    kalam_server.sql("INSERT INTO n.c VALUES ('a', 0)")

    def write(number: int) -> None:
        for _ in range(5):
            kalam_server.sql(";".join([WAYS[number % 2]] * 20))

    with ThreadPoolExecutor(10) as pool:
        futures = [pool.submit(write, number) for number in range(10)]
        while not all(future.done() for future in futures):
            kalam_server.sql("FLUSH TABLE n.c")
        for future in futures:
            future.result()
    assert kalam_server.sql("SELECT n FROM n.c") == [[1_000]]
    kalam_server.kill()
    kalam_server.restart()
    assert kalam_server.sql("SELECT n FROM n.c WHERE id = 'a'") == [[1_000]]
