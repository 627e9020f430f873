"""Many live queries that all get much of a commit: told in many turns of the server, to each whole and in order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from live_subscriber import ask, connected, subscribe
from server_process import ServerProcess

QUERIES, COMMITS, ROWS = 150, 6, 300


async def test_each_of_many_is_told_each_change_in_order_whatever_is_committed_meanwhile(
    start_kalam: Callable[..., ServerProcess],
) -> None:
    server = start_kalam()
    server.sql("CREATE NAMESPACE many; CREATE SHARED TABLE many.t (id BIGINT PRIMARY KEY, v DOUBLE)")
    ids = range(COMMITS * ROWS)
    async with connected(server.nats_url) as client, connected(server.nats_url) as other:
        sql = "SELECT id FROM many.t WHERE v > 0"
        lives = [await subscribe(client, sql, last_rows=0) for _ in range(QUERIES)]
        for first in range(0, len(ids), ROWS):  # one commit after the other, while the ones before are being told
            rows = [{"id": n, "v": 1.5} for n in range(first, first + ROWS)]
            assert (await ask(other, "kalam.api.ada.insert.many.t", rows))["rows"] == ROWS
        await asyncio.gather(*(live.wait_changes(len(ids)) for live in lives))
        for live in lives:
            assert [change["row"]["id"] for change in live.changes] == list(ids)
            assert not live.of("resync")
        ended = [live.close() for live in lives[: QUERIES // 2]]
        await asyncio.gather(*ended)
        for live in lives[: QUERIES // 2]:
            await live.wait(lambda live=live: live.of("closed"))
    server.sql("SELECT count(*) FROM many.t")
    async with asyncio.timeout(60):
        while server.sql("SHOW LIVE QUERIES"):  # noqa: ASYNC110 - the server tells nobody; the others left without a word
            await asyncio.sleep(0.2)
