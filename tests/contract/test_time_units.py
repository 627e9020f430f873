"""``TIMESTAMP UNIT '…'``: what an integer means is the column's to say; one of another unit is refused everywhere."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import msgpack  # type: ignore[import-untyped]
import pyarrow as pa
import pytest
from foreign_program import Program
from patience import PATIENCE_S

SECOND = 1_700_000_000
SHOWN = "2023-11-14T22:13:20"
UNITS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
WORDS = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
ARROW = {"Content-Type": "application/vnd.apache.arrow.stream"}


def arrow(values: list[int | None], kind: pa.DataType) -> bytes:
    table = pa.table({"at": pa.array(values, kind)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


Insert = Callable[[Program, str, list[int | None]], Awaitable[dict[str, Any]]]


async def by_json(program: Program, table: str, values: list[int | None]) -> dict[str, Any]:
    return dict((await program.insert(table, [{"at": value} for value in values])).json)


async def by_msgpack(program: Program, table: str, values: list[int | None]) -> dict[str, Any]:
    return dict((await program.insert(table, msgpack.packb([{"at": value} for value in values]))).json)


async def by_arrow(program: Program, table: str, values: list[int | None]) -> dict[str, Any]:
    return dict((await program.insert(table, arrow(values, pa.int64()), headers=ARROW)).json)


async def by_arrow_texts(program: Program, table: str, values: list[int | None]) -> dict[str, Any]:
    texts = pa.table({"at": pa.array([None if value is None else str(value) for value in values])})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, texts.schema) as writer:
        writer.write_table(texts)
    return dict((await program.insert(table, bytes(sink.getvalue()), headers=ARROW)).json)


async def by_values(program: Program, table: str, values: list[int | None]) -> dict[str, Any]:
    rows = ", ".join(f"({'NULL' if value is None else value})" for value in values)
    return dict((await program.ask_sql(f"INSERT INTO {table} (at) VALUES {rows}")).json)


async def by_parameter(program: Program, table: str, values: list[int | None]) -> dict[str, Any]:
    places = ", ".join(f"(${place})" for place, _ in enumerate(values, 1))
    return dict((await program.ask_sql(f"INSERT INTO {table} (at) VALUES {places}", *values)).json)


async def by_select(program: Program, table: str, values: list[int | None]) -> dict[str, Any]:
    rows = ", ".join(f"({'NULL' if value is None else value})" for value in values)
    return dict((await program.ask_sql(f"INSERT INTO {table} (at) SELECT column1 FROM (VALUES {rows})")).json)


DOORS = [by_json, by_msgpack, by_arrow, by_arrow_texts, by_values, by_parameter, by_select]


async def shown(program: Program, table: str) -> list[str | None]:
    answer = await program.ask_sql(f"SELECT at FROM {table} ORDER BY at NULLS FIRST")
    return [row[0] for row in answer.json["results"][0]["rows"]]


@pytest.mark.parametrize("unit", UNITS)
async def test_an_integer_is_of_the_column_s_unit_at_every_door(program: Program, namespace: str, unit: str) -> None:
    for number, insert in enumerate(DOORS):
        table = f"{namespace}.t{number}"
        await program.ask_sql(f"CREATE TABLE {table} (at TIMESTAMP UNIT '{unit}')")
        value = SECOND * UNITS[unit] + (123_456_600 * UNITS[unit]) // 10**9
        answer = await insert(program, table, [0, value, None])
        assert "code" not in answer, (insert, answer)
        fraction = {"s": "000000", "ms": "123000", "us": "123456", "ns": "123457"}[unit]
        assert await shown(program, table) == [None, "1970-01-01T00:00:00.000000Z", f"{SHOWN}.{fraction}Z"], insert


@pytest.mark.parametrize("unit", UNITS)
async def test_what_is_plausible_in_another_unit_only_is_refused(program: Program, namespace: str, unit: str) -> None:
    table = f"{namespace}.t"
    await program.ask_sql(f"CREATE TABLE {table} (at TIMESTAMP UNIT '{unit}')")
    for meant in UNITS.keys() - {unit}:
        for insert in DOORS:
            answer = await insert(program, table, [SECOND * UNITS[unit], SECOND * UNITS[meant]])
            assert answer["code"] == "invalid_value", insert
            assert f"2023-11-14 in {WORDS[meant]}" in answer["detail"], insert
            assert f"UNIT '{meant}'" in answer["hint"], insert
            assert insert not in (by_json, by_msgpack, by_arrow, by_arrow_texts) or "row 2" in answer["detail"]
    assert await shown(program, table) == []


async def test_what_is_plausible_in_no_unit_is_taken(program: Program, namespace: str) -> None:
    await program.ask_sql(f"CREATE TABLE {namespace}.t (at TIMESTAMP)")
    early, late = 5, 4_200_000_000_000  # 5 ms, and 2103
    assert (await by_json(program, f"{namespace}.t", [0, early, late, -1_000])).get("rows") == 4
    assert await shown(program, f"{namespace}.t") == [
        "1969-12-31T23:59:59.000000Z",
        "1970-01-01T00:00:00.000000Z",
        "1970-01-01T00:00:00.005000Z",
        "2103-02-04T02:40:00.000000Z",
    ]


async def test_a_batch_of_many_is_read_alike(program: Program, namespace: str) -> None:
    table, values = f"{namespace}.t", [(SECOND + place) * 1_000_000_000 + 1_500 for place in range(100)]
    await program.ask_sql(f"CREATE TABLE {table} (at TIMESTAMP UNIT 'ns')")
    for insert in (by_json, by_arrow):
        assert (await insert(program, table, [*values, None]))["rows"] == 101
        assert (await shown(program, table))[-1] == "2023-11-14T22:14:59.000002Z"
    assert (await insert(program, table, [*values, SECOND]))["code"] == "invalid_value"


async def test_csv_and_the_good_rows_only(program: Program, namespace: str, kalam_rows: Any) -> None:
    table = f"{namespace}.t"
    await program.ask_sql(f"CREATE TABLE {table} (at TIMESTAMP UNIT 's', note TEXT)")
    status, answer = await kalam_rows(table, f"at,note\n{SECOND},a\n{SECOND}000,b\n2023-11-14,c\n", "?on_invalid=skip")
    assert (status, answer["rows"], [error["row"] for error in answer["errors"]]) == (200, 2, [2])
    assert await shown(program, table) == ["2023-11-14T00:00:00.000000Z", f"{SHOWN}.000000Z"]


async def test_update_default_and_comparison(program: Program, namespace: str) -> None:
    table = f"{namespace}.t"
    made = await program.ask_sql(f"CREATE TABLE {table} (id INT PRIMARY KEY, at TIMESTAMP UNIT 's' DEFAULT {SECOND})")
    assert made.code is None
    await program.ask_sql(f"INSERT INTO {table} (id) VALUES (1), (2)")
    await program.ask_sql(f"UPDATE {table} SET at = {SECOND + 60} WHERE id = 2")
    assert await shown(program, table) == [f"{SHOWN}.000000Z", "2023-11-14T22:14:20.000000Z"]
    found = await program.ask_sql(f"SELECT id FROM {table} WHERE at > {SECOND} AND at <= $1", SECOND + 60)
    assert found.json["results"][0]["rows"] == [[2]]
    for wrong in (
        f"UPDATE {table} SET at = {SECOND}000",
        f"ALTER TABLE {table} ADD COLUMN later TIMESTAMP DEFAULT {SECOND}",
        f"CREATE TABLE {namespace}.other (at TIMESTAMP UNIT 'us' DEFAULT {SECOND})",
    ):
        refused = await program.ask_sql(wrong)
        assert (refused.code, "2023-11-14 in " in refused.detail) == ("invalid_value", True), wrong
    added = await program.ask_sql(f"ALTER TABLE {table} ADD COLUMN later TIMESTAMP UNIT 'us' DEFAULT {SECOND}000000")
    assert added.code is None
    answer = await program.ask_sql(
        f"SELECT later FROM {table} WHERE id = 1; SHOW CREATE TABLE {table}; DESCRIBE TABLE {table}"
    )
    read, create, described = answer.json["results"]
    assert read["rows"] == [[f"{SHOWN}.000000Z"]]
    assert "at TIMESTAMP UNIT 's' DEFAULT" in create["rows"][0][-1]
    assert "later TIMESTAMP UNIT 'us' DEFAULT" in create["rows"][0][-1]
    assert next(row[2] for row in described["rows"] if row[1] == "at").startswith("TIMESTAMP UNIT 's'")


async def test_an_answer_s_column_is_a_timestamp_like_any_other(program: Program, namespace: str) -> None:
    await program.ask_sql(f"CREATE STREAM TABLE {namespace}.t (at TIMESTAMP UNIT 's')")
    events = await program.listen(f"kalam.stream.{namespace}.t")
    assert (await program.insert(f"{namespace}.t", {"at": SECOND})).code is None
    assert (await events()).json == {"at": f"{SHOWN}.000000Z"}
    answer = await program.ask_sql(f"SELECT at FROM {namespace}.t")
    assert answer.json["results"][0]["columns"] == [{"name": "at", "type": "TIMESTAMP"}]


@pytest.mark.parametrize(
    ("column", "code"),
    [
        ("at TIMESTAMP UNIT 'm'", "invalid_value"),
        ("at TIMESTAMP UNIT s", "syntax_error"),
        ("at TIMESTAMP UNIT", "syntax_error"),
        ("at BIGINT UNIT 's'", "unsupported"),
        ("at TIMESTAMP UNIT 's' UNIT 'ms'", "unsupported"),
    ],
)
async def test_a_wrong_unit_is_refused(program: Program, namespace: str, column: str, code: str) -> None:
    assert (await program.ask_sql(f"CREATE TABLE {namespace}.t ({column})")).code == code


@pytest.fixture
def kalam_rows(program: Program) -> Callable[[str, str, str], Awaitable[tuple[int, Any]]]:
    """Posts CSV to a table."""
    import asyncio
    import urllib.request

    def post(table: str, text: str, query: str) -> tuple[int, Any]:
        url = f"{program.server.http_url}/v1/tables/{table.replace('.', '/')}/rows{query}"
        request = urllib.request.Request(url, text.encode(), {"Content-Type": "text/csv"})
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
            return response.status, json.loads(response.read())

    return lambda *given: asyncio.to_thread(post, *given)
