"""Writes that wait for room: in the order in which they came, and no longer than they may."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from kalam.tables import room as room_module
from kalam.tables.room import Room


def table(table_id: int = 1) -> Any:
    return SimpleNamespace(table_id=table_id)


async def test_writes_go_on_in_the_order_in_which_they_came_and_none_overtakes() -> None:
    room, full, done = Room(), {1}, list[int]()
    room.hold_back(lambda asked: asked.table_id in full)

    async def write(number: int) -> None:
        await room.wait(table())
        done.append(number)

    waiting = [asyncio.create_task(write(number)) for number in range(4)]
    while room.waiting(table()) < 4:  # noqa: ASYNC110 - nothing tells of who waits
        await asyncio.sleep(0)
    assert done == []
    full.clear()
    await write(4)  # which finds room, and others before it
    await asyncio.gather(*waiting)
    assert done == [0, 1, 2, 3, 4]
    assert room.waiting(table()) == 0


async def test_a_table_with_room_waits_for_no_other() -> None:
    room = Room()
    room.hold_back(lambda asked: asked.table_id == 1)
    waiting = asyncio.create_task(room.wait(table()))
    while not room.waiting(table()):  # noqa: ASYNC110 - nothing tells of who waits
        await asyncio.sleep(0)
    await room.wait(table(2))
    assert not waiting.done()
    waiting.cancel()
    await asyncio.wait([waiting])
    assert room.waiting(table()) == 0


async def test_writes_that_came_together_wait_no_longer_than_one(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now_s=0.0)
    monkeypatch.setattr(room_module, "time", SimpleNamespace(monotonic=lambda: clock.now_s))
    room = Room()
    room.hold_back(lambda asked: True)
    waiting = [asyncio.create_task(room.wait(table())) for _ in range(20)]
    while room.waiting(table()) < 20:  # noqa: ASYNC110 - nothing tells of who waits
        await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)
    clock.now_s = room_module.HELD_BACK_S
    await asyncio.gather(*waiting)
