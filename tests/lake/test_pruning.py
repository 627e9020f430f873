"""Readers leave out files by the bounds and counts of their columns; with any condition they read what fulfils it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
import pytest
from lake_readers import duckdb_connection, lake_of, metadata_of
from lake_values import VALUES
from pyiceberg.expressions import EqualTo, GreaterThan, IsNull, LessThanOrEqual, NotNull
from pyiceberg.table import StaticTable
from server_process import ServerProcess

SEGMENTS = 4
COMPARISONS = {
    "=": (EqualTo, pc.equal),
    "<=": (LessThanOrEqual, pc.less_equal),
    ">": (GreaterThan, pc.greater),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with a table of four files: one has a value of each column, one another, one both and NULL, one NULL."""
    server = ServerProcess(tmp_path_factory.mktemp("lake") / "data").start()
    server.sql(f"CREATE NAMESPACE n; CREATE TABLE n.t (id BIGINT PRIMARY KEY, {', '.join(VALUES)})")
    for segment, picks in enumerate(((0,), (-1,), (0, -1, None), (None,))):
        for place, pick in enumerate(picks):
            row = ", ".join("NULL" if pick is None else values[pick] for values in VALUES.values())
            server.sql(f"INSERT INTO n.t VALUES ({segment * 10 + place}, {row})")
        server.sql("FLUSH TABLE n.t")
    server.sql("REFRESH LAKE FOR TABLE n.t")
    yield server
    server.kill()


def values_of(column: pa.ChunkedArray) -> list[Any]:
    return [value for value in column.unique().to_pylist() if value is not None and value == value]


@pytest.mark.parametrize("name", ["id", *(column.split()[0] for column in VALUES)])
def test_a_condition_finds_what_it_finds_in_all_rows(server: ServerProcess, name: str) -> None:
    metadata = str(metadata_of(lake_of(server, "n.t")))
    table = StaticTable.from_metadata(metadata)
    rows = table.scan().to_arrow()
    assert rows.num_rows == 6
    assert values_of(rows.column(name))
    with duckdb_connection().cursor() as duck:  # whose temporary tables are its own
        duck.execute(f"CREATE TEMP TABLE all_rows AS FROM iceberg_scan('{metadata}')")
        for value in values_of(rows.column(name)):
            for sign, (condition, compared) in COMPARISONS.items():
                found = [
                    sorted(duck.execute(f"SELECT id FROM {source} WHERE {name} {sign} ?", [value]).fetchall())
                    for source in (f"iceberg_scan('{metadata}')", "all_rows")
                ]
                assert found[0] == found[1], ("duckdb", sign, value)
                if isinstance(value, float) and sign == "=":
                    continue  # of 0.1 as FLOAT and as DOUBLE
                wanted = rows.filter(compared(rows.column(name), pa.scalar(value, rows.schema.field(name).type)))
                read = table.scan(row_filter=condition(name, literal_of(value))).to_arrow()
                assert sorted(read["id"].to_pylist()) == sorted(wanted["id"].to_pylist()), ("pyiceberg", sign, value)
        for text, condition in (("IS NULL", IsNull(name)), ("IS NOT NULL", NotNull(name))):
            wanted = sorted(duck.execute(f"SELECT id FROM all_rows WHERE {name} {text}").fetchall())
            found = sorted(duck.execute(f"SELECT id FROM iceberg_scan('{metadata}') WHERE {name} {text}").fetchall())
            read = table.scan(row_filter=condition).to_arrow()["id"].to_pylist()
            assert (found, sorted((key,) for key in read)) == (wanted, wanted), text


def literal_of(value: Any) -> Any:
    """What pyiceberg takes for a value: no years beyond its own arithmetic, so texts for times."""
    return value.isoformat() if hasattr(value, "isoformat") else value
