"""The process that judges the conditions of live queries: what it is told, and what it lets go of."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator

import pytest

from kalam.names import TableName
from kalam.query.forks import Forks
from kalam.query.judge import Judge, JudgeProcess
from kalam.query.lone_worker import LoneWorker
from kalam.query.predicate import Predicate
from kalam.query.wire import Judge as JudgeQuestion
from kalam.query.worker.limits import Limits
from kalam.schema import Column, DataType, TypeName
from kalam.sql.queries.pins import Condition
from kalam.threads import Purpose, in_thread

COLUMNS = [Column(column_id=1, name="v", type=DataType(name=TypeName.BIGINT))]


@pytest.fixture
async def judge() -> AsyncIterator[Judge]:
    forks = Forks(Limits(memory_bytes=128 << 20, partitions=1))
    process = JudgeProcess(forks)
    process.open()
    yield Judge(process, TableName("a", "t"), COLUMNS)
    await forks.stop()


def condition(text: str) -> Predicate:
    asks = Condition(columns=frozenset({"v"}), pins=(), whole=False, reads_clock=False)
    return Predicate(text, (), asks, {"v": 0})


async def test_conditions_that_are_gone_are_told_to_the_process_once(
    judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[int, int]] = []
    ask = LoneWorker.ask

    def spied(worker: LoneWorker, question: JudgeQuestion) -> bytes:
        told.append((len(question.told), len(question.forget)))
        return ask(worker, question)

    monkeypatch.setattr(LoneWorker, "ask", spied)
    staying = condition("v > 1")
    leaving = [condition(f"v > {number}") for number in range(3)]
    for asked in ([staying], [staying, *leaving], [staying]):
        verdicts = await in_thread(Purpose.LIVE, judge.judge, asked, [(1,), (2,)])
        assert verdicts[staying] == [1]
    del asked, leaving, verdicts
    gc.collect()
    for _ in range(2):
        assert await in_thread(Purpose.LIVE, judge.judge, [staying], [(2,), (0,), (3,)]) == {staying: [0, 2]}
    assert told == [(1, 0), (3, 0), (0, 0), (0, 3), (0, 0)]
