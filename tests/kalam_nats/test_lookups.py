"""Reads by key that come together are answered together, each as if it had come alone."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import nats
import pytest
from nats.aio.msg import Msg
from patience import PATIENCE_S
from server_process import ServerProcess

from kalam_nats.door.requests import LOOKUPS_TOGETHER_MAX, WAITING_LOOKUPS_MAX, taken_in_a_turn

TABLE = "lookups.t"


@pytest.fixture
def server(shared_server: ServerProcess) -> ServerProcess:
    shared_server.sql("CREATE NAMESPACE IF NOT EXISTS lookups")
    shared_server.sql(f"CREATE TABLE IF NOT EXISTS {TABLE} (id BIGINT PRIMARY KEY, v TEXT, ts TIMESTAMP)")
    shared_server.sql("CREATE USER TABLE IF NOT EXISTS lookups.own (id BIGINT PRIMARY KEY, v TEXT)")
    return shared_server


async def together(server: ServerProcess, requests: list[tuple[str, dict[str, Any]]]) -> list[Any]:
    """The answers to requests of these users, which go out as one write; of an error its code."""
    client = await nats.connect(server.nats_url)
    inbox, answers, done = client.new_inbox(), {}, asyncio.Event()

    async def take(msg: Msg) -> None:
        answer = json.loads(msg.data)
        answers[int(msg.subject.rpartition(".")[2])] = answer.get("code") or answer["results"]
        if len(answers) == len(requests):
            done.set()

    await client.subscribe(f"{inbox}.*", cb=take)
    for place, (user, body) in enumerate(requests):
        await client.publish(f"kalam.api.{user}.sql", json.dumps(body).encode(), reply=f"{inbox}.{place}")
    await client.flush()
    await asyncio.wait_for(done.wait(), PATIENCE_S)
    await client.close()
    return [answers[place] for place in range(len(requests))]


@pytest.mark.parametrize("state", ["hot", "flushed"])
async def test_what_comes_together_is_answered_as_what_comes_alone(server: ServerProcess, state: str) -> None:
    server.sql(f"DELETE FROM {TABLE}")
    moments = ["2024-02-29T12:00:00Z", "2024-02-29T12:00:00.5Z", None]
    for key in range(40):
        server.sql(f"INSERT INTO {TABLE} VALUES ($1, $2, $3)", key, f"row {key}", moments[key % 3])
    for user in ("ada", "ben"):
        server.sql("INSERT INTO lookups.own VALUES (1, $1) ON CONFLICT DO NOTHING", user, user=user)
    if state == "flushed":
        server.sql(f"FLUSH TABLE {TABLE}")
        server.sql(f"INSERT INTO {TABLE} VALUES (40, 'hot', NULL)")
        server.sql(f"DELETE FROM {TABLE} WHERE id = 7")
        server.sql(f"UPDATE {TABLE} SET v = 'newer' WHERE id = 8")
    by_key, own = f"SELECT * FROM {TABLE} WHERE id = $1", "SELECT v FROM lookups.own WHERE id = $1"
    requests: list[tuple[str, dict[str, Any]]] = [
        *(("ada", {"sql": by_key, "params": [key]}) for key in (*range(42), -1)),
        *(("ben", {"sql": f"SELECT v, id AS k FROM {TABLE} WHERE id = {key}"}) for key in (3, 7, 8, 99)),
        *((user, {"sql": own, "params": [1]}) for user in ("ada", "ben", "eve", "ada")),
        *((user, {"sql": "SELECT v FROM own WHERE id = 1", "namespace": "lookups"}) for user in ("ben", "ada")),
        ("ada", {"sql": "SELECT v FROM own WHERE id = 1"}),
        ("ada", {"sql": by_key, "params": [5], "integers": "text"}),
        ("ada", {"sql": by_key, "params": ["5"]}),
        ("ada", {"sql": by_key, "params": []}),
        ("ada", {"sql": by_key, "params": [4]}),
        ("ada", {"sql": f"SELECT nope FROM {TABLE} WHERE id = $1", "params": [4]}),
        ("ada", {"sql": by_key, "rows": [[1]]}),
    ]
    alone = [answer for request in requests for answer in await together(server, [request])]
    assert await together(server, requests) == alone
    assert await together(server, requests * 5) == alone * 5  # more than one turn of the loop looks up
    rows = [answer[0]["rows"] for answer in alone[:43]]
    gone = {7, 41, -1} if state == "flushed" else {40, 41, -1}
    assert [not found for found in rows] == [key in gone for key in (*range(42), -1)]
    assert rows[9] == [[9, "row 9", "2024-02-29T12:00:00.000000Z", *rows[9][0][3:]]]
    texts = [answer if isinstance(answer, str) else answer[0]["rows"] for answer in alone[43:]]
    assert texts[4:10] == [[["ada"]], [["ben"]], [], [["ada"]], [["ben"]], [["ada"]]]
    assert all(isinstance(text, str) for text in (texts[10], *texts[13:14], *texts[15:]))


@pytest.mark.parametrize("coming", [1, LOOKUPS_TOGETHER_MAX, LOOKUPS_TOGETHER_MAX + 1, 5_000])
def test_however_many_requests_come_in_each_turn_of_the_loop_only_so_many_are_left_for_a_later_one(coming: int) -> None:
    waiting = 0
    for _ in range(2_000):
        waiting = max(0, waiting + coming - taken_in_a_turn(waiting + coming))
        assert waiting <= (WAITING_LOOKUPS_MAX if coming > LOOKUPS_TOGETHER_MAX else 0)


async def test_more_requests_than_wait_for_a_turn_are_all_answered(server: ServerProcess) -> None:
    server.sql(f"INSERT INTO {TABLE} VALUES (1000, 'here', NULL) ON CONFLICT DO NOTHING")
    request = ("ada", {"sql": f"SELECT v FROM {TABLE} WHERE id = $1", "params": [1_000]})
    await together(server, [request])  # a text that was answered before is looked up, and of others 1,024 run at once
    answers = await together(server, [request] * 5_000)
    assert [answer[0]["rows"] for answer in answers] == [[["here"]]] * 5_000
