"""What an answer says of rows that were not acknowledged, and inserts that must not fail or hang."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from foreign_program import Program
from held_process import held
from patience import PATIENCE_S
from server_process import ServerProcess, SqlFailed

Connect = Callable[..., Awaitable[Program]]
StartKalam = Callable[..., ServerProcess]


def stored(server: ServerProcess, table: str) -> list[int]:
    return [number for [number] in server.sql(f"SELECT id FROM {table}")]


async def test_a_stored_row_is_not_called_unstored_because_a_later_msg_id_was_refused(
    program: Program, namespace: str
) -> None:
    server, table, stream = program.server, f"{namespace}.t", f"KALAM-{namespace}-t"
    server.sql(f"CREATE STREAM TABLE {table} (id BIGINT, pad TEXT)")
    config = json.loads((await program.broker.request(f"$JS.API.STREAM.INFO.{stream}", b"")).data)["config"]
    narrow = json.dumps({**config, "max_msg_size": 500}).encode()
    assert "error" not in json.loads((await program.broker.request(f"$JS.API.STREAM.UPDATE.{stream}", narrow)).data)
    answers = await asyncio.gather(
        *(
            program.insert(table, {"id": n, "pad": "x" * (1_000 if n == 3 else 1)}, headers={"Nats-Msg-Id": str(n)})
            for n in range(5)
        )
    )
    held = stored(server, table)
    assert [n for n, answer in enumerate(answers) if answer.code and answer.json["stored"] == 0 and n in held] == []


async def test_the_number_of_stored_rows_is_right_when_one_in_the_middle_is_refused(
    start_kalam: StartKalam, start_nats_server: Callable[..., Any], connect: Connect
) -> None:
    kalam = {"user": "k", "password": "k", "permissions": {"publish": {"deny": ["kalam.stream.a.t.bad"]}}}
    broker = start_nats_server(authorization={"users": [kalam, {"user": "c", "password": "c"}]})
    server = start_kalam(flags=[f"--nats-url={broker.url.replace('//', '//k:k@')}"], KALAM_BROKER_TIMEOUT_S="1")
    server.sql("CREATE NAMESPACE a; CREATE STREAM TABLE a.t (id BIGINT, k TEXT) WITH (subject_key = 'k')")
    program = await connect(server, broker.url, user="c", password="c")
    answer = await program.insert("a.t", [{"id": n, "k": "bad" if n == 5 else "good"} for n in range(10)])
    assert answer.code == "broker_unavailable"
    assert answer.json["stored"] in ("unknown", len(stored(server, "a.t")))


async def test_a_foreign_message_does_not_make_arrays_larger_than_max_buffer_fail(
    program: Program, namespace: str
) -> None:
    server, table = program.server, f"{namespace}.t"
    server.sql(f"CREATE STREAM TABLE {table} (id BIGINT) WITH (max_buffer = 10)")
    array = [{"id": number} for number in range(100)]
    assert (await program.insert(table, array)).code is None
    await program.broker.publish(f"kalam.stream.{table}", b'{"id": -1}')
    assert [(await program.insert(table, array)).code for _ in range(3)] == [None, None, None]


async def test_a_subject_key_set_under_load_fails_no_insert_and_is_not_taken_back(
    program: Program, namespace: str
) -> None:
    server, stream = program.server, f"KALAM-{namespace}-t"
    server.sql(f"CREATE STREAM TABLE {namespace}.t (id BIGINT, k TEXT)")
    codes: set[str | None] = set()
    altered = False

    async def insert() -> None:
        while not altered and codes <= {None}:
            codes.add((await program.insert(f"{namespace}.t", {"id": 1, "k": "x"})).code)

    inserting = [asyncio.create_task(insert()) for _ in range(8)]
    await program.insert(f"{namespace}.t", {"id": 1, "k": "x"})
    await asyncio.to_thread(server.sql, f"ALTER TABLE {namespace}.t SET (subject_key = 'k', max_buffer = 500)")
    altered = True
    await asyncio.gather(*inserting)
    config = json.loads((await program.broker.request(f"$JS.API.STREAM.INFO.{stream}", b"")).data)["config"]
    assert config["max_msgs"] == 500
    assert f"kalam.stream.{namespace}.t.*" in config["subjects"]
    assert codes == {None}


@asynccontextmanager
async def wire(port: int) -> AsyncIterator[tuple[str, asyncio.Event]]:
    """A proxy to the broker: its URL, and whether it forwards; a connection that was once cut stays silent."""
    whole, tasks, writers = asyncio.Event(), [], []
    whole.set()

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65_536):
            if not whole.is_set():
                await asyncio.Event().wait()
            sink.write(data)
            await sink.drain()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", port)
        writers.extend((writer, there_writer))
        tasks.extend(asyncio.create_task(pump(*ends)) for ends in ((reader, there_writer), (there_reader, writer)))

    proxy = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"nats://127.0.0.1:{proxy.sockets[0].getsockname()[1]}", whole
    finally:
        proxy.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for writer in writers:
            writer.transport.abort()
        await asyncio.sleep(0)  # in which they close


async def test_an_insert_whose_bytes_nobody_took_does_not_stop_its_table_for_ever(
    start_kalam: StartKalam, nats_server: Any
) -> None:
    async with wire(int(nats_server.url.rpartition(":")[2])) as (url, whole):
        server = await asyncio.to_thread(start_kalam, flags=[f"--nats-url={url}"], KALAM_BROKER_TIMEOUT_S="1")

        async def sql(text: str, *params: Any) -> Any:
            return await asyncio.to_thread(server.sql, text, *params)

        await sql("CREATE NAMESPACE a; CREATE STREAM TABLE a.t (id BIGINT, pad TEXT)")
        await sql("CREATE SHARED TABLE a.pads (pad TEXT); INSERT INTO a.pads VALUES ($1)", "x" * 500_000)
        await sql("INSERT INTO a.t VALUES (1, '')")
        whole.clear()
        large = asyncio.create_task(sql("INSERT INTO a.t SELECT value, pad FROM range(2, 42), a.pads"))  # 20 MB
        await asyncio.sleep(2)
        whole.set()  # new connections work; the old one stays silent
        async with asyncio.timeout(90):  # a peer is taken for dead after three pings of 10 s
            while True:
                try:
                    await asyncio.wait_for(sql("INSERT INTO a.t VALUES (99, '')"), 10)
                    break
                except (SqlFailed, TimeoutError):
                    await asyncio.sleep(0.5)
        with pytest.raises(SqlFailed, match="broker_unavailable"):
            await large


async def test_a_repeat_of_an_insert_of_unknown_outcome_is_not_stored_twice(
    start_kalam: StartKalam, nats_server: Any, wait_for: Callable[..., Any]
) -> None:
    server = start_kalam(flags=[f"--nats-url={nats_server.url}"], KALAM_BROKER_TIMEOUT_S="1")
    server.sql("CREATE NAMESPACE a; CREATE STREAM TABLE a.t (id BIGINT)")
    rows = [{"id": number} for number in range(300)]

    def send() -> tuple[int, Any]:
        request = urllib.request.Request(
            f"{server.http_url}/v1/tables/a/t/rows",
            json.dumps(rows).encode(),
            {"Content-Type": "application/json", "Idempotency-Key": "once"},
        )
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
                return response.status, json.loads(response.read())
        except urllib.error.HTTPError as exc:
            return exc.code, json.loads(exc.read())

    server.sql("INSERT INTO a.t VALUES (-1)")
    with held(nats_server.pid):
        status, problem = await asyncio.to_thread(send)
    assert (status, problem["code"], problem["stored"]) == (503, "broker_unavailable", "unknown")
    await asyncio.to_thread(wait_for, lambda: len(stored(server, "a.t")) == 301)  # it was stored after all
    assert await asyncio.to_thread(send) == (200, {"rows": 300, "seq": 301})
    assert await asyncio.to_thread(send) == (200, {"rows": 300, "seq": 301})
    server.sql("INSERT INTO a.t VALUES (300)")
    assert stored(server, "a.t") == [-1, *range(301)]


async def test_a_repeat_keeps_its_answer_when_what_came_with_it_fails(program: Program, namespace: str) -> None:
    server, table, stream = program.server, f"{namespace}.t", f"KALAM-{namespace}-t"
    server.sql(f"CREATE STREAM TABLE {table} (id BIGINT, pad TEXT)")
    config = json.loads((await program.broker.request(f"$JS.API.STREAM.INFO.{stream}", b"")).data)["config"]
    narrow = json.dumps({**config, "max_msg_size": 500}).encode()
    assert "error" not in json.loads((await program.broker.request(f"$JS.API.STREAM.UPDATE.{stream}", narrow)).data)
    first = await program.insert(table, {"id": 1, "pad": ""}, headers={"Nats-Msg-Id": "one"})
    assert first.json == {"rows": 1, "seq": 1}
    repeat, refused = await asyncio.gather(
        program.insert(table, {"id": 1, "pad": ""}, headers={"Nats-Msg-Id": "one"}),
        program.insert(table, {"id": 2, "pad": "x" * 1_000}, headers={"Nats-Msg-Id": "two"}),
    )
    assert repeat.json == first.json
    assert refused.code == "broker_unavailable"


async def test_an_id_of_a_message_that_was_no_row_is_free_for_the_one_that_is(program: Program, namespace: str) -> None:
    table = f"{namespace}.t"
    program.server.sql(f"CREATE STREAM TABLE {table} (id BIGINT)")
    wrong, right, again = await asyncio.gather(
        program.insert(table, {"id": "x"}, headers={"Nats-Msg-Id": "one"}),
        program.insert(table, {"id": 1}, headers={"Nats-Msg-Id": "one"}),
        program.insert(table, {"id": 1}, headers={"Nats-Msg-Id": "one"}),
    )
    assert (wrong.code, right.json, again.json) == ("invalid_value", {"rows": 1, "seq": 1}, {"rows": 1, "seq": 1})
