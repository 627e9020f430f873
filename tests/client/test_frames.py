"""Frames of pandas and polars, Arrow tables and numpy's scalars, into tables and out of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from server_process import ServerProcess

import kalam
from kalam.client import KalamSync
from kalam.errors import InvalidValue, TooLarge

COLUMNS = (
    "id BIGINT PRIMARY KEY, ok BOOLEAN, v DOUBLE, n INT, name TEXT, at TIMESTAMP, price DECIMAL(10,2), "
    "raw BLOB, day DATE"
)
NAMES = "id, ok, v, n, name, at, price, raw, day"
LARGE = 2**53 + 1
FULL = {
    "id": LARGE,
    "ok": True,
    "v": 0.5,
    "n": 7,
    "name": "größer",
    "at": datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC),
    "price": Decimal("1.50"),
    "raw": b"\x00\xff",
    "day": date(2026, 1, 2),
}
EMPTY = dict.fromkeys(FULL) | {"id": LARGE + 1}


@pytest.fixture
def k(shared_server: ServerProcess) -> Iterator[KalamSync]:
    with kalam.connect_sync(shared_server.nats_url, user="ada") as k:
        yield k


def make(k: KalamSync, name: str, columns: str = COLUMNS) -> str:
    k.sql(
        f"CREATE NAMESPACE {name}; CREATE SHARED TABLE {name}.t ({columns}); CREATE SHARED TABLE {name}.u ({columns})"
    )
    return f"{name}.t"


def test_a_pandas_frame_goes_round_without_loss(k: KalamSync) -> None:
    table = make(k, "round_pandas")
    k.insert(table, [FULL, EMPTY])
    frame = k.sql(f"SELECT {NAMES} FROM {table} ORDER BY id").pandas()
    assert [str(frame.dtypes[name]) for name in ("id", "ok", "v", "n")] == ["Int64", "boolean", "float64", "Int32"]
    assert frame["id"].tolist() == [LARGE, LARGE + 1]
    assert frame["at"][0] == FULL["at"]
    assert k.insert("round_pandas.u", frame) == 2
    assert k.sql(f"SELECT {NAMES} FROM round_pandas.u ORDER BY id").arrow().to_pylist() == [FULL, EMPTY]


def test_a_polars_frame_goes_round_without_loss(k: KalamSync) -> None:
    table = make(k, "round_polars")
    k.insert(table, [FULL, EMPTY])
    frame = k.sql(f"SELECT {NAMES} FROM {table} ORDER BY id").polars()
    assert frame.to_dicts() == [FULL, EMPTY]
    assert k.insert("round_polars.u", frame) == 2
    assert k.sql(f"SELECT {NAMES} FROM round_polars.u ORDER BY id").polars().equals(frame)


def test_the_types_of_a_frame_do_not_depend_on_its_rows(k: KalamSync) -> None:
    answer = k.sql(f"SELECT {NAMES} FROM {make(k, 'no_rows')}")
    assert str(answer.pandas()["id"].dtype) == "Int64"
    assert answer.polars().schema["id"] == pl.Int64
    assert answer.pandas().shape == answer.polars().shape == (0, 9)


NUMBERS = np.arange(12_000)
FILLERS = ["x" * 40] * len(NUMBERS)


FRAMES = [
    pd.DataFrame({"id": NUMBERS, "name": FILLERS}),
    pl.DataFrame({"id": NUMBERS, "name": FILLERS}),
    pa.table({"id": NUMBERS, "name": FILLERS}),
    pd.DataFrame({"id": NUMBERS, "name": pd.Categorical([f"{number:040}" for number in NUMBERS])}),
    pl.DataFrame({"id": NUMBERS, "name": FILLERS}).with_columns(pl.col("name").cast(pl.Categorical)),
]


def test_frames_and_rows_are_cut_by_what_the_broker_takes(
    start_nats_server: Callable[..., Any], start_kalam: Callable[..., ServerProcess]
) -> None:
    broker = start_nats_server(max_payload=65_536)
    server = start_kalam(flags=(f"--nats-url={broker.url}",))
    with kalam.connect_sync(broker.url) as k:
        k.sql("CREATE NAMESPACE cut")
        for place, frame in enumerate([*FRAMES, [{"id": n, "name": "x" * 1_000} for n in range(1_000)]]):
            table = f"cut.t{place}"
            k.sql(f"CREATE SHARED TABLE {table} (id BIGINT PRIMARY KEY, name TEXT)")
            assert k.insert(table, frame) == len(frame)
            [told] = k.sql(f"SELECT count(*) AS n, min(length(name)) AS shortest FROM {table}").rows
            assert told == {"n": len(frame), "shortest": 1_000 if isinstance(frame, list) else 40}
        with pytest.raises(TooLarge):
            k.insert("cut.t0", {"id": 100_000, "name": "x" * 70_000})
    assert "maximum payload" not in server.log_file.read_text()  # the changes that follow are cut likewise


def test_scalars_of_numpy_and_pandas_are_values(k: KalamSync) -> None:
    table = make(
        k, "scalars", "id BIGINT PRIMARY KEY, v DOUBLE, ok BOOLEAN, name TEXT, at TIMESTAMP, day DATE, doc JSON"
    )
    k.insert(
        table,
        [
            {"id": np.int64(1), "v": np.float32(0.5), "ok": np.bool_(True), "name": np.str_("a")},
            {
                "id": np.uint8(2),
                "at": np.datetime64("2026-01-02T03:04:05.678901234"),
                "day": np.datetime64("2026-01-02"),
            },
            {"id": 3, "at": pd.Timestamp("2026-01-02", tz="UTC"), "day": pd.NaT, "v": pd.NA, "doc": np.array([1, 2])},
            {"id": 4, "v": np.float64("nan"), "at": np.datetime64("NaT"), "doc": {"a": np.int16(5)}},
        ],
    )
    rows = k.sql(f"SELECT * FROM {table} WHERE id <= $1 ORDER BY id", [np.int32(4)]).rows
    assert [list(row.values())[:7] for row in rows] == [
        [1, 0.5, True, "a", None, None, None],
        [2, None, None, None, "2026-01-02T03:04:05.678901Z", "2026-01-02", None],
        [3, None, None, None, "2026-01-02T00:00:00.000000Z", None, [1, 2]],
        [4, "NaN", None, None, None, None, {"a": 5}],
    ]
    found = k.sql(f"SELECT id FROM {table} WHERE at = $1", [pd.Timestamp("2026-01-02", tz="UTC")])
    assert found.rows == [{"id": 3}]
    k.sql(
        f"INSERT INTO {table} (id, v, doc) VALUES ($1, $2, $3)", [np.int64(5), np.float32("inf"), {"a": np.arange(2)}]
    )
    assert k.sql(f"SELECT v, doc FROM {table} WHERE id = 5").rows == [{"v": "Infinity", "doc": {"a": [0, 1]}}]


@pytest.mark.parametrize("value", [np.complex128(1j), pd.Timedelta(1)])
def test_scalars_that_no_column_holds_are_invalid_values(k: KalamSync, value: Any) -> None:
    with pytest.raises(InvalidValue):
        k.insert("nowhere.t", {"id": value})
    with pytest.raises(InvalidValue):
        k.sql("SELECT $1", [value])


def test_nan_within_a_json_parameter_is_refused_however_deep(k: KalamSync) -> None:
    with pytest.raises(InvalidValue, match="NaN"):
        k.sql("SELECT $1", [{"a": [np.float32("nan")]}])


def test_a_lazy_frame_has_to_be_collected(k: KalamSync) -> None:
    with pytest.raises(InvalidValue, match="LazyFrame"):
        k.insert("nowhere.t", pl.LazyFrame({"id": [1]}))


@pytest.mark.parametrize("name", ["pandas", "polars", "pyarrow"])
def test_a_library_that_is_missing_is_named(k: KalamSync, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    answer = k.sql("SELECT 1 AS one")
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=f"pip install {name}"):
        getattr(answer, name.removeprefix("py"))()
