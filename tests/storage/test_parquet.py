from __future__ import annotations

import io
import math
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Context, Decimal
from pathlib import Path
from typing import Any, BinaryIO

import datafusion
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from kalam.errors import Internal
from kalam.schema import Compression
from kalam.storage.segments import parquet
from kalam.storage.segments.parquet import (
    CODECS,
    FAST_TYPES,
    GROUP_ROWS_MAX,
    Writer,
    choose_writer,
    read_segment,
    row_groups,
    write_segment,
    write_with_fastparquet,
    write_with_pyarrow,
)

Write = Callable[[pa.Table, BinaryIO, Compression], None]

STAMP = pa.timestamp("us", "UTC")
YEAR_1, YEAR_9999_END = -62_135_596_800_000_000, 253_402_300_799_999_999
WRITERS = [write_with_fastparquet, write_with_pyarrow]
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)


def integers(bits: int) -> st.SearchStrategy[int]:
    return st.integers(-(1 << bits - 1), (1 << bits - 1) - 1)


def decimals(precision: int, scale: int) -> st.SearchStrategy[Decimal]:
    most = 10**precision - 1
    return st.integers(-most, most).map(lambda digits: Decimal(digits).scaleb(-scale, EXACT))


EXACT = Context(prec=80)
VALUES: dict[pa.DataType, st.SearchStrategy[Any]] = {
    pa.bool_(): st.booleans(),
    pa.int16(): integers(16),
    pa.int32(): integers(32),
    pa.int64(): integers(64),
    pa.float32(): st.floats(width=32),
    pa.float64(): st.floats(),
    pa.string(): TEXT | st.sampled_from(["click", "view", "a\0b", "", "m" * 200, "m" * 5_000]),
    pa.binary(): st.binary(max_size=80) | st.sampled_from([b"m" * 200, b"m" * 5_000]),
    STAMP: st.integers(YEAR_1, YEAR_9999_END),
    pa.date32(): st.dates(),
    pa.decimal128(5, 2): decimals(5, 2),
    pa.decimal128(38, 10): decimals(38, 10),
}


@st.composite
def tables(draw: st.DrawFn, types: list[pa.DataType], rows_max: int = 40) -> pa.Table:
    """A table of some of these types, each column with its own share of NULLs, few or many distinct values."""
    rows = draw(st.integers(1, rows_max))
    chosen = draw(st.lists(st.sampled_from(types), min_size=1, max_size=6))
    return pa.table({f"c{n}": draw(columns(data_type, rows)) for n, data_type in enumerate(chosen)})


def columns(data_type: pa.DataType, rows: int) -> st.SearchStrategy[pa.Array]:
    values = VALUES[data_type]
    pool = st.lists(values, min_size=1, max_size=3).flatmap(st.sampled_from)
    cells = st.sampled_from([values, pool, st.none() | values, st.none()])
    return cells.flatmap(lambda cell: st.lists(cell, min_size=rows, max_size=rows)).map(
        lambda drawn: pa.array(drawn, data_type)
    )


@contextmanager
def groups_of(rows: int) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet, "GROUP_ROWS_MAX", rows)
        yield


def written(table: pa.Table, write: Write, compression: Compression = Compression.ZSTD) -> io.BytesIO:
    file = io.BytesIO()
    write(table, file, compression)
    file.seek(0)
    return file


def bits(table: pa.Table) -> list[list[Any]]:
    """Every value in a form in which only equal bits are equal; all NaNs are one."""
    return [[exact(value) for value in column.cast(plain(column.type)).to_pylist()] for column in table.columns]


def plain(data_type: pa.DataType) -> pa.DataType:
    return pa.int64() if data_type == STAMP else data_type


def exact(value: Any) -> Any:
    if not isinstance(value, float):
        return type(value), str(value)
    return "NaN" if math.isnan(value) else struct.pack("<d", value)


