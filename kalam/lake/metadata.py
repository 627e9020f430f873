"""The table metadata of Iceberg, format version 2, as JSON; and which snapshots stay. Pure.

The law of expiry: a snapshot stays as long as it is the current one, and ``kept_us`` after another took its place. So a
file that a commit stopped naming may go when the oldest snapshot that stays is that commit's or a later one's.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from itertools import pairwise
from typing import Any

import msgspec
from msgspec.structs import replace

from kalam.lake import fields
from kalam.lake.folder import LakeFolder
from kalam.lake.state import Snapshot
from kalam.rows.versions import History
from kalam.schema import Table

SNAPSHOTS_MAX = 500
"""Snapshots that stay at most, however often it is committed: each commit writes all of them down."""
FORMER_METADATA_MAX = 3
NAMESPACE = uuid.UUID("9b1b4c1e-54ad-4ad1-8f5f-7a3c1f0d6a55")


def kept_snapshots(snapshots: Sequence[Snapshot], *, now_us: int, kept_us: int) -> list[Snapshot]:
    """Those of the snapshots, oldest first, that readers may still hold; the last is the current one."""
    kept = [one for one, following in pairwise(snapshots) if following.snapshot_id > now_us - kept_us]
    return [*kept, *snapshots[-1:]][-SNAPSHOTS_MAX:]


def table_metadata(
    table: Table,
    history: History,
    folder: LakeFolder,
    *,
    data_id: str,
    snapshots: Sequence[Snapshot],
    schema_versions: AbstractSet[int],
    former_metadata: Sequence[tuple[int, str]],
    updated_us: int,
    sequence_number: int,
) -> dict[str, Any]:
    """The whole document; ``snapshots`` are oldest first, ``former_metadata`` times in microseconds and names.

    ``schema_versions`` are those under which the files of the current snapshot were written.
    """
    versions = {table.schema_version, *schema_versions, *(snapshot.schema_version for snapshot in snapshots)}
    current = snapshots[-1].snapshot_id if snapshots else -1
    return {
        "format-version": 2,
        "table-uuid": str(uuid.uuid5(NAMESPACE, f"{data_id}/{table.table_id}")),
        "location": folder.location,
        "last-sequence-number": sequence_number,
        "last-updated-ms": updated_us // 1_000,
        "last-column-id": fields.last_column_id(history),
        "schemas": [fields.schema(at_version(table, history, version)) for version in sorted(versions)],
        "current-schema-id": table.schema_version,
        "partition-specs": [fields.partition_spec(table)],
        "default-spec-id": 0,
        "last-partition-id": fields.PARTITION_FIELD_ID if table.per_user else fields.PARTITION_FIELD_ID - 1,
        "sort-orders": [{"order-id": 0, "fields": []}],
        "default-sort-order-id": 0,
        "properties": {
            "schema.name-mapping.default": msgspec.json.encode(fields.name_mapping(history)).decode(),
            "write.format.default": "parquet",
            "kalam.table": str(table.name),
        },
        "current-snapshot-id": current,
        "refs": {"main": {"snapshot-id": current, "type": "branch"}} if snapshots else {},
        "snapshots": [_snapshot(snapshot, folder) for snapshot in snapshots],
        "snapshot-log": [
            {"snapshot-id": snapshot.snapshot_id, "timestamp-ms": snapshot.snapshot_id // 1_000}
            for snapshot in snapshots
        ],
        "metadata-log": [
            {"metadata-file": folder.called(name), "timestamp-ms": us // 1_000} for us, name in former_metadata
        ],
        "statistics": [],
        "partition-statistics": [],
    }


def at_version(table: Table, history: History, version: int) -> Table:
    """The table with the columns that it had under a schema version."""
    columns = history.get(version, table.columns)
    names = {column.column_id: column.name for column in columns}
    key = tuple(names[column.column_id] for column in table.key_columns)
    return replace(table, columns=columns, key=key, schema_version=version)


def _snapshot(snapshot: Snapshot, folder: LakeFolder) -> dict[str, Any]:
    parent = {} if snapshot.parent_id is None else {"parent-snapshot-id": snapshot.parent_id}
    return parent | {
        "snapshot-id": snapshot.snapshot_id,
        "sequence-number": snapshot.sequence_number,
        "timestamp-ms": snapshot.snapshot_id // 1_000,
        "manifest-list": folder.called(snapshot.manifest_list),
        "summary": snapshot.summary,
        "schema-id": snapshot.schema_version,
    }
