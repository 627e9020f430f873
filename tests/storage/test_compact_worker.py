"""The merge itself: sorted inputs of any key type, in small batches, into sorted outputs."""

from __future__ import annotations

import random
import uuid
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kalam.rows.columns import arrow_schema
from kalam.rows.types import TIMESTAMP_ARROW
from kalam.schema import UPDATED, Column, Compression, DataType, TypeName
from kalam.storage.log.copy_store import pack_key
from kalam.storage.log.data_dir import DATABASE, prepare_database
from kalam.storage.log.database import connect
from kalam.storage.segments.parquet import write_segment
from kalam.storage.segments.segment_file import Identity, checksum_of
from kalam.storage.work import compact_worker
from kalam.storage.work.compact_worker import CompactInput, CompactRequest, compact

EPOCH = datetime(2020, 1, 1, tzinfo=UTC)
KEYS: dict[TypeName, Any] = {
    TypeName.BIGINT: lambda number: number - 500,
    TypeName.TEXT: lambda number: f"{number % 7}é{number}",
    TypeName.UUID: lambda number: str(uuid.UUID(int=number * 0x9E3779B97F4A7C15)),
    TypeName.DATE: lambda number: date(1960, 1, 1) + timedelta(days=number),
    TypeName.TIMESTAMP: lambda number: EPOCH + timedelta(microseconds=number - 700),
    TypeName.DECIMAL: lambda number: Decimal(number - 300).scaleb(-2),
}
COUNT = 1_000


def columns_of(kind: TypeName) -> tuple[Column, ...]:
    detail = {"precision": 12, "scale": 2} if kind is TypeName.DECIMAL else {}
    key = Column(column_id=1, name="k", type=DataType(name=kind, **detail), nullable=False)
    return key, Column(column_id=2, name="v", type=DataType(name=TypeName.DOUBLE))


def write(folder: Path, name: str, columns: tuple[Column, ...], rows: list[tuple[Any, float, int]]) -> CompactInput:
    rows = sorted(rows)
    schema = arrow_schema(columns).append(pa.field(UPDATED, TIMESTAMP_ARROW)).append(pa.field("_seq", pa.int64()))
    keys, values, seqs = zip(*rows, strict=True)
    updated = [EPOCH + timedelta(seconds=seq) for seq in seqs]
    with (folder / name).open("w+b") as file:
        write_segment(pa.table([keys, values, updated, seqs], schema=schema), file, compression=Compression.ZSTD)
        size = file.tell()
        file.seek(0)
        identity = Identity(
            table_id=1,
            byte_count=size,
            row_count=len(rows),
            min_seq=min(seqs),
            max_seq=max(seqs),
            checksum=checksum_of(file),
        )
    return CompactInput(path=name, schema_version=1, identity=identity)


def request(folder: Path, columns: tuple[Column, ...], inputs: list[CompactInput], **fields: Any) -> CompactRequest:
    defaults: dict[str, Any] = {"deleted": False, "forget_deleted_us": 0, "segment_rows_max": 1_000_000}
    return CompactRequest(
        database=str(folder / DATABASE),
        table_id=1,
        schema_version=1,
        copy_id=1,
        inputs=inputs,
        columns=columns,
        history={1: columns},
        key=("k",),
        folder=str(folder),
        name="out",
        compression=Compression.ZSTD,
        **defaults | fields,
    )


