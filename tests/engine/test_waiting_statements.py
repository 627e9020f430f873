"""A statement that waits for its turn works with the table as it is when the turn comes, and not as it was before."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import httpx
import pytest
from live_subscriber import connected, subscribe
from server_process import ServerProcess

PATIENCE_S = 100.0
SIZES = (5_000, 20_000, 80_000)
SLOW = "(SELECT sum(a.value * b.value) FROM range(0, {n}) a, range(0, {n}) b) >= 0"
"""Takes longer to judge than all that passes meanwhile, on a machine of whatever speed: with one of the sizes."""
TABLE = "CREATE TABLE {ns}.t (id BIGINT PRIMARY KEY, v INT, g TEXT); INSERT INTO {ns}.t VALUES (1, 1, 'a'), (2, 2, 'b')"
NEW = "ALTER TABLE {ns}.t ADD COLUMN c INT; INSERT INTO {ns}.t VALUES (3, 3, 'c', 9)"


async def request(http: httpx.AsyncClient, server: ServerProcess, text: str) -> Any:
    """The rows or the message of the last statement; the code of an error."""
    answer = await http.post(f"{server.http_url}/v1/sql", json={"sql": text}, timeout=PATIENCE_S)
    body = answer.json()
    if answer.status_code != 200:
        return body["code"]
    last = body["results"][-1]
    return last["rows"] if last["columns"] else last["message"]


async def passed_by(server: ServerProcess, ns: str, waiting: Sequence[str], passing: str) -> tuple[list[Any], Any]:
    """What the waiting statements answer that others passed by, and the table's rows afterwards."""
    async with httpx.AsyncClient() as http:
        for n in SIZES:
            await request(http, server, f"DROP TABLE IF EXISTS {ns}.t; {TABLE.format(ns=ns)}")
            slow = [text.format(ns=ns, slow=SLOW.format(n=n)) for text in waiting]
            tasks = [asyncio.create_task(request(http, server, text)) for text in slow]
            for _ in range(10):  # by then they have come
                await request(http, server, "SELECT 1")
            await request(http, server, passing.format(ns=ns))
            in_time = not any(task.done() for task in tasks)
            answers = list(await asyncio.gather(*tasks))
            if in_time:
                return answers, await request(http, server, f"SELECT * FROM {ns}.t ORDER BY id")
    pytest.fail("the statements were faster than what should have passed them by")


@pytest.fixture
def ns(shared_server: ServerProcess, request: pytest.FixtureRequest) -> str:
    name = f"w{abs(hash(request.node.name)) % 10**9}"
    shared_server.sql(f"CREATE NAMESPACE {name}")
    return name


def plain(rows: Any) -> list[list[Any]]:
    """The rows without ``_updated`` and ``_deleted``."""
    return [row[:-2] for row in rows]


UPDATE = "UPDATE {ns}.t SET v = v + 10 WHERE {slow}"


