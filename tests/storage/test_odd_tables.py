"""Tables and values at the edge of what there is read the same when they are hot, flushed, compacted and read again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from server_process import ServerProcess, SqlFailed

MEGABYTE = 1_000_000
VALUES: dict[str, tuple[str, list[Any]]] = {
    "double": ("DOUBLE", ["NaN", "Infinity", "-Infinity", -0.0, 5e-324, 1.7976931348623157e308, None]),
    "float": ("FLOAT", ["NaN", "Infinity", "-Infinity", -0.0, 0.5, 3.4028235e38, None]),
    "bigint": ("BIGINT", [2**63 - 1, -(2**63), 0, -1, None]),
    "decimal": ("DECIMAL(38,10)", ["9999999999999999999999999999.9999999999", "-0.0000000001", None]),
    "timestamp": (
        "TIMESTAMP",
        ["1969-12-31T23:59:59.999999Z", "0001-01-01T00:00:00.000001Z", "9999-12-31T23:59:59.999999Z", None],
    ),
    "text": ("TEXT", ["x" * MEGABYTE, "ü" * (MEGABYTE // 2), "a\0b", "\0", "", " ", None]),
    "blob": ("BLOB", ["AP8=", "", None]),
    "json": ("JSON", [{"a": [1, None, {"b": "ü"}]}, [], 0, False, None]),
    "nothing": ("TEXT", [None, None, None]),
}


def compact(server: ServerProcess, table: str) -> None:
    """Write every segment of a table again, with another one."""
    server.sql(f"FLUSH TABLE {table}; COMPACT TABLE {table}")


def read(server: ServerProcess, table: str, rest: str = "ORDER BY id") -> str:
    """All rows, as the text of the answer, in which -0.0 is not 0.0."""
    result = server.results(f"SELECT * FROM {table} {rest}")[-1]
    return json.dumps([row[:-2] for row in result["rows"]])


def assert_lasting(server: ServerProcess, table: str, one_more: str) -> str:
    """What is read of a table stays to the letter through a flush, another row, a compaction and a restart."""
    hot = read(server, table)
    server.sql(f"FLUSH TABLE {table}")
    assert read(server, table) == hot
    server.sql(one_more)
    before = read(server, table)
    compact(server, table)
    paths = server.sql("SELECT path FROM system.segments WHERE namespace || '.' || table_name = $1", table)
    assert [path.split("-")[0] for [path] in paths].count("batch") == 1
    assert read(server, table) == before
    return hot


@pytest.mark.parametrize("name", VALUES)
def test_values_are_the_same_hot_and_cold(shared_server: ServerProcess, name: str) -> None:
    kind, values = VALUES[name]
    table = f"values_{name}.t"
    shared_server.sql(f"CREATE NAMESPACE values_{name}; CREATE TABLE {table} (id INT PRIMARY KEY, v {kind})")
    for number, value in enumerate(values):
        shared_server.sql(f"INSERT INTO {table} VALUES ($1, $2)", number, value)
    shown = assert_lasting(shared_server, table, f"INSERT INTO {table} (id) VALUES (1000)")
    assert shown == json.dumps([[number, value] for number, value in enumerate(values)])
    if kind in ("DOUBLE", "FLOAT", "BIGINT"):
        least = shared_server.sql(f"SELECT count(*) FROM {table} WHERE v < 0")
        assert least == [[sum(value is not None and float(value) < 0 for value in values)]]


@pytest.mark.parametrize("key", [2**63 - 1, -(2**63)])
def test_the_outermost_keys_are_found(shared_server: ServerProcess, key: int) -> None:
    table = f"outermost_{key % 7}.t"
    shared_server.sql(f"CREATE NAMESPACE {table[:-2]}; CREATE TABLE {table} (id BIGINT PRIMARY KEY, v INT)")
    shared_server.sql(f"INSERT INTO {table} VALUES ($1, 1)", key)
    for _ in range(2):
        assert shared_server.sql(f"SELECT id FROM {table} WHERE id = $1", key) == [[key]]
        with pytest.raises(SqlFailed) as failed:
            shared_server.sql(f"INSERT INTO {table} VALUES ($1, 2)", key)
        assert failed.value.code == "duplicate_key"
        shared_server.sql(f"UPDATE {table} SET v = v + 1 WHERE id = $1; FLUSH TABLE {table}", key)
    assert shared_server.sql(f"SELECT v FROM {table}") == [[3]]


def test_a_thousand_columns(shared_server: ServerProcess) -> None:
    kinds = ("INT", "TEXT", "DOUBLE", "BOOLEAN")
    columns = ", ".join(f"column_{number} {kinds[number % 4]}" for number in range(999))
    shared_server.sql(f"CREATE NAMESPACE wide; CREATE TABLE wide.t (id INT PRIMARY KEY, {columns})")
    row = [(number, str(number), number / 8, number % 8 == 3)[number % 4] for number in range(999)]
    marks = ", ".join(f"${number}" for number in range(1, 1001))
    shared_server.sql(f"INSERT INTO wide.t VALUES ({marks})", 1, *row)
    shared_server.sql("INSERT INTO wide.t (id) VALUES (2)")
    shown = assert_lasting(shared_server, "wide.t", "INSERT INTO wide.t (id, column_998) VALUES (3, 1)")
    assert shown == json.dumps([[1, *row], [2, *[None] * 999]])
    shared_server.sql("UPDATE wide.t SET column_5 = 'changed' WHERE id = 1")
    row[5] = "changed"
    assert json.loads(read(shared_server, "wide.t"))[0] == [1, *row]


@pytest.mark.parametrize("keyed", [True, False])
def test_one_column(shared_server: ServerProcess, keyed: bool) -> None:
    table = f"narrow_{int(keyed)}.t"
    shared_server.sql(f"CREATE NAMESPACE {table[:-2]}; CREATE TABLE {table} (id INT {'PRIMARY KEY' if keyed else ''})")
    shared_server.sql(f"INSERT INTO {table} VALUES (1), (2), (3); DELETE FROM {table} WHERE id = 2")
    assert_lasting(shared_server, table, f"INSERT INTO {table} VALUES (4)")
    assert shared_server.sql(f"SELECT id FROM {table} ORDER BY id") == [[1], [3], [4]]


def test_an_empty_table(shared_server: ServerProcess) -> None:
    shared_server.sql("CREATE NAMESPACE empty; CREATE TABLE empty.t (id INT PRIMARY KEY, v TEXT)")
    for statement in (
        "FLUSH TABLE empty.t",
        "COMPACT TABLE empty.t",
        "DELETE FROM empty.t",
        "UPDATE empty.t SET v = 'x'",
    ):
        shared_server.sql(statement)
        assert read(shared_server, "empty.t") == "[]"
        assert shared_server.sql("SELECT count(*), sum(id), min(v) FROM empty.t") == [[0, None, None]]
        assert shared_server.sql("SELECT id FROM empty.t WHERE _deleted") == []
    assert shared_server.sql("SELECT path FROM system.segments WHERE namespace = 'empty'") == []
    assert shared_server.sql("SELECT status FROM system.jobs WHERE namespace = 'empty'") == []


def test_a_table_of_deleted_rows_alone(kalam_server: ServerProcess) -> None:
    server = kalam_server
    server.sql("CREATE NAMESPACE gone; CREATE TABLE gone.t (id INT PRIMARY KEY, v TEXT)")
    server.sql("INSERT INTO gone.t VALUES (1, 'a'), (2, 'b'); FLUSH TABLE gone.t; DELETE FROM gone.t")
    steps: list[Callable[[], Any]] = [
        lambda: server.sql("FLUSH TABLE gone.t"),
        lambda: server.sql("COMPACT TABLE gone.t"),
        server.kill,
        server.restart,
    ]
    for step in steps:
        step()
        if step == server.kill:
            continue
        assert read(server, "gone.t") == "[]"
        assert server.sql("SELECT count(*) FROM gone.t") == [[0]]
        assert server.sql("SELECT id, v FROM gone.t WHERE _deleted ORDER BY id") == [[1, "a"], [2, "b"]]
    [[path]] = server.sql("SELECT path FROM system.segments")
    assert Path(path).name.startswith("deleted-")
    server.sql("INSERT INTO gone.t VALUES (2, 'again')")
    assert read(server, "gone.t") == '[[2, "again"]]'