@pytest.mark.parametrize("kind", sorted(KEYS))
def test_inputs_of_every_key_type_are_merged_in_order(
    tmp_path: Path, kind: TypeName, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compact_worker, "BATCH_ROWS", (16, 16))
    prepare_database(tmp_path)
    columns, chance = columns_of(kind), random.Random(kind)
    parts: list[list[tuple[Any, float, int]]] = [[] for _ in range(5)]
    for number in range(COUNT):
        parts[chance.randrange(5)].append((KEYS[kind](number), number / 2, number + 1))
    hidden = [KEYS[kind](number) for number in range(0, COUNT, 10)]
    conn = connect(tmp_path / DATABASE)
    overrides = [(1, pack_key(key), 10 * COUNT) for key in hidden]
    overrides.append((1, pack_key(KEYS[kind](1)), 2))  # the row itself is the version that the override stands for
    conn.executemany("INSERT INTO overrides VALUES (?, ?, ?)", overrides)
    conn.close()
    inputs = [write(tmp_path, f"in{place}.parquet", columns, part) for place, part in enumerate(parts)]
    answer = compact(request(tmp_path, columns, inputs, segment_rows_max=400))
    assert (answer.row_count, answer.removed) == (900, 100)
    assert [file.row_count for file in answer.files] == [400, 400, 100]
    rows = pa.concat_tables([pq.read_table(tmp_path / file.temporary) for file in answer.files])
    expected = sorted(KEYS[kind](number) for number in range(COUNT) if number % 10)
    assert rows.column("k").to_pylist() == expected
    by_key = {KEYS[kind](number): (number / 2, number + 1) for number in range(COUNT)}
    assert [(v, seq) for v, seq in zip(rows["v"].to_pylist(), rows["_seq"].to_pylist(), strict=True)] == [
        by_key[key] for key in expected
    ]
    assert [file.min_key for file in answer.files] == [pack_key(expected[place]) for place in (0, 400, 800)]


def test_a_column_with_nan_in_one_input_gets_no_bounds(tmp_path: Path) -> None:
    prepare_database(tmp_path)
    columns = columns_of(TypeName.BIGINT)
    inputs = [
        write(tmp_path, "a.parquet", columns, [(1, 1.0, 1)]),
        write(tmp_path, "b.parquet", columns, [(2, float("nan"), 2)]),
    ]
    [file] = compact(request(tmp_path, columns, inputs)).files
    group = pq.read_metadata(tmp_path / file.temporary).row_group(0)
    assert group.column(0).statistics.max == 2
    assert group.column(1).statistics is None or not group.column(1).statistics.has_min_max


def test_rows_that_were_deleted_long_ago_are_left_out_of_deleted_rows_only(tmp_path: Path) -> None:
    prepare_database(tmp_path)
    columns = columns_of(TypeName.BIGINT)
    inputs = [write(tmp_path, "a.parquet", columns, [(1, 0.0, 1), (2, 0.0, 200)])]
    before = int((EPOCH + timedelta(seconds=100)).timestamp() * 1e6)
    live = compact(request(tmp_path, columns, inputs, forget_deleted_us=before))
    deleted = compact(request(tmp_path, columns, inputs, forget_deleted_us=before, deleted=True))
    assert (live.row_count, deleted.row_count, deleted.removed) == (2, 1, 1)
    nothing = compact(request(tmp_path, columns, inputs, forget_deleted_us=2 * before, deleted=True))
    assert (nothing.files, nothing.removed) == ([], 2)


def test_what_was_written_goes_when_an_input_cannot_be_read(tmp_path: Path) -> None:
    prepare_database(tmp_path)
    columns = columns_of(TypeName.BIGINT)
    inputs = [
        write(tmp_path, f"{name}.parquet", columns, [(number, 0.0, number + 1)]) for number, name in enumerate("ab")
    ]
    content = (tmp_path / "b.parquet").read_bytes()
    (tmp_path / "b.parquet").write_bytes(content[:20] + bytes(40) + content[60:])
    unsealed = msgspec.structs.replace(inputs[1].identity, checksum=None)  # as Kalam 0.1.0 left it
    for last in (inputs[1], msgspec.structs.replace(inputs[1], identity=unsealed)):
        answer = compact(request(tmp_path, columns, [inputs[0], last]))
        assert (answer.damaged, answer.files, answer.error) == (1, [], None)
        assert answer.damage.startswith("is damaged")
    assert not list(tmp_path.glob(".*out*"))