def write_to(path: Path, table: pa.Table, write: Write) -> Path:
    path.write_bytes(written(table, write).getvalue())
    return path


@pytest.mark.parametrize("compression", Compression)
@pytest.mark.parametrize("group_rows", [7, GROUP_ROWS_MAX])
def test_a_table_comes_back_to_the_bit(tmp_path: Path, compression: Compression, group_rows: int) -> None:
    path = tmp_path / "one.parquet"

    @settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
    @given(tables(list(VALUES)))
    def holds(table: pa.Table) -> None:
        fast = choose_writer(table.schema) is Writer.FASTPARQUET
        for write in WRITERS if fast else [write_with_pyarrow]:
            with groups_of(group_rows):
                path.write_bytes(written(table, write, compression).getvalue())
            back = read_segment(path, table.schema)
            assert back.schema == table.schema
            assert bits(back) == bits(table)

    holds()


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(tables(sorted(FAST_TYPES, key=str)))
def test_both_writers_declare_the_same_columns(table: pa.Table) -> None:
    fast, twin = (pq.ParquetFile(written(table, write)).schema for write in WRITERS)
    for mine, other in zip((fast.column(n) for n in range(len(fast))), twin, strict=True):
        assert (mine.name, mine.physical_type, mine.max_definition_level) == (
            other.name,
            other.physical_type,
            other.max_definition_level,
        )
        assert str(mine.logical_type).split("force")[0] == str(other.logical_type).split("force")[0]


# ---------------------------------------------------------------------------------------------------------- the writers


@pytest.mark.parametrize("data_type", VALUES, ids=str)
def test_only_types_that_fastparquet_keeps_are_written_by_it(data_type: pa.DataType) -> None:
    exactly = not (pa.types.is_decimal(data_type) or pa.types.is_date(data_type))
    schema = pa.schema([("id", pa.int64()), ("value", data_type)])
    assert choose_writer(schema) is (Writer.FASTPARQUET if exactly else Writer.PYARROW)


def test_the_fast_writer_knows_every_type_that_it_is_chosen_for() -> None:
    from kalam.storage.segments.parquet_fast import PHYSICAL

    assert set(PHYSICAL) == FAST_TYPES


@pytest.mark.parametrize("module", ["kalam.storage.segments.parquet", "kalam.storage.segments.key_filter"])
def test_importing_does_not_import_fastparquet_or_pandas(module: str) -> None:
    code = f"import sys, {module}; print({{'pandas', 'fastparquet'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr


def test_a_table_without_rows_is_a_file_without_rows(tmp_path: Path) -> None:
    table = pa.table({"id": pa.array([], pa.int64()), "t": pa.array([], pa.string())})
    with (tmp_path / "empty").open("wb") as file:
        write_segment(table, file, compression=Compression.ZSTD)
    assert read_segment(tmp_path / "empty", table.schema).equals(table)


@pytest.mark.parametrize("write", WRITERS)
def test_the_file_stays_open_for_its_owner_to_sync(tmp_path: Path, write: Write) -> None:
    with (tmp_path / "open").open("wb") as file:
        write(pa.table({"id": [1]}), file, Compression.ZSTD)
        assert not file.closed
        file.flush()
        assert file.tell() == (tmp_path / "open").stat().st_size


@pytest.mark.parametrize("write", WRITERS)
def test_pages_are_of_version_2(write: Write) -> None:
    # In the page header, field 1 (the type) is the first: 0x15, then 3 in zigzag for DATA_PAGE_V2.
    raw = written(pa.table({"id": [1, None, 3]}), write, Compression.NONE).getvalue()
    at = pq.ParquetFile(io.BytesIO(raw)).metadata.row_group(0).column(0).data_page_offset
    assert raw[at : at + 2] == b"\x15\x06"


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("compression", Compression)
def test_pages_are_compressed_as_asked(write: Write, compression: Compression) -> None:
    chunk = pq.ParquetFile(written(pa.table({"id": [1] * 9}), write, compression)).metadata.row_group(0).column(0)
    assert chunk.compression == (CODECS[compression] or "UNCOMPRESSED")


