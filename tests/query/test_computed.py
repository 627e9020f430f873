"""The process that computes what views ask of batch after batch: what it is told, and what it keeps."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine
from concurrent.futures import Future
from typing import Any

import pyarrow as pa
import pytest
from patience import PATIENCE_S

from kalam.errors import ColumnNotFound
from kalam.query import computed
from kalam.query.computed import ComputedQuery, ComputeProcess
from kalam.query.forks import Fork, Forks
from kalam.query.lone_worker import LoneWorker
from kalam.query.wire import Compute
from kalam.query.worker.limits import Limits
from kalam.threads import Purpose, in_thread

SMALL = pa.schema([pa.field("v", pa.int32())])
LARGE = pa.schema([pa.field("v", pa.decimal128(20, 2))])


@pytest.fixture
async def process() -> AsyncIterator[ComputeProcess]:
    forks = Forks(Limits(memory_bytes=128 << 20, partitions=1))
    process = ComputeProcess(forks)
    process.open()
    yield process
    await forks.stop()


def query(process: ComputeProcess, text: str, schema: pa.Schema) -> ComputedQuery:
    return ComputedQuery.of(process, "a", "t", text, schema)


async def test_the_columns_of_a_query_are_those_of_its_text_and_of_its_table(process: ComputeProcess) -> None:
    def asked() -> list[str]:
        texts = ("SELECT v FROM a.t", "SELECT v + v AS w FROM a.t")
        return [str(query(process, text, schema).schema()) for text in texts for schema in (SMALL, LARGE, SMALL)]

    found = await in_thread(Purpose.LIVE, asked)
    assert found[0] == found[2] == "v: int32"
    assert found[1] == "v: decimal128(20, 2)"
    assert found[3] == found[5] != found[4]
    assert found == await in_thread(Purpose.LIVE, asked)


async def test_columns_are_kept_of_so_many_queries_and_of_none_that_fails(
    process: ComputeProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(computed, "SCHEMAS_MAX", 2)

    def asked(text: str) -> str:
        return str(query(process, text, SMALL).schema())

    for number in range(5):
        assert await in_thread(Purpose.LIVE, asked, f"SELECT v AS v{number} FROM a.t") == f"v{number}: int32"
    assert len(process.schemas) == 2
    for _ in range(2):
        with pytest.raises(ColumnNotFound):
            await in_thread(Purpose.LIVE, asked, "SELECT nothing FROM a.t")
    assert len(process.schemas) == 2


async def test_a_query_is_let_go_of_while_another_waits_for_its_process(
    process: ComputeProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event loop makes the process: it must not wait for one that waits for that."""
    waits = threading.Event()
    threadsafe = asyncio.run_coroutine_threadsafe

    def spied(work: Coroutine[Any, Any, Fork], loop: asyncio.AbstractEventLoop) -> Future[Fork]:
        asked = threadsafe(work, loop)
        waits.set()
        return asked

    monkeypatch.setattr(asyncio, "run_coroutine_threadsafe", spied)
    waiting, leaving = (query(process, f"SELECT v + {number} AS w FROM a.t", SMALL) for number in (1, 2))
    rows = pa.table({"v": [1]}, SMALL)
    running = asyncio.ensure_future(in_thread(Purpose.LIVE, waiting.run, rows))
    await asyncio.sleep(0)
    assert waits.wait(PATIENCE_S)
    closing = threading.Thread(target=leaving.close, daemon=True)
    closing.start()
    closing.join(PATIENCE_S)  # the loop is held up meanwhile: the process cannot be there yet
    assert not closing.is_alive()
    assert (await running).to_pylist() == [{"w": 2}]


async def test_what_is_let_go_of_is_told_to_the_process_once(
    process: ComputeProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[bool, int]] = []
    ask = LoneWorker.ask

    def spied(worker: LoneWorker, question: Compute) -> bytes:
        told.append((question.told is not None, len(question.forget)))
        return ask(worker, question)

    monkeypatch.setattr(LoneWorker, "ask", spied)
    staying, leaving = (query(process, f"SELECT v + {number} AS w FROM a.t", SMALL) for number in (1, 2))
    rows = pa.table({"v": [1]}, SMALL)
    for each in (leaving, staying, leaving):
        await in_thread(Purpose.LIVE, each.run, rows)
    leaving.close()
    for _ in range(2):
        assert (await in_thread(Purpose.LIVE, staying.run, rows)).to_pylist() == [{"w": 2}]
    assert told == [(True, 0), (True, 0), (False, 0), (False, 1), (False, 0)]
