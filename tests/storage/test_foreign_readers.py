"""A segment is plain Parquet: whoever opens the file, with whatever engine, finds the same values."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import datafusion
import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kalam.schema import Compression
from kalam.storage.segments import parquet
from kalam.storage.segments.parquet import Writer, write_segment

Read = Callable[[Path], pa.Table]

STAMP = pa.timestamp("us", "UTC")
YEAR_1, YEAR_1969, YEAR_9999 = -62_135_596_800_000_000, -1, 253_402_300_799_999_999
BIG = Decimal("9999999999999999999999999999.9999999999")
UUIDS = ["018f2b6e-7c1a-7e3d-9b1f-6a2c4d5e6f70", "FFFFFFFF-ffff-ffff-ffff-ffffffffffff"]

# Six rows of every type, odd values first. The last row is the one that filters look for.
FAST_COLUMNS = {
    "id": pa.array([1, 2, 3, 4, 5, 6], pa.int64()),
    "flag": pa.array([True, None, False, True, None, False], pa.bool_()),
    "small": pa.array([-32_768, None, 32_767, 0, -1, 1], pa.int16()),
    "middle": pa.array([-(2**31), None, 2**31 - 1, 0, -1, 1], pa.int32()),
    "big": pa.array([-(2**63), None, 2**63 - 1, 2**53 + 1, -1, 1], pa.int64()),
    "single": pa.array([math.nan, None, -0.0, math.inf, -math.inf, 0.1], pa.float32()),
    "double": pa.array([math.nan, None, -0.0, math.inf, 5e-324, 0.1], pa.float64()),
    "words": pa.array(["a\0b", None, "", "ß😀\uffff", "x" * 300, " trailing "], pa.string()),
    "kind": pa.array(["view", None, "view", "buy", "view", "buy"], pa.string()),
    "body": pa.array(['{"a":[1,null]}', None, "null", '"\\u0000"', "{}", "0"], pa.string()),
    "uuid": pa.array([UUIDS[0], None, UUIDS[1], *UUIDS, UUIDS[0]], pa.string()),
    "bytes": pa.array([b"\0\xff", None, b"", b"\x80" * 300, b"PAR1", b"text"], pa.binary()),
    "_updated": pa.array([YEAR_1, None, YEAR_9999, YEAR_1969, 0, 1], STAMP),
    "no_flag": pa.nulls(6, pa.bool_()),
    "no_big": pa.nulls(6, pa.int64()),
    "no_double": pa.nulls(6, pa.float64()),
    "no_words": pa.nulls(6, pa.string()),
    "no_bytes": pa.nulls(6, pa.binary()),
    "no_stamp": pa.nulls(6, STAMP),
}
TWIN_COLUMNS = {
    "price": pa.array(
        [Decimal("-999.99"), None, Decimal(0), Decimal("1.50"), Decimal("0.01"), None], pa.decimal128(5, 2)
    ),
    "amount": pa.array([BIG.copy_negate(), None, BIG, Decimal(0), Decimal("1E-10"), None], pa.decimal128(38, 10)),
    "day": pa.array([date(1, 1, 1), None, date(9999, 12, 31), date(1969, 12, 31), date(1970, 1, 1), None]),
    "no_amount": pa.nulls(6, pa.decimal128(38, 10)),
    "no_day": pa.nulls(6, pa.date32()),
}
TABLES = {
    Writer.FASTPARQUET: pa.table(FAST_COLUMNS),
    Writer.PYARROW: pa.table(FAST_COLUMNS | TWIN_COLUMNS),
}


def read_pyarrow(path: Path) -> pa.Table:
    return pq.read_table(path)


def read_pandas(path: Path) -> pa.Table:
    frame = pd.read_parquet(path, dtype_backend="pyarrow")
    return pa.Table.from_pandas(frame, preserve_index=False)


def read_duckdb(path: Path) -> pa.Table:
    with duckdb.connect() as connection:
        return connection.sql(f"SELECT * FROM '{path}'").to_arrow_table()


def read_datafusion(path: Path) -> pa.Table:
    context = datafusion.SessionContext()
    context.register_parquet("segment", str(path))
    return context.sql("SELECT * FROM segment").to_arrow_table()


def read_clickhouse(path: Path) -> pa.Table:
    chdb = pytest.importorskip("chdb", reason="ClickHouse reads the files where chdb is installed (pip install chdb)")
    answer = chdb.query(f"SELECT * FROM file('{path}', Parquet)", "Arrow").bytes()
    return pa.ipc.open_file(answer).read_all()


READERS = [read_pyarrow, read_pandas, read_duckdb, read_datafusion, read_clickhouse]


@pytest.fixture(params=[Compression.ZSTD, Compression.SNAPPY, Compression.NONE])
def compression(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(params=TABLES)
def table(request: pytest.FixtureRequest) -> Any:
    return TABLES[request.param]


@pytest.fixture
def path(tmp_path: Path, table: pa.Table, compression: Compression) -> Path:
    path = tmp_path / "batch-1-1.parquet"
    with path.open("wb") as file:
        writer = write_segment(table, file, compression=compression)
    assert TABLES[writer] is table
    return path


def as_declared(column: pa.ChunkedArray, declared: pa.DataType) -> pa.ChunkedArray:
    """An engine's own type for the same values (a view, text for bytes, a wider date) as the declared one."""
    if pa.types.is_binary(declared) and pa.types.is_string(column.type):
        return pa.chunked_array([chunk.view(pa.binary()) for chunk in column.chunks], pa.binary())
    return column.cast(declared)


