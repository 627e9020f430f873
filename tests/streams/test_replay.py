"""Any JetStream consumer replays a STREAM table: by sequence, by time, by key. As the manual shows it, with nats-py."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

from foreign_program import Program
from nats.js.api import ConsumerConfig, DeliverPolicy

Connect = Callable[..., Awaitable[Program]]


async def replayed(program: Program, table: str, subject: str, config: ConsumerConfig) -> list[dict[str, Any]]:
    """All that a consumer delivers until nothing is pending."""
    stream = f"KALAM-{table.replace('.', '-')}"
    consumer = await program.broker.jetstream().pull_subscribe(subject, stream=stream, config=config)
    rows: list[dict[str, Any]] = []
    pending = (await consumer.consumer_info()).num_pending
    while len(rows) < pending:
        rows += [json.loads(message.data) for message in await consumer.fetch(pending - len(rows), timeout=10)]
    return rows


async def filled(program: Program, namespace: str, options: str = "") -> str:
    table = f"{namespace}.t"
    program.server.sql(f"CREATE STREAM TABLE {table} (id BIGINT, who TEXT)" + (options and f" WITH ({options})"))
    for number in range(1, 11):
        row = {"id": number, "who": "ann" if number % 2 else "bob"}
        assert (await program.insert(table, row)).json == {"rows": 1, "seq": number}
    return table


async def test_a_consumer_replays_everything(program: Program, namespace: str) -> None:
    table = await filled(program, namespace)
    rows = await replayed(program, table, f"kalam.stream.{table}", ConsumerConfig())
    assert [row["id"] for row in rows] == list(range(1, 11))
    assert rows[0] == {"id": 1, "who": "ann"}


async def test_a_consumer_starts_at_the_sequence_of_an_ack(program: Program, namespace: str) -> None:
    table = await filled(program, namespace)
    config = ConsumerConfig(deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=7)
    rows = await replayed(program, table, f"kalam.stream.{table}", config)
    assert [row["id"] for row in rows] == [7, 8, 9, 10]


async def test_a_consumer_starts_at_a_time(program: Program, namespace: str) -> None:
    table = await filled(program, namespace)
    await asyncio.sleep(0.01)  # so that the next row has a later time
    [[text]] = program.server.sql("SELECT CAST(now() AS TEXT)")
    moment = datetime.fromisoformat(text.replace("Z", "")).isoformat()
    await program.insert(table, {"id": 11})
    config = ConsumerConfig(deliver_policy=DeliverPolicy.BY_START_TIME, opt_start_time=f"{moment.split('+')[0]}Z")
    rows = await replayed(program, table, f"kalam.stream.{table}", config)
    assert [row["id"] for row in rows] == [11]


async def test_a_consumer_replays_one_key(program: Program, namespace: str) -> None:
    table = await filled(program, namespace, "subject_key = 'who'")
    rows = await replayed(program, table, f"kalam.stream.{table}.bob", ConsumerConfig())
    assert [row["id"] for row in rows] == [2, 4, 6, 8, 10]


async def test_a_consumer_replays_the_last_row_of_each_key(program: Program, namespace: str) -> None:
    table = await filled(program, namespace, "subject_key = 'who'")
    config = ConsumerConfig(deliver_policy=DeliverPolicy.LAST_PER_SUBJECT)
    rows = await replayed(program, table, f"kalam.stream.{table}.*", config)
    assert [row["id"] for row in rows] == [9, 10]


async def test_a_durable_consumer_goes_on_where_it_was(program: Program, namespace: str) -> None:
    table = await filled(program, namespace)
    stream = f"KALAM-{table.replace('.', '-')}"
    for expected in ([1, 2, 3, 4], [5, 6, 7, 8]):
        consumer = await program.broker.jetstream().pull_subscribe(
            f"kalam.stream.{table}", durable="report", stream=stream
        )
        messages = await consumer.fetch(4, timeout=10)
        assert [json.loads(message.data)["id"] for message in messages] == expected
        for message in messages:
            await message.ack_sync()
        await consumer.unsubscribe()


async def test_the_sequence_of_a_consumer_is_that_of_the_ack_and_of_the_key(program: Program, namespace: str) -> None:
    table = await filled(program, namespace)
    consumer = await program.broker.jetstream().subscribe(f"kalam.stream.{table}", ordered_consumer=True)
    keys = [key for [key] in program.server.sql(f"SELECT _key FROM {table}")]
    for key in keys:
        metadata = (await consumer.next_msg(10)).metadata
        assert key == f"{int(metadata.timestamp.timestamp() * 1_000)}:{metadata.sequence.stream}"