@pytest.mark.parametrize("write", WRITERS)
def test_a_thousand_columns_in_many_row_groups_are_kept(tmp_path: Path, write: Write) -> None:
    cells = [pa.array([n, None, n]) if n % 2 else pa.array([str(n) * 20, None, ""]) for n in range(1_000)]
    table = pa.table(cells, names=[f"column_{n:03}".ljust(63, "x") for n in range(1_000)])
    with groups_of(1):
        path = write_to(tmp_path / "wide", table, write)
    assert read_segment(path, table.schema).equals(table)


def test_the_longest_names_and_bounds_fit_into_the_fast_footer(tmp_path: Path) -> None:
    longest = ["\U0010ffff" * 32] * 8
    table = pa.table({f"column_{n:03}".ljust(parquet.FAST_NAME_BYTES_MAX, "x"): longest for n in range(1_000)})
    path = write_to(tmp_path / "full", table, write_with_fastparquet)
    assert read_segment(path, table.schema).equals(table)
    metadata = pq.read_metadata(path)
    assert metadata.row_group(0).column(0).statistics.max == longest[0]
    assert metadata.row_group(0).column(0).has_dictionary_page
    assert metadata.serialized_size < 1_000 * 800


@pytest.mark.parametrize("write", WRITERS)
def test_huge_texts_are_kept_and_stay_out_of_the_footer(tmp_path: Path, write: Write) -> None:
    texts = ["a" * 1_000_000, None, "ü" * 500_000, "\0" * 1_000_000, ""]
    path = write_to(tmp_path / "huge", pa.table({"id": [1] * 5, "t": texts}), write)
    back = read_segment(path, pa.schema([("id", pa.int64()), ("t", pa.string())]))
    assert back["t"].to_pylist() == texts
    assert pq.read_metadata(path).serialized_size < 10_000


def test_a_column_name_too_long_for_the_fast_footer_goes_to_the_twin() -> None:
    assert choose_writer(pa.schema([("é" * 32, pa.int64())])) is Writer.PYARROW


@pytest.mark.parametrize("write", WRITERS)
def test_a_not_null_column_is_written_optional(write: Write) -> None:
    table = pa.table({"id": [1]}, pa.schema([pa.field("id", pa.int64(), nullable=False)], {"pandas": "{}"}))
    assert pq.read_schema(written(table, write)).equals(pa.schema([("id", pa.int64())]), check_metadata=True)


def test_a_table_in_chunks_and_slices_is_kept(tmp_path: Path) -> None:
    part = pa.table({"i": [None, 1, 2, 3], "t": ["x", None, "z", "z"], "b": [True, None, False, True]})
    table = pa.concat_tables([part.slice(1, 2), part.slice(3), part])
    path = write_to(tmp_path / "chunks", table, write_with_fastparquet)
    assert read_segment(path, table.schema).equals(table)


# ----------------------------------------------------------------------------------------------------------- row groups


@pytest.mark.parametrize("write", WRITERS)
def test_a_row_group_has_at_most_50_000_rows(write: Write) -> None:
    table = pa.table({"id": np.arange(GROUP_ROWS_MAX * 2 + 1)})
    metadata = pq.ParquetFile(written(table, write)).metadata
    assert [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)] == [50_000, 50_000, 1]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 300), max_size=60), st.integers(1, 30), st.integers(1, 1_000))
def test_row_groups_cover_all_rows_once_within_the_bounds(sizes: list[int], rows_max: int, bytes_max: int) -> None:
    table = pa.table({"t": pa.array(["x" * size for size in sizes], pa.string())})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet, "GROUP_ROWS_MAX", rows_max)
        patch.setattr(parquet, "GROUP_BYTES_MAX", bytes_max)
        groups = list(row_groups(table))
    assert [row for first, rows in groups for row in range(first, first + rows)] == list(range(len(sizes)))
    for first, rows in groups:
        assert 1 <= rows <= rows_max
        assert rows == 1 or table.slice(first, rows).nbytes <= bytes_max


