"""A segment as an entry of a manifest: its counts and bounds from the footer, so that readers can leave files out.

A column whose bounds the file lacks in one row group (a NaN, a long text) has none here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq
from pyiceberg.conversions import to_bytes
from pyiceberg.schema import Schema

from kalam.rows.field_ids import FIELD_ID, SYSTEM_IDS
from kalam.schema import Column
from kalam.storage.segments.remote import readable


class Footer(msgspec.Struct, frozen=True, kw_only=True):
    """What a segment's footer tells of its fields, by field id; ``has_ids`` says whether the file names these."""

    nulls: dict[int, int]
    lower_bounds: dict[int, bytes]
    upper_bounds: dict[int, bytes]
    has_ids: bool


def read_footer(path: Path, columns: tuple[Column, ...], schema: Schema) -> Footer:
    """Counts and bounds of a segment that was written with these columns; blocking. Raises FileNotFoundError.

    ``schema`` has the fields that are asked for; what else lies in the file is passed over.
    """
    with pq.ParquetFile(readable(path)) as file:
        metadata, arrow = file.metadata, file.schema_arrow
    ids = {**SYSTEM_IDS, **{column.name: column.column_id for column in columns}}
    footer = Footer(nulls={}, lower_bounds={}, upper_bounds={}, has_ids=_has_ids(arrow))
    types = {field.field_id: field.field_type for field in schema.fields}
    for place, name in enumerate(arrow.names):
        field_id = ids.get(name)
        if field_id in types:
            groups = [metadata.row_group(group).column(place).statistics for group in range(metadata.num_row_groups)]
            _describe(footer, field_id, types[field_id], groups)
    return footer


def _has_ids(arrow: Any) -> bool:
    return all(FIELD_ID in (field.metadata or {}) for field in arrow)


def _describe(footer: Footer, field_id: int, kind: Any, groups: list[Any]) -> None:
    if all(group is not None and group.has_null_count for group in groups):
        footer.nulls[field_id] = sum(group.null_count for group in groups)
    bounded = [group for group in groups if group is not None and group.has_min_max]
    if bounded and all(_is_bounded(group) for group in groups):
        footer.lower_bounds[field_id] = to_bytes(kind, min(group.min for group in bounded))
        footer.upper_bounds[field_id] = to_bytes(kind, max(group.max for group in bounded))


def _is_bounded(group: Any) -> bool:
    return group is not None and (group.has_min_max or group.num_values == 0)
