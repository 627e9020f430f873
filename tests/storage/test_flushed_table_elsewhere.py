"""A table that a real server has flushed, opened with other tools: its folder is plain Parquet, row for row."""

from __future__ import annotations

import base64
import json
import math
import urllib.request
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from patience import PATIENCE_S
from server_process import ServerProcess

Read = Callable[[Path], pa.Table]

FAST = """id BIGINT PRIMARY KEY, flag BOOLEAN, small SMALLINT, n INT, f FLOAT, d DOUBLE, t TEXT, b BLOB, at TIMESTAMP,
doc JSON, u UUID"""
COLUMNS = {"fast": FAST, "twin": f"{FAST}, price DECIMAL(38,10), day DATE"}
UUID = "018f2b6e-7c1a-7e3d-9b1f-6a2c4d5e6f70"
BIG = Decimal("-9999999999999999999999999999.9999999999")
LAST_STAMP = datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
ROWS: list[tuple[Any, ...]] = [
    (
        -(2**63),
        True,
        -32_768,
        -(2**31),
        0.5,
        -0.0,
        "a\0b",
        b"\0\xff",
        LAST_STAMP,
        {"a": [1, None]},
        UUID,
        BIG,
        date.min,
    ),
    (0, None, None, None, None, None, None, None, None, None, None, None, None),
    (1, False, 0, 0, math.inf, math.nan, "", b"", datetime(1970, 1, 1, tzinfo=UTC), "x", UUID, Decimal(0), date.max),
    (
        2**63 - 1,
        True,
        32_767,
        2**31 - 1,
        -0.5,
        5e-324,
        "ß😀" * 200,
        b"PAR1",
        None,
        0,
        UUID,
        BIG.copy_negate(),
        date(1969, 12, 31),
    ),
]


def as_json(value: Any) -> Any:
    """A value as JSON has it."""
    match value:
        case bytes():
            return base64.b64encode(value).decode()
        case float() if not math.isfinite(value):
            return "NaN" if math.isnan(value) else "Infinity"
        case date():
            return value.isoformat()
        case Decimal():
            return str(value)
        case _:
            return value


def column_names(name: str) -> list[str]:
    return [part.split()[0] for part in COLUMNS[name].replace("(38,10)", "").split(",")]


@pytest.fixture(scope="module")
def folders(shared_server: ServerProcess) -> dict[str, Path]:
    """The folders of both tables, one file each."""
    shared_server.sql("CREATE NAMESPACE e")
    for name, columns in COLUMNS.items():
        shared_server.sql(f"CREATE TABLE e.{name} ({columns})")
        insert_rows(shared_server, name)
        shared_server.sql(f"FLUSH TABLE e.{name}")
    return {name: shared_server.data_dir / "shared" / "e" / name for name in COLUMNS}


def insert_rows(server: ServerProcess, name: str) -> None:
    names = column_names(name)
    body = "\n".join(json.dumps(dict(zip(names, map(as_json, row), strict=False))) for row in ROWS)
    request = urllib.request.Request(
        f"{server.http_url}/v1/tables/e/{name}/rows", body.encode(), {"Content-Type": "application/x-ndjson"}
    )
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
        assert json.load(answer)["rows"] == len(ROWS)


def read_pyarrow(folder: Path) -> pa.Table:
    return pq.read_table(folder)


def read_pandas(folder: Path) -> pa.Table:
    return pa.Table.from_pandas(pd.read_parquet(folder, dtype_backend="pyarrow"), preserve_index=False)


def read_duckdb(folder: Path) -> pa.Table:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        return connection.sql(f"SELECT * FROM '{folder}/batch-*.parquet'").to_arrow_table()


def read_clickhouse(folder: Path) -> pa.Table:
    chdb = pytest.importorskip("chdb", reason="ClickHouse reads the files where chdb is installed (pip install chdb)")
    answer = chdb.query(f"SELECT * FROM file('{folder}/batch-*.parquet', Parquet)", "Arrow").bytes()
    return pa.ipc.open_file(answer).read_all()


def shown(value: Any) -> Any:
    """A value that compares as bits do: NaN is itself, and 0.0 is not -0.0."""
    return value.hex() if isinstance(value, float) else value


def plain(column: pa.ChunkedArray, name: str) -> list[Any]:
    """The values of a column in the types that ROWS has, whatever the tool calls them."""
    if name == "b" and pa.types.is_string(column.type):
        column = pa.chunked_array([chunk.view(pa.binary()) for chunk in column.chunks], pa.binary())
    if name == "at":
        column = column.cast(pa.timestamp("us", "UTC"))
    if name == "day":
        column = column.cast(pa.date32())
    if name == "flag":
        column = column.cast(pa.bool_())
    values = column.to_pylist()
    return [None if value is None else json.loads(value) for value in values] if name == "doc" else values


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("read", [read_pyarrow, read_pandas, read_duckdb, read_clickhouse])
def test_a_flushed_table_has_the_same_rows_in(read: Read, folders: dict[str, Path], name: str) -> None:
    found = read(folders[name]).sort_by("id")
    for column, values in zip(column_names(name), zip(*ROWS, strict=True), strict=False):
        expected = [shown(value) for value in values]
        assert [shown(value) for value in plain(found.column(column), column)] == expected, column
    assert found.column("_seq").to_pylist() == [1, 2, 3, 4]
    assert found.column("_updated").null_count == 0


@pytest.mark.parametrize("name", COLUMNS)
def test_the_server_itself_reads_what_it_has_flushed(shared_server, folders, name) -> None:
    assert len(list(folders[name].glob("batch-*.parquet"))) == 1
    cold_rows = shared_server.sql(f"SELECT * FROM e.{name} ORDER BY id")
    assert [row[0] for row in cold_rows] == [row[0] for row in ROWS]
    assert cold_rows[0][6] == "a\0b"
    assert cold_rows[2][4:6] == ["Infinity", "NaN"]


def test_rows_that_were_deleted_lie_in_files_of_their_own(shared_server) -> None:
    shared_server.sql("CREATE NAMESPACE e2; CREATE TABLE e2.t (id BIGINT PRIMARY KEY)")
    shared_server.sql("INSERT INTO e2.t VALUES (1), (2), (3); DELETE FROM e2.t WHERE id = 2; FLUSH TABLE e2.t")
    folder = shared_server.data_dir / "shared" / "e2" / "t"
    with duckdb.connect() as connection:
        live = connection.execute(f"SELECT id FROM '{folder}/batch-*.parquet' ORDER BY id").fetchall()
        deleted = connection.execute(f"SELECT id FROM '{folder}/deleted-*.parquet'").fetchall()
    assert (live, deleted) == ([(1,), (3,)], [(2,)])
