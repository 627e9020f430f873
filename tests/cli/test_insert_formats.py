"""``kalam insert`` of files that are not NDJSON: a JSON array, CSV, Parquet, Arrow."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import threading
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from kalam.cli.failure import CommandFailed
from kalam.cli.parquet_reader import ParquetReader
from kalam.cli.row_formats import RowFormat, format_of

COLUMNS = "id BIGINT PRIMARY KEY, t TEXT, at TIMESTAMP, d DOUBLE"
ROWS = 25_000
STAMP = datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)


def rows(count: int) -> pa.Table:
    return pa.table(
        {
            "id": pa.array(range(count)),
            "t": pa.array([None if n % 3 == 0 else f'text "{n}",\n' for n in range(count)]),
            "at": pa.array([STAMP] * count, pa.timestamp("us", "UTC")),
            "d": pa.array([n / 8 for n in range(count)]),
        }
    )


def write_stream(table: pa.Table, file: Path) -> None:
    with pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=7_000)


def write_csv(table: pa.Table, file: Path) -> None:
    stamps = pa.array(["1969-12-31T23:59:59.999999Z"] * table.num_rows)
    pyarrow.csv.write_csv(table.set_column(2, "at", stamps), file)


def write_json(table: pa.Table, file: Path) -> None:
    file.write_text(json.dumps(table.to_pylist(), default=lambda stamp: stamp.isoformat(), indent=1))


WRITERS = {
    "rows.json": write_json,
    "rows.csv": write_csv,
    "rows.parquet": lambda table, file: pq.write_table(table, file, row_group_size=6_000),
    "rows.arrow": lambda table, file: pyarrow.feather.write_feather(table, file, chunksize=7_000),
    "rows.arrows": write_stream,
}


@pytest.fixture
def table(create_table) -> str:
    return create_table(COLUMNS, kind="SHARED")


@pytest.mark.parametrize("name", WRITERS)
def test_every_row_of_the_file_is_stored(at_server, kalam_server, table, tmp_path, name):
    file = tmp_path / name
    WRITERS[name](rows(ROWS), file)
    done = at_server("insert", table, str(file))
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert f"{ROWS:,} rows are stored in {table}" in done.stderr
    found = kalam_server.sql(
        f"SELECT count(*), sum(id), count(t), count(DISTINCT t), min(at), max(at), sum(d) FROM {table}"
    )
    total, texts = ROWS * (ROWS - 1) // 2, ROWS - (ROWS + 2) // 3
    stamp = "1969-12-31T23:59:59.999999Z"
    assert found == [[ROWS, total, texts, texts, stamp, stamp, total / 8]]


@pytest.mark.parametrize("name", ["rows.json", "rows.csv", "rows.parquet", "rows.arrows"])
def test_what_is_piped_in_is_known_by_its_first_bytes(at_server, kalam_server, table, tmp_path, name):
    file = tmp_path / name
    WRITERS[name](rows(100), file)
    assert at_server("insert", table, stdin=file.read_bytes()).returncode == 0
    assert kalam_server.sql(f"SELECT count(*) FROM {table}") == [[100]]


def test_the_format_can_be_said(at_server, kalam_server, table, tmp_path):
    assert at_server("insert", table, "--format", "csv", stdin='id,t\n1,\n2,""\n').returncode == 0
    assert kalam_server.sql(f"SELECT id, t FROM {table} ORDER BY id") == [[1, None], [2, ""]]


def test_what_is_no_parquet_is_told_plainly_from_a_pipe_too(at_server, table):
    done = at_server("insert", table, "--format", "parquet", stdin=b"PAR1")
    assert done.returncode == 1
    assert done.stderr.startswith("error: cannot read <stdin> as Parquet: ")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.parquet", b"PAR1 but no more"),
        ("rows.arrow", b"ARROW1 but no more"),
        ("rows.arrows", b"\xff\xff\xff\xff but no more"),
        ("rows.csv", b'id,t\n1,"open'),
        ("rows.json", b'[{"id": 1}'),
        ("rows.json", b"[1]"),
    ],
)
def test_a_damaged_file_stores_nothing_and_is_told_without_a_traceback(at_server, table, tmp_path, name, content):
    file = tmp_path / name
    file.write_bytes(content)
    done = at_server("insert", table, str(file))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert f"0 rows are known to be stored in {table}" in done.stderr


def test_a_refused_batch_is_named_by_its_rows(at_server, kalam_server, table, tmp_path):
    file = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"id": [*range(250), 7, *range(300, 320)]}), file)
    done = at_server("insert", table, "--batch-rows", "100", str(file))
    assert done.returncode == 1
    assert done.stderr.startswith("error [duplicate_key]: ")
    assert "  rows 1-200: stored\n  rows 201-271: refused, not stored\n" in done.stderr
    assert kalam_server.sql(f"SELECT count(*) FROM {table}") == [[200]]


def test_a_column_that_does_not_fit_is_named(at_server, table, tmp_path):
    file = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"id": [1], "d": ["one"]}), file)
    done = at_server("insert", table, str(file))
    assert done.stderr.startswith("error [invalid_value]: column d expects DOUBLE")


@pytest.mark.parametrize(
    ("name", "head", "expected"),
    [
        ("-", b'{"a": 1}', "ndjson"),
        ("-", b" \n[{", "json"),
        ("-", b"\xef\xbb\xbf[", "json"),
        ("-", b"", "ndjson"),
        ("-", b"id,t\n1,x", "csv"),
        ("-", b"no row at all\n", "ndjson"),
        ("-", b'"a,b"', "csv"),
        ("-", b"PAR1\x15", "parquet"),
        ("-", b"ARROW1\0\0", "arrow"),
        ("-", b"\xff\xff\xff\xff\x10", "arrow"),
        ("x.json", b"[", "json"),
        ("x.json", b"{", "ndjson"),
        ("x.CSV", b"[1]", "csv"),
        ("x.jsonl", b"", "ndjson"),
    ],
)
def test_a_format_is_known_by_the_name_or_the_first_bytes(name, head, expected):
    assert format_of(Path(name), head) is RowFormat(expected)


def test_a_parquet_reader_that_is_killed_is_an_error_that_names_the_file(tmp_path):
    path = tmp_path / "rows.parquet"
    pq.write_table(rows(200_000), path)
    with path.open("rb") as file, ParquetReader() as parquet:
        tables = parquet.tables(file)
        next(tables)
        [reader] = Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split()[-1:]
        os.kill(int(reader), signal.SIGSEGV)
        with pytest.raises(CommandFailed, match=r"cannot read .*rows\.parquet as Parquet: .* SIGSEGV"):
            list(tables)


@pytest.mark.parametrize("damage", range(12))
def test_a_damaged_parquet_file_is_an_error_or_its_rows(tmp_path, damage):
    path = tmp_path / "rows.parquet"
    pq.write_table(rows(500), path)
    chance = random.Random(damage)
    content = bytearray(path.read_bytes())
    for _ in range(3):
        content[chance.randrange(len(content) if damage % 2 else 400)] ^= 1 << chance.randrange(8)
    path.write_bytes(content)
    with path.open("rb") as file, ParquetReader() as parquet, contextlib.suppress(CommandFailed):
        assert sum(table.num_rows for table, _ in parquet.tables(file)) <= 500


def test_one_process_reads_files_one_after_another_and_another_one_what_follows_a_damaged_one(tmp_path):
    for name, count in (("a", 10), ("b", 12_000), ("c", 3)):
        pq.write_table(rows(count), tmp_path / f"{name}.parquet")
    (tmp_path / "wrong.parquet").write_bytes(b"PAR1 nothing PAR1")

    def read(parquet, name):
        with (tmp_path / f"{name}.parquet").open("rb") as file:
            return sum(table.num_rows for table, _ in parquet.tables(file))

    with ParquetReader() as parquet:
        assert [read(parquet, "a"), read(parquet, "b")] == [10, 12_000]
        first = parquet.pid
        with pytest.raises(CommandFailed, match=r"cannot read .*wrong\.parquet as Parquet"):
            read(parquet, "wrong")
        assert (read(parquet, "c"), read(parquet, "b")) == (3, 12_000)
        assert parquet.pid not in (None, first)
