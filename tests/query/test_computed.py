"""The process that computes what views ask of batch after batch: what it is told, and what it keeps."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pyarrow as pa
import pytest

from kalam.errors import ColumnNotFound
from kalam.query import computed
from kalam.query.computed import ComputedQuery, ComputeProcess
from kalam.query.forks import Forks
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
