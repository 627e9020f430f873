"""Tables for the codec: columns by name and type, without a server."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from kalam.names import TableName
from kalam.rows.codec import Codec
from kalam.rows.ids import SnowflakeIds, UuidV7s
from kalam.rows.normalise import Generators
from kalam.schema import Table
from kalam.sql import parse_statement, split, table_options
from kalam.sql.text.statements import CreateTable

MakeCodec = Callable[[str], Codec]


@pytest.fixture(scope="session")
def codec_of() -> MakeCodec:
    """The codec of the table that a CREATE TABLE text asks for."""

    def codec_of(text: str) -> Codec:
        statement = parse_statement(split(text)[0])
        assert isinstance(statement, CreateTable)
        options = table_options(statement.kind, statement.options, statement.columns)
        table = Table(
            name=TableName("n", "t"),
            kind=statement.kind,
            columns=statement.columns,
            key=statement.key,
            options=options,
            table_id=1,
            schema_version=1,
            created_at=datetime(2026, 1, 1, tzinfo=UTC),
        )
        return Codec(table, Generators(SnowflakeIds(), UuidV7s()))

    return codec_of
