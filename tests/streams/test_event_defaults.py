"""What others publish without a column gets one default for ever: in SELECT, in live queries, after a restart."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from datetime import datetime
from uuid import UUID

from foreign_program import Program
from live_subscriber import connected, subscribe
from server_process import ServerProcess

COLUMNS = (
    "id BIGINT, at TIMESTAMP DEFAULT NOW(), number BIGINT DEFAULT SNOWFLAKE_ID(), u UUID DEFAULT UUID_V7(), "
    "t TEXT DEFAULT UUID_V7(), fixed INT DEFAULT 5"
)


async def test_defaults_of_foreign_events_never_change(
    kalam_server: ServerProcess, connect: Callable[..., Awaitable[Program]]
) -> None:
    kalam_server.sql(f"CREATE NAMESPACE d; CREATE STREAM TABLE d.t ({COLUMNS})")
    names = ["id", "at", "number", "u", "t", "fixed"]
    async with connected(kalam_server.nats_url) as client:
        live = await subscribe(client, "SELECT * FROM d.t")
        for number in range(10):
            await client.publish("kalam.stream.d.t", json.dumps({"id": number}).encode())
        await client.publish("kalam.stream.d.t", b'{"id": 10, "number": 3, "at": null}')
        await client.publish("kalam.stream.d.t", b"no row")  # so that each is judged by itself
        await client.publish("kalam.stream.d.t", b'{"id": 11}')
        told = [[change["row"][name] for name in names] for change in await live.wait_changes(12)]
        read = kalam_server.sql("SELECT * FROM d.t")
        assert read == told
        stored = await client.jetstream().get_msg("KALAM-d-t", 1)
        assert stored.time is not None
        assert abs(datetime.fromisoformat(told[0][1]).timestamp() - stored.time.timestamp()) < 0.001
    for place in (2, 3, 4):
        assert len({row[place] for row in read}) == len(read)
    assert {UUID(row[place]).version for row in read for place in (3, 4)} == {7}
    assert read[10][:3] == [10, None, 3]
    assert {row[5] for row in read} == {5}
    kalam_server.stop()
    kalam_server.restart()
    assert kalam_server.sql("SELECT * FROM d.t") == read
