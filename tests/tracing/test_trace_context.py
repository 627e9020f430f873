"""A ``traceparent`` goes from the request to the events of its rows, and into the log."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import nats
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from patience import PATIENCE_S
from server_process import ServerProcess

from kalam.tracing import read_trace

NAMESPACE = "traced"


def trace(number: int) -> str:
    return f"00-{number:032x}-{number:016x}-01"


@pytest.fixture(scope="module", autouse=True)
def _namespace(shared_server: ServerProcess) -> None:
    shared_server.sql(f"CREATE NAMESPACE {NAMESPACE}")


@asynccontextmanager
async def connected(server: ServerProcess) -> AsyncIterator[Client]:
    client = await nats.connect(server.nats_url)
    try:
        yield client
    finally:
        await client.close()


async def listen(client: Client, subject: str) -> asyncio.Queue[Msg]:
    events: asyncio.Queue[Msg] = asyncio.Queue()
    await client.subscribe(subject, cb=events.put)
    await client.flush()
    return events


def rows_of(event: Msg) -> list[Any]:
    body = json.loads(event.data)
    return [row["id"] for row in body["rows"]] if "rows" in body else [body["id"]]


async def traces_by_row(events: asyncio.Queue[Msg], count: int) -> dict[int, str | None]:
    """The trace that the event of each row has, for so many rows."""
    found: dict[int, str | None] = {}
    async with asyncio.timeout(PATIENCE_S):
        while len(found) < count:
            event = await events.get()
            found.update(dict.fromkeys(rows_of(event), (event.headers or {}).get("traceparent")))
    return found


def post(server: ServerProcess, path: str, body: bytes, **headers: str) -> None:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    with urllib.request.urlopen(urllib.request.Request(f"{server.http_url}{path}", body, named)) as answer:
        assert answer.status == 200


KINDS = {
    "SHARED": ("kalam.shared.traced.{}.>", "id BIGINT PRIMARY KEY, v TEXT", ""),
    "USER": ("kalam.user.ann.traced.{}.>", "id BIGINT PRIMARY KEY, v TEXT", ""),
    "STREAM": ("kalam.stream.traced.{}", "id BIGINT, v TEXT", ""),
    "keyed": ("kalam.shared.traced.{}.>", "id BIGINT PRIMARY KEY, v TEXT", "WITH (SUBJECT_KEY = 'v')"),
}


@pytest.mark.parametrize("kind", KINDS)
async def test_each_event_has_the_trace_of_the_message_that_its_rows_came_in(
    shared_server: ServerProcess, kind: str
) -> None:
    subject, columns, options = KINDS[kind]
    name = f"m_{kind.lower()}"
    shared_server.sql(f"CREATE {kind if kind != 'keyed' else 'SHARED'} TABLE traced.{name} ({columns}) {options}")
    async with connected(shared_server) as client:
        events = await listen(client, subject.format(name))

        async def insert(number: int, headers: dict[str, str] | None) -> None:
            rows = json.dumps([{"id": 2 * number, "v": "x"}, {"id": 2 * number + 1, "v": "x"}]).encode()
            answer = await client.request(f"kalam.api.ann.insert.traced.{name}", rows, headers=headers)
            assert json.loads(answer.data)["rows"] == 2

        # Sent at once, they are decoded, committed and published together.
        named = [{"traceparent": trace(1)}, {"Traceparent": trace(2)}, None, {"traceparent": trace(2)}, {"other": "x"}]
        await asyncio.gather(*(insert(number, headers) for number, headers in enumerate(named)))
        found = await traces_by_row(events, 2 * len(named))
    expected = [trace(1), trace(2), None, trace(2), None]
    assert found == {2 * number + row: each for number, each in enumerate(expected) for row in (0, 1)}


async def test_a_repeat_is_known_again_whatever_its_trace(shared_server: ServerProcess) -> None:
    shared_server.sql("CREATE STREAM TABLE traced.again (id BIGINT)")
    async with connected(shared_server) as client:
        for number in (1, 2):
            headers = {"Nats-Msg-Id": "the same", "traceparent": trace(number)}
            await client.request("kalam.api.ann.insert.traced.again", b'{"id": 7}', headers=headers)
    assert shared_server.sql("SELECT id FROM traced.again") == [[7]]


async def test_sql_and_bulk_rows_pass_their_trace_on(shared_server: ServerProcess) -> None:
    server = shared_server
    server.sql("CREATE TABLE traced.sql (id BIGINT PRIMARY KEY, v TEXT); CREATE STREAM TABLE traced.flow (id BIGINT)")
    json_type = {"Content_Type": "application/json"}
    async with connected(server) as client:
        events, flow = (
            await listen(client, "kalam.shared.traced.sql.>"),
            await listen(client, "kalam.stream.traced.flow"),
        )

        def run(sql: str, number: int) -> None:
            post(server, "/v1/sql", json.dumps({"sql": sql}).encode(), traceparent=trace(number), **json_type)

        await asyncio.to_thread(run, "INSERT INTO traced.sql VALUES (1, 'a'), (2, 'a')", 1)
        assert await traces_by_row(events, 2) == {1: trace(1), 2: trace(1)}
        await asyncio.to_thread(run, "UPDATE traced.sql SET v = 'b' WHERE id = 1", 2)
        assert await traces_by_row(events, 1) == {1: trace(2)}
        upsert = "INSERT INTO traced.sql VALUES (2, 'c'), (3, 'c') ON CONFLICT (id) DO UPDATE SET v = excluded.v"
        await asyncio.to_thread(run, upsert, 3)
        assert await traces_by_row(events, 2) == {2: trace(3), 3: trace(3)}
        await asyncio.to_thread(run, "INSERT INTO traced.flow VALUES (1)", 4)
        assert await traces_by_row(flow, 1) == {1: trace(4)}
        rows, path = b'{"id": 4, "v": "d"}\n', "/v1/tables/traced/sql/rows"
        ndjson = {"Content_Type": "application/x-ndjson", "traceparent": trace(5)}
        await asyncio.to_thread(lambda: post(server, path, rows, **ndjson))
        assert await traces_by_row(events, 1) == {4: trace(5)}
        delete = json.dumps({"sql": "DELETE FROM traced.sql WHERE id = 4"}).encode()
        await client.request("kalam.api.ann.sql", delete, headers={"traceparent": trace(6)}, timeout=PATIENCE_S)
        assert await traces_by_row(events, 1) == {4: trace(6)}
        server.sql("UPDATE traced.sql SET v = 'e' WHERE id = 1")
        assert await traces_by_row(events, 1) == {1: None}


@pytest.mark.parametrize(
    "text",
    [
        *("", "nonsense", trace(0), trace(1).upper().replace("0", "A"), f"{trace(1)}-more", f"ff{trace(1)[2:]}"),
        f"00-{1:032x}-{0:016x}-01",
        "00-00000000000000000000000000000001-0000000000000001-01\r\nInjected: 1",
    ],
)
def test_what_is_no_traceparent_is_ignored(text: str) -> None:
    assert read_trace(text) is None
    assert read_trace(trace(1)) == trace(1)


async def test_the_log_of_a_request_is_found_by_its_ids(
    start_kalam: Callable[..., ServerProcess], wait_until: Callable[[Callable[[], Any]], Awaitable[None]]
) -> None:
    server = start_kalam(flags=("--log-format=json",))
    server.sql("CREATE NAMESPACE a; CREATE TABLE a.t (id BIGINT PRIMARY KEY); INSERT INTO a.t VALUES (1)")
    headers = {"Content_Type": "application/json", "X_Kalam_Query_Id": "mine", "traceparent": trace(9)}
    await asyncio.to_thread(lambda: post(server, "/v1/sql", b'{"sql": "FLUSH TABLE a.t"}', **headers))

    def lines() -> list[dict[str, Any]]:
        return [json.loads(line) for line in server.log_text().splitlines() if line.startswith("{")]

    await wait_until(lambda: any(line.get("event") == "flushed" for line in lines()))
    (flushed,) = [line for line in lines() if line.get("event") == "flushed"]
    assert (flushed["query_id"], flushed["trace_id"]) == ("mine", f"{9:032x}")
    assert [line for line in lines() if line.get("query_id") == "mine"] == [flushed]