# ----------------------------------------------------------------------------------------------------------- statistics


def bounds(table: pa.Table, write: Write, name: str) -> tuple[Any, Any] | None:
    metadata = pq.ParquetFile(written(table, write)).metadata.row_group(0)
    statistics = metadata.column(table.column_names.index(name)).statistics
    return (statistics.min, statistics.max) if statistics is not None and statistics.has_min_max else None


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize(
    ("values", "data_type", "expected"),
    [
        ([-5, None, 7], pa.int16(), (-5, 7)),
        ([2**31 - 1, -(2**31)], pa.int32(), (-(2**31), 2**31 - 1)),
        ([2**63 - 1, -(2**63), None], pa.int64(), (-(2**63), 2**63 - 1)),
        (["é", "z", None, "a"], pa.string(), ("a", "é")),
        ([True, None, False], pa.bool_(), (False, True)),
        ([1.5, -math.inf, None], pa.float64(), (-math.inf, 1.5)),
        ([1.5, math.nan, None], pa.float64(), None),
        ([1.5, math.nan, None], pa.float32(), None),
        ([None, None], pa.string(), None),
        (["x" * 129, "a"], pa.string(), None),
        ([b"x" * 129, b"a"], pa.binary(), None),
        ([b"\xff" * 128, None, b""], pa.binary(), (b"", b"\xff" * 128)),
    ],
)
def test_statistics_are_the_least_and_the_greatest_value(
    write: Write, values: list[Any], data_type: pa.DataType, expected: tuple[Any, Any] | None
) -> None:
    assert bounds(pa.table({"v": pa.array(values, data_type)}), write, "v") == expected


@pytest.mark.parametrize("write", WRITERS)
def test_the_bounds_of_a_zero_hold_for_both_zeros(write: Write) -> None:
    for zero in (0.0, -0.0):
        found = bounds(pa.table({"v": [zero]}), write, "v")
        assert found is not None
        assert [math.copysign(1, bound) for bound in found] == [-1, 1]


def context(table: pa.Table, path: Path) -> datafusion.SessionContext:
    """A context with the file as ``cold``, its declared schema given, and the same rows in memory as ``hot``."""
    context = datafusion.SessionContext()
    context.register_parquet("cold", str(path), schema=table.schema)
    context.register_record_batches("hot", [table.to_batches()])
    return context


OPERATORS: dict[str, Callable[..., Any]] = {
    "=": pc.equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
    "<>": pc.not_equal,
}


@pytest.mark.parametrize("data_type", VALUES, ids=str)
def test_no_row_is_lost_by_statistics(tmp_path: Path, data_type: pa.DataType) -> None:
    path = tmp_path / "one.parquet"
    cells = columns(data_type, 24)

    @settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.too_slow])
    @given(cells, st.integers(0, 23), st.sampled_from(WRITERS), st.booleans())
    def holds(values: pa.Array, index: int, write: Write, ordered: bool) -> None:
        values = values.take(pc.sort_indices(values)) if ordered else values
        probe = values[index]
        assume(probe.is_valid)
        table = pa.table({"n": np.arange(24), "v": values})
        with groups_of(4):
            write_to(path, table, write if data_type in FAST_TYPES else write_with_pyarrow)
        session = context(table, path)
        for operator in OPERATORS:
            found, wanted = (rows_where(session, name, operator, probe) for name in ("cold", "hot"))
            assert found == wanted, operator
            if not pa.types.is_floating(data_type):  # Arrow and DataFusion order NaN and the zeros differently
                assert found == table.filter(OPERATORS[operator](table["v"], probe))["n"].to_pylist()

    holds()


