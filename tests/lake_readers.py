"""Other engines that read a table's Iceberg metadata from its folder, each as a function that gives an Arrow table."""

from __future__ import annotations

import json
import os
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import chdb
import duckdb
import duckdb_extensions
import polars
import pyarrow as pa
from pyiceberg.table import StaticTable
from server_process import ServerProcess

Read = Callable[[Path], pa.Table]


@cache
def duckdb_connection() -> duckdb.DuckDBPyConnection:
    """One connection with the extensions that come as wheels."""
    connection = duckdb.connect()
    for extension in ("avro", "iceberg", "httpfs"):
        duckdb_extensions.import_extension(extension)
        connection.execute(f"LOAD {extension}")
    return connection.execute("SET TimeZone = 'UTC'")


def lake_of(server: ServerProcess, name: str) -> Path:
    """The folder of the lake of a SHARED table, or of a USER table."""
    namespace, table = name.split(".")
    shared = server.data_dir / "shared" / namespace / table / "iceberg"
    return shared if shared.is_dir() else next((server.data_dir / "user" / namespace / table).glob(".iceberg-*"))


def metadata_of(lake: Path) -> Path:
    """The newest metadata file of a lake."""
    number = (lake / "metadata" / "version-hint.text").read_text()
    return lake / "metadata" / f"v{number}.metadata.json"


def by_duckdb(lake: Path) -> pa.Table:
    return duckdb_connection().sql(f"SELECT * FROM iceberg_scan('{metadata_of(lake)}')").to_arrow_table()


def by_pyiceberg(lake: Path) -> pa.Table:
    return StaticTable.from_metadata(str(metadata_of(lake))).scan().to_arrow()


def by_polars(lake: Path) -> pa.Table:
    with quiet():
        return polars.scan_iceberg(StaticTable.from_metadata(str(metadata_of(lake)))).collect().to_arrow()


def by_clickhouse(lake: Path) -> pa.Table:
    with in_folder("/"):  # it reads what lies under the working directory
        answer = chdb.query(f"SELECT * FROM icebergLocal('{lake}')", "Arrow").bytes()
    return pa.ipc.open_file(answer).read_all()


@contextmanager
def quiet() -> Iterator[None]:
    """Without polars' warning that pyiceberg plans its scans."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def in_folder(path: str) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(path)
    try:
        yield
    finally:
        os.chdir(before)


READERS: dict[str, Read] = {
    "duckdb": by_duckdb,
    "pyiceberg": by_pyiceberg,
    "polars": by_polars,
    "clickhouse": by_clickhouse,
}


def selected(server: ServerProcess, sql: str, user: str = "admin") -> pa.Table:
    """The rows of a SELECT with their exact types, without what no other engine has."""
    headers = {
        "Accept": "application/vnd.apache.arrow.stream",
        "Content-Type": "application/json",
        "X-Kalam-User": user,
    }
    request = urllib.request.Request(f"{server.http_url}/v1/sql", json.dumps({"sql": sql}).encode(), headers)
    with urllib.request.urlopen(request) as response:
        table = pa.ipc.open_stream(response.read()).read_all()
    return table.drop_columns(["_deleted"]) if "_deleted" in table.column_names else table


def rows_of(table: pa.Table, like: pa.Schema, key: str) -> list[tuple[Any, ...]]:
    """The rows in the columns and types of a schema, in the order of the key; NaN as a text, which equals itself."""
    assert set(table.column_names) >= set(like.names), f"{table.column_names} instead of {like.names}"
    cast = pa.table([table.column(field.name).cast(field.type) for field in like], names=like.names)
    rows = [tuple("NaN" if value != value else value for value in row.values()) for row in cast.to_pylist()]
    return sorted(rows, key=lambda row: row[like.get_field_index(key)])
