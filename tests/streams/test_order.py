"""The order of a table's events is that of its inserts, whatever each insert has to wait for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from foreign_program import Program

WaitFor = Callable[[Callable[[], Any]], Any]


def steps_back(numbers: list[int]) -> list[tuple[int, int]]:
    """The neighbours of which the later one was inserted first."""
    return [(one, next_one) for one, next_one in pairwise(numbers) if next_one < one]


def stored(program: Program, table: str) -> list[int]:
    return [number for [number] in program.server.sql(f"SELECT id FROM {table}")]


async def test_an_insert_with_a_msg_id_is_not_overtaken_by_later_ones(
    program: Program, namespace: str, wait_for: WaitFor
) -> None:
    table = f"{namespace}.t"
    program.server.sql(f"CREATE STREAM TABLE {table} (id BIGINT)")
    number = 0
    for _ in range(10):
        for headed in [True] * 20 + [False] * 20:
            headers = {"Nats-Msg-Id": str(number)} if headed else None
            await program.broker.publish(f"kalam.api.ann.insert.{table}", b'{"id":%d}' % number, headers=headers)
            number += 1
            if number % 20 == 0:
                await program.broker.flush()
    await asyncio.to_thread(wait_for, lambda: len(stored(program, table)) == number)
    assert steps_back(stored(program, table)) == []


async def test_inserts_of_two_users_on_one_connection_keep_their_order(
    program: Program, namespace: str, wait_for: WaitFor
) -> None:
    table = f"{namespace}.t"
    program.server.sql(f"CREATE STREAM TABLE {table} (id BIGINT)")
    for number in range(1_000):
        user = "ann" if number % 2 else "bob"
        await program.broker.publish(f"kalam.api.{user}.insert.{table}", b'{"id":%d}' % number)
    await asyncio.to_thread(wait_for, lambda: len(stored(program, table)) == 1_000)
    assert steps_back(stored(program, table)) == []


async def test_an_ephemeral_insert_that_asks_is_not_overtaken_by_one_that_need_not(
    program: Program, namespace: str
) -> None:
    table = f"{namespace}.t"
    program.server.sql(
        f"CREATE STREAM TABLE {table} (id BIGINT, k TEXT) "
        "WITH (ephemeral = true, subject_key = 'k', max_buffer = 99999)"
    )
    await program.listen(f"kalam.stream.{table}.*")
    last: Any = None
    for turn in range(200):
        one = {"id": 2 * turn, "k": f"new{turn}"}
        many = [{"id": 2 * turn + 1, "k": f"k{key}"} for key in range(17)]  # so many keys are stored unasked
        await program.broker.publish(f"kalam.api.ann.insert.{table}", json.dumps(one).encode())
        await program.broker.flush()
        last = await program.insert(table, many)
    assert last.code is None
    assert steps_back(stored(program, table)) == []


async def test_inserts_with_ids_that_wait_for_their_turn_are_published_together(
    program: Program, namespace: str
) -> None:
    """Each has its own answer, also where another one beside it is a repeat or no row."""
    table = f"{namespace}.t"
    program.server.sql(f"CREATE STREAM TABLE {table} (id BIGINT)")
    acked: dict[int, dict[str, Any]] = {}

    async def insert(first: int) -> None:
        for number in range(first, 400, 20):
            headers = {"Nats-Msg-Id": f"m{number}"}
            answer = await program.insert(table, {"id": number}, headers=headers)
            acked[number] = answer.json
            repeat, wrong, many = await asyncio.gather(
                program.insert(table, {"id": number}, headers=headers),
                program.insert(table, {"id": "x"}, headers={"Nats-Msg-Id": f"w{number}"}),
                program.insert(table, [{"id": 1_000 + number}] * 3, headers={"Nats-Msg-Id": f"n{number}"}),
            )
            assert (repeat.json, wrong.code, many.json["rows"]) == (answer.json, "invalid_value", 3)
            acked[1_000 + number] = many.json

    await asyncio.gather(*map(insert, range(20)))
    numbers = stored(program, table)
    assert sorted(numbers) == sorted([*range(400), *[*range(1_000, 1_400)] * 3])
    assert {number: answer["seq"] for number, answer in acked.items()} == {
        number: seq for seq, number in enumerate(numbers, 1)
    }