def shown(column: pa.ChunkedArray) -> list[str]:
    """Values as text, which tells -0.0 from 0.0 and holds one NaN for another; timestamps as microseconds."""
    return [repr(value) for value in (column.cast(pa.int64()) if column.type == STAMP else column).to_pylist()]


@pytest.mark.parametrize("read", READERS)
def test_every_value_is_the_same_in(read: Read, path: Path, table: pa.Table) -> None:
    found = read(path)
    assert found.column_names == table.column_names
    for field in table.schema:
        column = as_declared(found.column(field.name), field.type)
        assert shown(column) == shown(table.column(field.name)), field.name


@pytest.mark.parametrize("read", READERS)
def test_many_row_groups_with_repeating_text_are_plain_text_in(
    read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Rows that fill no last group of eight; distinct values that need no codes, codes of one byte and of two.
    monkeypatch.setattr(parquet, "GROUP_ROWS_MAX", 3_001)
    texts = {f"of_{n}": [f"text {max(0, i % 3_001 - 1_100) % n}" for i in range(6_001)] for n in (1, 100, 300)}
    cells = {name: pa.array([None if i % 7 == 0 else text for i, text in enumerate(texts[name])]) for name in texts}
    table = pa.table({"id": pa.array(range(6_001)), **cells})
    path = tmp_path / "repeats.parquet"
    with path.open("wb") as file:
        write_segment(table, file, compression=Compression.ZSTD)
    groups = [pq.read_metadata(path).row_group(n) for n in range(2)]
    assert all(group.column(n).has_dictionary_page for group in groups for n in (1, 2, 3))
    found = read(path)
    for name in cells:
        assert not pa.types.is_dictionary(found.schema.field(name).type)
        assert found.column(name).cast(pa.string()).to_pylist() == table.column(name).to_pylist()


def test_types_are_the_declared_ones_in_pyarrow(path: Path, table: pa.Table) -> None:
    assert pq.read_schema(path).equals(table.schema)


def test_types_are_the_declared_ones_in_datafusion(path: Path, table: pa.Table) -> None:
    context = datafusion.SessionContext()
    context.register_parquet("segment", str(path), schema=table.schema)
    assert context.sql("SELECT * FROM segment").to_arrow_table().schema.equals(table.schema)


DUCKDB_TYPES = {
    "flag": "BOOLEAN",
    "small": "SMALLINT",
    "middle": "INTEGER",
    "big": "BIGINT",
    "single": "FLOAT",
    "double": "DOUBLE",
    "words": "VARCHAR",
    "body": "VARCHAR",
    "uuid": "VARCHAR",
    "bytes": "BLOB",
    "_updated": "TIMESTAMP WITH TIME ZONE",
    "no_words": "VARCHAR",
    "no_stamp": "TIMESTAMP WITH TIME ZONE",
    "price": "DECIMAL(5,2)",
    "amount": "DECIMAL(38,10)",
    "day": "DATE",
}


def test_types_are_the_declared_ones_in_duckdb(path: Path, table: pa.Table) -> None:
    with duckdb.connect() as connection:
        rows = connection.execute("DESCRIBE SELECT * FROM read_parquet(?)", [str(path)]).fetchall()
    found = {name: data_type for name, data_type, *_ in rows if name in DUCKDB_TYPES}
    assert found == {name: data_type for name, data_type in DUCKDB_TYPES.items() if name in table.column_names}


FILTERS = {
    "small = 32767": [3],
    "middle < -1": [1],
    "big > 1": [3, 4],
    "\"double\" < '0.01' AND id > 3": [5],
    "words = ' trailing '": [6],
    "words >= 'x'": [4, 5],
    "kind = 'buy'": [4, 6],
    "_updated < '1970-01-01T00:00:00Z'": [1, 4],
    "no_words IS NULL AND id = 6": [6],
}


@pytest.mark.parametrize("condition", FILTERS)
@pytest.mark.parametrize("rows", [1, 2, 50_000])
def test_a_filter_finds_its_rows_however_they_are_grouped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, condition: str, rows: int
) -> None:
    monkeypatch.setattr(parquet, "GROUP_ROWS_MAX", rows)
    path = tmp_path / "one.parquet"
    for table in TABLES.values():
        with path.open("wb") as file:
            write_segment(table, file, compression=Compression.ZSTD)
        context = datafusion.SessionContext()
        context.register_parquet("segment", str(path))
        query = f"SELECT id FROM segment WHERE {condition} ORDER BY id"
        assert [row["id"] for row in context.sql(query).to_pylist()] == FILTERS[condition]
        with duckdb.connect() as connection:
            found = connection.execute(query.replace("segment", f"'{path}'")).fetchall()
        assert [row[0] for row in found] == FILTERS[condition]
