"""Rows of an older schema version, read as rows of another."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from kalam.rows.stored import pack_rows
from kalam.rows.versions import StoredVersions, fill_value, layout
from kalam.schema import Column, DataType, TypeName


def column(column_id: int, name: str, kind: TypeName = TypeName.TEXT, fill: Any = None, **detail: int) -> Column:
    return Column(column_id=column_id, name=name, type=DataType(name=kind, **detail), fill=fill)


OLD = (column(1, "id"), column(2, "a"), column(3, "b"))


def test_columns_are_matched_by_id_and_not_by_name() -> None:
    swapped = (column(1, "id"), column(2, "b"), column(3, "a"))
    again = (column(1, "id"), column(4, "a"), column(3, "b"))
    rows = pack_rows([("k", "va", "vb")])
    assert StoredVersions(swapped, {1: OLD, 2: swapped}).unpack(rows, 1) == [("k", "va", "vb")]
    assert StoredVersions(again, {1: OLD, 2: again}).unpack(rows, 1) == [("k", None, "vb")]
    assert layout(swapped, OLD).names == ("id", "a", "b")
    assert layout(again, OLD).names == ("id", None, "b")


def test_rows_of_a_newer_version_can_be_read_by_a_statement_that_began_before() -> None:
    newer = (column(1, "id"), column(5, "c", TypeName.INT, 7))
    reader = StoredVersions(OLD, {1: OLD, 2: newer})
    assert reader.unpack(pack_rows([("k", 1), ("l", 2)]), 2) == [("k", None, None), ("l", None, None)]
    assert reader.unpack(pack_rows([]), 2) == []


@pytest.mark.parametrize(
    ("kind", "fill", "value", "detail"),
    [
        (TypeName.INT, 5, 5, {}),
        (TypeName.BOOLEAN, False, False, {}),
        (TypeName.DOUBLE, 1, 1.0, {}),
        (TypeName.FLOAT, 0.1, 0.10000000149011612, {}),
        (TypeName.DECIMAL, "1.5", Decimal("1.50"), {"precision": 10, "scale": 2}),
        (TypeName.TIMESTAMP, "2026-01-01T00:00:00.000001Z", datetime(2026, 1, 1, 0, 0, 0, 1, tzinfo=UTC), {}),
        (TypeName.JSON, {"a": 1}, '{"a":1}', {}),
        (TypeName.JSON, "x", '"x"', {}),
        (TypeName.BLOB, "AP8=", b"\x00\xff", {}),
        (TypeName.TEXT, None, None, {}),
    ],
)
def test_a_fill_has_a_rows_form(kind: TypeName, fill: Any, value: Any, detail: dict[str, int]) -> None:
    assert fill_value(column(9, "x", kind, fill, **detail)) == value
