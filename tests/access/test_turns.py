"""Turns: each address in turn, a bounded line, and a place that nobody loses who leaves."""

from __future__ import annotations

import asyncio

import pytest

from kalam.access.turns import Turns
from kalam.errors import TooBusy


class Line:
    """Those who wait at some turns, and the order in which they had theirs."""

    def __init__(self, turns: Turns) -> None:
        self.turns, self.order = turns, list[str]()
        self.end = asyncio.Event()
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def _work(self, address: str, name: str) -> None:
        async with self.turns.turn(address):
            self.order.append(name)
            await self.end.wait()

    async def come(self, address: str, name: str) -> asyncio.Task[None]:
        task = self.tasks[name] = asyncio.create_task(self._work(address, name))
        await asyncio.sleep(0)
        return task

    async def finish(self) -> list[str]:
        self.end.set()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)
        return self.order


async def test_addresses_take_turns_whatever_the_length_of_their_lines() -> None:
    line = Line(Turns(1, 100))
    for name in ("a0", "a1", "a2", "a3", "b0", "b1", "c0"):
        await line.come(name[0], name)
    assert await line.finish() == ["a0", "a1", "b0", "c0", "a2", "b1", "a3"]


async def test_so_many_work_at_once_and_no_more() -> None:
    line = Line(Turns(2, 100))
    for name in ("a0", "a1", "a2"):
        await line.come("a", name)
    assert line.order == ["a0", "a1"]
    assert line.turns.waiting == 1
    await line.finish()
    assert line.turns.waiting == 0


async def test_a_full_line_refuses_the_longest() -> None:
    line = Line(Turns(1, 4))
    for name in ("a0", "a1", "a2", "a3", "a4"):
        await line.come("a", name)
    one_more = await line.come("a", "a5")
    assert isinstance(one_more.exception(), TooBusy)
    other = await line.come("b", "b0")
    assert not other.done()
    await asyncio.sleep(0)
    refused = line.tasks["a4"].exception()
    assert isinstance(refused, TooBusy)
    assert refused.fields == {"retry_after": 1}
    assert await line.finish() == ["a0", "a1", "b0", "a2", "a3"]


async def test_lines_of_one_each_refuse_who_comes() -> None:
    line = Line(Turns(1, 2))
    for name in ("a", "b", "c"):
        await line.come(name, name)
    late = await line.come("d", "d")
    assert isinstance(late.exception(), TooBusy)
    assert await line.finish() == ["a", "b", "c"]


async def test_who_leaves_the_line_takes_no_turn() -> None:
    line = Line(Turns(1, 100))
    for name in ("a0", "a1", "b0"):
        await line.come(name[0], name)
    line.tasks["a1"].cancel()
    await asyncio.sleep(0)
    assert await line.finish() == ["a0", "b0"]
    assert line.turns.waiting == 0


async def test_a_turn_that_comes_together_with_the_leaving_is_passed_on() -> None:
    line = Line(Turns(1, 100))
    async with line.turns.turn("a"):
        leaving = await line.come("a", "a0")
        await line.come("a", "a1")
    leaving.cancel()  # it has its turn, and has not heard of it
    assert await line.finish() == ["a1"]
    async with asyncio.timeout(5), line.turns.turn("a"):
        assert line.turns.waiting == 0


@pytest.mark.parametrize("error", [ValueError, asyncio.CancelledError])
async def test_who_fails_gives_the_turn_back(error: type[BaseException]) -> None:
    turns = Turns(1, 0)
    for _ in range(3):
        with pytest.raises(error):
            async with turns.turn("a"):
                raise error
