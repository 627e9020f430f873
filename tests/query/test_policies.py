"""The expression of a policy is planned as a WHERE over its table before it is taken."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from login_book import open_database

from kalam.access.book import Book
from kalam.access.rights import Rights
from kalam.errors import InvalidValue, KalamError, Unsupported
from kalam.names import TableName
from kalam.query.forks import Forks
from kalam.query.judge import JudgeProcess
from kalam.query.policies import Policies
from kalam.query.worker.limits import Limits
from kalam.schema import Column, DataType, StoredOptions, Table, TableKind, TypeName

TABLE = Table(
    name=TableName("app", "notes"),
    kind=TableKind.SHARED,
    columns=(
        Column(column_id=1, name="id", type=DataType(name=TypeName.BIGINT)),
        Column(column_id=2, name="owner", type=DataType(name=TypeName.TEXT)),
        Column(column_id=3, name="open", type=DataType(name=TypeName.BOOLEAN)),
    ),
    key=("id",),
    options=StoredOptions(),
    table_id=7,
    schema_version=1,
    created_at=datetime.now(UTC),
)


@pytest.fixture
async def policies(tmp_path: Path) -> AsyncIterator[Policies]:
    database = open_database(tmp_path)
    book = Book(database)
    book.load()
    forks = Forks(Limits(memory_bytes=128 << 20, partitions=1))
    yield Policies(Rights(book, on=True), JudgeProcess(forks))
    await forks.stop()
    database.close()


async def test_a_condition_is_taken_and_what_is_none_is_told(policies: Policies) -> None:
    assert await policies.check(TABLE, "owner = CURRENT_USER() OR open", "ada") == {"owner", "open"}
    assert await policies.check(TABLE, "owner = ANY(CURRENT_ROLES())", "ada") == {"owner"}
    wrong: list[tuple[str, type[KalamError], str]] = [
        ("id + 1", InvalidValue, "BOOLEAN"),
        ("owner", InvalidValue, "BOOLEAN"),
        ("no_such_function(owner)", Unsupported, "no_such_function"),
        ("id > random()", Unsupported, "random()"),
    ]
    for text, error, part in wrong:
        with pytest.raises(error) as raised:
            await policies.check(TABLE, text, "ada")
        assert part in raised.value.detail, text
