"""Keys as Arrow columns: found and numbered as Python would, of one column and of several."""

from __future__ import annotations

from datetime import date
from typing import Any

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from kalam.rows.keys import as_row, key_arrays, key_at, key_codes, keys_in, places_among
from kalam.schema import Column, DataType, TypeName

PARTS: dict[TypeName, st.SearchStrategy[Any]] = {
    TypeName.TEXT: st.sampled_from(["", "a", "b", "é"]),
    TypeName.BIGINT: st.sampled_from([-(1 << 63), 0, 1, (1 << 63) - 1]),
    TypeName.DATE: st.dates(date(2000, 1, 1), date(2000, 1, 4)),
}


@st.composite
def keyed(draw: st.DrawFn) -> tuple[list[Column], list[Any], list[Any]]:
    """Columns, keys of rows, and keys that differ."""
    kinds = draw(st.lists(st.sampled_from(sorted(PARTS)), min_size=1, max_size=4))
    columns = [Column(column_id=n, name=f"k{n}", type=DataType(name=kind)) for n, kind in enumerate(kinds)]
    key = st.tuples(*(PARTS[kind] for kind in kinds)).map(lambda parts: parts if len(parts) > 1 else parts[0])
    return columns, draw(st.lists(key, max_size=30)), draw(st.lists(key, unique=True, max_size=12))


@settings(deadline=None)
@given(keyed())
def test_keys_are_found_and_numbered_as_python_would(given: tuple[list[Column], list[Any], list[Any]]) -> None:
    columns, rows, wanted = given
    arrays = [pa.chunked_array([own[:3], own[3:]]) for own in key_arrays(rows, columns)]
    assert keys_in(arrays) == rows
    assert [key_at(arrays, place) for place in range(len(rows))] == rows
    found = places_among(arrays, key_arrays(wanted, columns)).to_pylist()
    assert found == [wanted.index(row) if row in wanted else None for row in rows]
    codes = key_codes(arrays).tolist()
    assert len(set(codes)) == len(set(rows)) == len(set(zip(codes, rows, strict=True)))
    assert max(codes, default=0) <= len(rows)
    assert all(len(as_row(row)) == len(columns) for row in rows)
