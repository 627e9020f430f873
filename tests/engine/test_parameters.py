"""Parameters that are lists, that come with types, and many rows of them at once."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa
import pytest
from asking import asking
from patience import PATIENCE_S
from server_process import ServerProcess, SqlFailed

from kalam.engine import Caller, PointRow, position_of
from kalam.errors import DuplicateKey, InvalidValue, KalamError, TooLarge, Unsupported
from kalam.server import open_server
from kalam.settings import Settings

AT, DAY, ID = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC), date(2026, 1, 2), UUID("0189c8a6-1111-7222-8333-444455556666")
INSERT = "INSERT INTO lab.t (id, u, j, p, at, d, s, x, b) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)"


@asynccontextmanager
async def opened(data_dir: Path, **settings: Any) -> AsyncIterator[Caller]:
    async with open_server(Settings(data_dir=data_dir, http_port=0, nats_port=0, **settings)) as running:
        caller = asking(running)
        await caller.execute(
            "CREATE NAMESPACE lab; CREATE TABLE lab.t (id INT PRIMARY KEY, u UUID, j JSON, p DECIMAL(10,2), "
            "at TIMESTAMP, d DATE, s VARCHAR(20), x DOUBLE, b BLOB)"
        )
        yield caller


async def test_values_are_bound_as_what_they_are_and_scalars_with_their_types(data_dir: Path) -> None:
    async with opened(data_dir, statement_rows_max=1_000) as caller:

        async def rows(text: str, *params: Any) -> list[tuple[Any, ...]]:
            data = (await caller.execute(text, params))[-1].data
            assert data is not None
            return list(zip(*data.to_pydict().values(), strict=True))

        values = (ID, {"a": 1}, Decimal("1.50"), AT, DAY, "x", 0.1, b"\0\1")
        await caller.execute(INSERT, (1, *values))
        scalars = (pa.scalar(str(ID)), pa.scalar('{"a": 1}'), pa.scalar(Decimal("1.50")), pa.scalar(AT), pa.scalar(DAY))
        await caller.execute(INSERT, (pa.scalar(2, pa.int16()), *scalars, "x", pa.scalar(0.1), pa.scalar(b"\0\1")))
        await caller.execute(INSERT, (3, *[pa.scalar(None, pa.string())] * 8))
        for column, value in zip(("u", "j", "p", "at", "d", "s", "x", "b"), values, strict=True):
            text = f"SELECT id FROM lab.t WHERE {column} = $1 ORDER BY id"
            assert await rows(text, value) == [(1,), (2,)], column
            if column not in ("u", "j"):
                assert await rows(text, pa.scalar(value)) == [(1,), (2,)], column
        assert await rows("SELECT id FROM lab.t WHERE at = $1 ORDER BY id", AT.replace(tzinfo=None)) == [(1,), (2,)]
        assert await rows("SELECT id FROM lab.t WHERE id = $1", pa.scalar(1, pa.int64())) == [(1,)]
        assert await rows("SELECT at + $1 FROM lab.t WHERE id = 1", timedelta(days=1)) == [(AT + timedelta(days=1),)]

        ids = "SELECT id FROM lab.t WHERE id = ANY($1) ORDER BY id"
        assert await rows(ids, [1, 3]) == [(1,), (3,)]
        assert await rows(ids, pa.scalar([1, 3], pa.list_(pa.int64()))) == [(1,), (3,)]
        assert await rows(ids, []) == await rows(ids, pa.scalar(None, pa.list_(pa.int32()))) == []
        assert await rows("SELECT id FROM lab.t WHERE u = ANY($1)", [str(ID)]) == [(1,), (2,)]
        assert await rows("SELECT id FROM lab.t WHERE id <> ALL($1)", [1, 2]) == [(3,)]
        await caller.execute("UPDATE lab.t SET j = $1 WHERE id > 2", [[1, 2]])
        await caller.execute("UPDATE lab.t SET j = $1 WHERE id = 1", [["a", {"b": []}]])
        assert await rows("SELECT j FROM lab.t WHERE id <> 2 ORDER BY id") == [('["a",{"b":[]}]',), ("[1,2]",)]

        for kind in (pa.int32(), pa.float64(), pa.timestamp("us", "UTC"), pa.decimal128(10, 2), pa.date32()):
            found = (await caller.execute("SELECT $1 AS v", [pa.scalar(None, kind)]))[-1].data
            assert found is not None
            assert found.schema.field(0).type == kind
        described = await caller.describe("SELECT $1, $2, $3", (pa.int32(), None, pa.list_(pa.string())))
        assert [field.type for field in described.parameters] == [pa.int32(), pa.string(), pa.list_(pa.string())]

        point = "SELECT s, at, p, j, u, b FROM lab.t WHERE id = $1"
        assert caller.look_row(point, [1]) is None  # the first time a text is read, it has to be run
        [selected] = await caller.execute(point, [1])
        assert selected.data is not None
        for params in ([1], [pa.scalar(1, pa.int32())]):
            looked = caller.look_row(point, params)
            assert looked is not None
            assert looked.row is not None
            assert looked.fields.equals(selected.data.schema, check_metadata=True)
            assert dict(zip(looked.fields.names, looked.row, strict=True)) == selected.data.to_pylist()[0]
        assert caller.look_row(point, [99]) == PointRow(looked.fields, None)

        text = "INSERT INTO lab.t (id, s) VALUES ($1, $2), ($3, 'y') RETURNING id"
        many = await caller.execute_many(text, [(10, "a", 11), (12, "b", 13)])
        assert many.data is not None
        assert many.data.column("id").to_pylist() == [10, 11, 12, 13]
        with pytest.raises(TooLarge):
            await caller.execute_many(text, [(number, "a", -number) for number in range(100, 800)])

        with pytest.raises(KalamError) as caught:
            await caller.execute("SELECT 1;\nSELECT\n  nope FROM lab.t")
        assert position_of("SELECT 1;\nSELECT\n  nope FROM lab.t", caught.value) == 20
        assert position_of("", InvalidValue("somewhere")) is None


@pytest.fixture(scope="module")
def server(shared_server: ServerProcess) -> ServerProcess:
    shared_server.sql(
        "CREATE NAMESPACE lab; CREATE TABLE lab.t (id BIGINT PRIMARY KEY, s VARCHAR(5), x DOUBLE, p DECIMAL(6,2), "
        "at TIMESTAMP, j JSON); CREATE STREAM TABLE lab.e (a INT)"
    )
    return shared_server


def many(server: ServerProcess, text: str, rows: list[list[Any]], **members: Any) -> Any:
    """The one result of a request with rows of parameters."""
    body = json.dumps({"sql": text, "rows": rows, **members}).encode()
    request = urllib.request.Request(f"{server.http_url}/v1/sql", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
            [result] = json.load(response)["results"]
            return result
    except urllib.error.HTTPError as exc:
        raise SqlFailed(exc.code, json.load(exc)) from None


def test_many_rows_of_parameters_are_one_statement(server: ServerProcess) -> None:
    text = "INSERT INTO lab.t (id, s, x) VALUES ($1, $2, 1.5)"
    assert many(server, text, [[number, f"s{number}"] for number in range(100)])["row_count"] == 100
    assert server.sql("SELECT count(*), max(s), min(x) FROM lab.t WHERE id < 100") == [[100, "s99", 1.5]]
    for wrong, code in (([100, "s"], "duplicate_key"), ([101, "too long"], "invalid_value"), ([101], "invalid_value")):
        with pytest.raises(SqlFailed) as caught:
            many(server, text, [[200, "s"], wrong, [100, "s"]])
        assert caught.value.code == code
        assert server.sql("SELECT count(*) FROM lab.t WHERE id >= 100") == [[0]]
    assert many(server, "INSERT INTO lab.e VALUES ($1)", [[1], [2]])["row_count"] == 2
    assert many(server, text, [])["row_count"] == 0


@pytest.mark.parametrize(
    "text",
    [
        "SELECT $1",
        "UPDATE lab.t SET x = $1",
        "INSERT INTO lab.t (id) SELECT $1",
        "INSERT INTO lab.t (id) VALUES ($1 + 1)",
        "INSERT INTO lab.t (s) VALUES ($1::DATE)",
        "INSERT INTO lab.t (id) VALUES ($1) ON CONFLICT DO NOTHING",
    ],
)
def test_other_statements_take_no_rows_of_parameters(server: ServerProcess, text: str) -> None:
    with pytest.raises(SqlFailed) as caught:
        many(server, text, [[1]])
    assert caught.value.code == Unsupported.code


def test_rows_stand_instead_of_params_and_duplicates_within_them_are_refused(server: ServerProcess) -> None:
    text = "INSERT INTO lab.t (id) VALUES ($1)"
    with pytest.raises(SqlFailed) as caught:
        many(server, text, [[1]], params=[1])
    assert caught.value.code == InvalidValue.code
    with pytest.raises(SqlFailed) as caught:
        many(server, text, [[1000], [1000]])
    assert caught.value.code == DuplicateKey.code


@pytest.mark.parametrize(
    ("values", "given", "stored"),
    [
        ("$1::BIGINT, $2::VARCHAR, $3::FLOAT", ["-1", "abc", 0.1], [-1, "abc", 0.1]),
        ("$1::INT8, CAST($2 AS TEXT), CAST($3 AS DOUBLE PRECISION)", [-1, 17, "0.1"], [-1, "17", 0.1]),
        ("$1::SMALLINT, $2::VARCHAR(3), $3::REAL", [-1, "abc", 0.5], [-1, "abc", 0.5]),
        ("$1 :: bigint, $2::TEXT || 'd', $3", [-1, "abc", None], [-1, "abcd", None]),
    ],
)
def test_a_parameter_with_a_cast_is_what_it_is_cast_to(
    server: ServerProcess, values: str, given: list[Any], stored: list[Any]
) -> None:
    server.sql(f"INSERT INTO lab.t (id, s, x) VALUES ({values})", *given)
    assert server.sql("DELETE FROM lab.t WHERE id = -1 RETURNING id, s, x") == [stored]


def test_a_cast_that_a_value_does_not_stand_is_refused(server: ServerProcess) -> None:
    for value, given in (("$1::SMALLINT", 70_000), ("$1::BIGINT", "x"), ("CAST($1 AS INT)", 3_000_000_000)):
        with pytest.raises(SqlFailed) as caught:
            server.sql(f"INSERT INTO lab.t (id) VALUES ({value})", given)
        assert caught.value.code == InvalidValue.code