def rows_where(session: datafusion.SessionContext, name: str, operator: str, probe: pa.Scalar) -> list[int]:
    column, value = datafusion.col("v"), datafusion.literal(probe)
    comparisons = {
        "=": column == value,
        "<": column < value,
        "<=": column <= value,
        ">": column > value,
        ">=": column >= value,
        "<>": column != value,
    }
    found = session.table(name).filter(comparisons[operator]).select(datafusion.col("n")).to_arrow_table()
    return sorted(found["n"].to_pylist())


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize(
    ("values", "probe"),
    [
        ([1.0, 2.0, math.nan], 2.0),
        (["a", "b", "x" * 200], "x"),
        (["a", "b", "x" * 5_000], "x"),
        ([b"a", b"x" * 200], b"x"),
    ],
)
def test_a_row_group_without_bounds_does_not_hide_its_rows(
    tmp_path: Path, write: Write, values: list[Any], probe: Any
) -> None:
    table = pa.table({"n": np.arange(len(values)), "v": values})
    with groups_of(1):
        path = write_to(tmp_path / "one.parquet", table, write)
    assert rows_where(context(table, path), "cold", ">", pa.scalar(probe)) == [len(values) - 1]


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize(
    ("values", "condition"),
    [
        (pa.array(range(40), pa.int16()), "v = 7"),
        (pa.array(range(40), pa.int32()), "v = 7"),
        (pa.array(range(40)), "v = 7"),
        (pa.array([f"name {n:02}" for n in range(40)]), "v = 'name 07'"),
        (pa.array(range(40), STAMP), "v < '1970-01-01T00:00:00.000003Z'"),
        (pa.array([n / 2 for n in range(40)]), "v = 3.5"),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_datafusion_skips_row_groups(tmp_path: Path, write: Write, values: pa.Array, condition: str) -> None:
    with groups_of(4):
        path = write_to(tmp_path / "sorted.parquet", pa.table({"v": values}), write)
    session = context(pa.table({"v": values}), path)
    plan = str(session.sql(f"EXPLAIN ANALYZE SELECT * FROM cold WHERE {condition}").to_pylist())
    assert "row_groups_pruned_statistics=10 total → 1 matched" in plan


@pytest.mark.parametrize("write", WRITERS)
def test_aggregates_that_datafusion_takes_from_statistics_are_right(tmp_path: Path, write: Write) -> None:
    table = pa.table(
        {
            "f": pa.array([1.0, math.nan, 2.0, 3.0, None, 5.0]),
            "t": pa.array(["b", "x" * 5_000, "c", None, None, "a"]),
            "i": pa.array([None, None, 3, 2, 1, None], pa.int16()),
        }
    )
    with groups_of(2):
        path = write_to(tmp_path / "one.parquet", table, write)
    session = context(table, path)
    names = [f"{what}({name})" for what in ("min", "max", "count") for name in table.column_names]
    cold, hot = (session.sql(f"SELECT {', '.join(names)}, count(*) FROM {name}") for name in ("cold", "hot"))
    assert str(cold.to_pylist()).replace("cold.", "") == str(hot.to_pylist()).replace("hot.", "")


@pytest.mark.parametrize("write", WRITERS)
def test_a_folder_of_files_with_and_without_a_column_and_its_bounds_answers_right(tmp_path: Path, write: Write) -> None:
    schema = pa.schema([("n", pa.int64()), ("v", pa.float64()), ("t", pa.string())])
    parts = [
        pa.table({"n": [1, 2], "v": [1.0, 2.0], "t": ["a", "b"]}, schema),
        pa.table({"n": [3, 4], "v": [math.nan, 7.0], "t": ["x" * 500, None]}, schema),
        pa.table({"n": [5, 6]}),
    ]
    for number, part in enumerate(parts):
        write_to(tmp_path / f"{number}.parquet", part, write)
    session = context(pa.concat_tables(parts, promote_options="default"), tmp_path)
    conditions = ["v > 2", "v = 7", "t > 'b'", "t IS NULL", "v IS NULL", "n = 5", "v IS NULL AND n > 4", "v < 2"]
    queries = [f"SELECT n FROM {{0}} WHERE {condition} ORDER BY n" for condition in conditions]
    queries.append("SELECT min(n), max(n), min(v), max(v), min(t), max(t), count(v), count(t), count(*) FROM {0}")
    for query in queries:
        cold, hot = (session.sql(query.format(name)).to_arrow_table().to_pylist() for name in ("cold", "hot"))
        assert [str(list(row.values())) for row in cold] == [str(list(row.values())) for row in hot], query


# -------------------------------------------------------------------------------------------------------------- reading


@pytest.fixture
def segment(tmp_path: Path) -> Path:
    return write_to(tmp_path / "batch-1-1.parquet", pa.table({"id": [1, 2], "t": ["a", "b"]}), write_with_fastparquet)


def test_a_column_that_the_file_does_not_have_reads_as_null(segment: Path) -> None:
    schema = pa.schema([("added", pa.decimal128(38, 10)), ("id", pa.int64())])
    assert read_segment(segment, schema).to_pylist() == [{"added": None, "id": 1}, {"added": None, "id": 2}]


def test_a_file_with_none_of_the_columns_reads_as_rows_of_null(segment: Path) -> None:
    assert read_segment(segment, pa.schema([("added", STAMP)])).to_pylist() == [{"added": None}] * 2


def test_columns_come_in_the_order_that_was_asked_for(segment: Path) -> None:
    schema = pa.schema([("id", pa.int64()), ("t", pa.string())])
    assert read_segment(segment, schema, ["t", "id"]).column_names == ["t", "id"]
    assert read_segment(segment, schema, ["t"]).to_pydict() == {"t": ["a", "b"]}


def damaged(raw: bytes) -> Iterator[bytes]:
    yield from (b"", b"PAR1", raw[:-1], raw[: len(raw) // 2], b"\0" * len(raw), raw[:8] + b"\xff" * 20 + raw[28:])


def test_a_damaged_file_is_an_error_that_names_it(segment: Path) -> None:
    raw = segment.read_bytes()
    for wrong in damaged(raw):
        segment.write_bytes(wrong)
        with pytest.raises(Internal, match=r"batch-1-1\.parquet cannot be read"):
            read_segment(segment, pa.schema([("id", pa.int64()), ("t", pa.string())]))


def test_a_missing_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(Internal, match=r"gone\.parquet cannot be read"):
        read_segment(tmp_path / "gone.parquet", pa.schema([("id", pa.int64())]))


def test_a_column_of_a_type_that_does_not_fit_is_an_error_that_names_the_file(segment: Path) -> None:
    with pytest.raises(Internal, match=r"batch-1-1\.parquet"):
        read_segment(segment, pa.schema([("t", pa.int64())]))


@pytest.mark.parametrize("write", WRITERS)
def test_250_000_rows_in_several_row_groups_come_back_as_they_were(write: Write, tmp_path: Path) -> None:
    rows = 250_000
    random = np.random.default_rng(1)
    stamps = pa.array(np.arange(rows) + 1_700_000_000_000_000).cast(STAMP)
    table = pa.table(
        {
            "id": np.arange(rows),
            "device": random.integers(0, 1_000, rows).astype(np.int32),
            "value": pa.array(random.random(rows), mask=random.random(rows) < 0.1),
            "ok": pa.array(random.random(rows) < 0.5),
            "at": stamps,
            "kind": pa.array(["click", "view", "buy", "leave"]).take(pa.array(random.integers(0, 4, rows))),
            "_updated": stamps,
            "_seq": np.arange(rows),
        }
    )

    file = tmp_path / "many.parquet"
    with file.open("wb") as opened:
        write(table, opened, Compression.ZSTD)
    assert read_segment(file, table.schema).equals(table)