@pytest.mark.parametrize(
    ("waiting", "passing", "answers", "rows"),
    [
        pytest.param(
            [UPDATE, UPDATE],
            NEW,
            ["3 rows updated", "3 rows updated"],
            [[1, 21, "a", None], [2, 22, "b", None], [3, 23, "c", 9]],
            id="add column",
        ),
        pytest.param(
            ["UPDATE {ns}.t SET g = 'x' WHERE {slow}", UPDATE],
            "ALTER TABLE {ns}.t RENAME COLUMN v TO w",
            ["2 rows updated", "column_not_found"],
            [[1, 1, "x"], [2, 2, "x"]],
            id="rename column",
        ),
        pytest.param(
            [UPDATE, "UPDATE {ns}.t SET g = 'x' WHERE {slow}"],
            "ALTER TABLE {ns}.t DROP COLUMN g",
            ["2 rows updated", "column_not_found"],
            [[1, 11], [2, 12]],
            id="drop column",
        ),
        pytest.param(
            [UPDATE, UPDATE],
            "ALTER TABLE {ns}.t SET (format = 'msgpack')",
            ["2 rows updated", "2 rows updated"],
            [[1, 21, "a"], [2, 22, "b"]],
            id="set",
        ),
        pytest.param(
            [UPDATE, "DELETE FROM {ns}.t WHERE {slow}", UPDATE],
            "DROP TABLE {ns}.t; " + TABLE,
            ["table_not_found"] * 3,
            [[1, 1, "a"], [2, 2, "b"]],
            id="another table of the name",
        ),
        pytest.param(
            ["DELETE FROM {ns}.t WHERE id < 2 AND {slow}", UPDATE],
            NEW,
            ["1 row deleted", "2 rows updated"],
            [[2, 12, "b", None], [3, 13, "c", 9]],
            id="delete",
        ),
        pytest.param(
            [
                (
                    "INSERT INTO {ns}.t (id, v) SELECT value, 7 FROM range(2, 5) WHERE {slow} "
                    "ON CONFLICT (id) DO UPDATE SET v = excluded.v"
                ),
                "INSERT INTO {ns}.t SELECT 6, 7, 'z' WHERE {slow} ON CONFLICT (id) DO UPDATE SET v = 0",
            ],
            NEW,
            ["1 row inserted, 2 updated, 0 skipped", "invalid_value"],
            [[1, 1, "a", None], [2, 7, "b", None], [3, 7, "c", 9], [4, 7, None, None]],
            id="upsert",
        ),
        pytest.param(
            [
                "INSERT INTO {ns}.t (id, v) SELECT value, 7 FROM range(5, 6) WHERE {slow}",
                "INSERT INTO {ns}.t SELECT value, 7, 'z' FROM range(7, 8) WHERE {slow}",
                "INSERT INTO {ns}.t (id, g) SELECT value, 'z' FROM range(8, 9) WHERE {slow} RETURNING *",
            ],
            "ALTER TABLE {ns}.t DROP COLUMN g; ALTER TABLE {ns}.t ADD COLUMN c INT DEFAULT 4",
            ["1 row inserted", "invalid_value", "column_not_found"],
            [[1, 1, 4], [2, 2, 4], [5, 7, 4]],
            id="insert select",
        ),
    ],
)
async def test_what_waits_sees_the_newest_table(
    shared_server: ServerProcess, ns: str, waiting: list[str], passing: str, answers: list[Any], rows: list[Any]
) -> None:
    answered, found = await passed_by(shared_server, ns, waiting, passing)
    assert answered == answers
    assert plain(found) == rows


async def test_a_live_query_with_the_new_columns_outlives_an_insert_that_began_before_them(
    shared_server: ServerProcess, ns: str
) -> None:
    async with connected(shared_server.nats_url) as client, httpx.AsyncClient() as http:
        for n in SIZES:
            await request(http, shared_server, f"DROP TABLE IF EXISTS {ns}.t; {TABLE.format(ns=ns)}")
            insert = f"INSERT INTO {ns}.t (id, v) SELECT value, 7 FROM range(5, 6) WHERE {SLOW.format(n=n)}"
            inserting = asyncio.create_task(request(http, shared_server, insert))
            for _ in range(10):  # by then it has come
                await request(http, shared_server, "SELECT 1")
            await request(http, shared_server, f"ALTER TABLE {ns}.t ADD COLUMN c INT DEFAULT 4")
            live = await subscribe(client, f"SELECT id, c FROM {ns}.t")
            in_time = not inserting.done()
            assert await inserting == "1 row inserted"
            if in_time:
                await live.wait(lambda live=live: live.changes or live.of("closed"))  # type: ignore[misc]
                assert [change["row"] for change in live.changes] == [{"id": 5, "c": 4}]
                return
            await live.close()
            await live.wait(lambda live=live: live.of("closed"))  # type: ignore[misc]
    pytest.fail("the insert was faster than what should have passed it by")
