"""Manifests and manifest lists, in Avro, by pyiceberg's own writers; nothing else of Kalam knows those.

pyiceberg has no writer of manifests of deletes, so its writer of data manifests gets another content here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from pyiceberg.avro.codecs import AvroCompressionCodec
from pyiceberg.manifest import (
    DataFile,
    DataFileContent,
    FileFormat,
    ManifestContent,
    ManifestEntry,
    ManifestEntryStatus,
    ManifestFile,
    ManifestWriterV2,
    PartitionFieldSummary,
    write_manifest_list,
)
from pyiceberg.partitioning import PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.typedef import Record

from kalam.lake import fields
from kalam.lake.avro_output import AvroOutput
from kalam.lake.state import Entry, Manifest
from kalam.schema import Table

CODEC: AvroCompressionCodec = "deflate"


class Shape(msgspec.Struct, frozen=True):
    """What manifests of a table are written with."""

    schema: Schema
    spec: PartitionSpec

    @classmethod
    def of(cls, table: Table) -> Shape:
        """That of a table's present version."""
        spec = PartitionSpec.model_validate(fields.partition_spec(table))
        return cls(Schema.model_validate(fields.schema(table)), spec)


class _Writer(ManifestWriterV2):
    """A writer of data manifests, or of manifests of deletes."""

    of_deletes = False

    def content(self) -> ManifestContent:
        """What the manifest lists."""
        return ManifestContent.DELETES if self.of_deletes else ManifestContent.DATA

    @property
    def _meta(self) -> dict[str, str]:
        return {**super()._meta, "content": "deletes" if self.of_deletes else "data"}


def write_manifest(
    shape: Shape,
    name: str,
    *,
    of_deletes: bool,
    snapshot_id: int,
    sequence_number: int,
    added: Sequence[Entry],
    existing: Sequence[Entry],
    removed: Sequence[Entry],
) -> tuple[bytes, Manifest]:
    """A manifest of files that are new, that stay, and that are gone; its bytes, and what the lake keeps of it."""
    output = AvroOutput(name)
    writer = _Writer(shape.spec, shape.schema, output, snapshot_id, CODEC)
    writer.of_deletes = of_deletes
    kinds = (
        (ManifestEntryStatus.ADDED, added),
        (ManifestEntryStatus.EXISTING, existing),
        (ManifestEntryStatus.DELETED, removed),
    )
    with writer:
        for status, entries in kinds:
            for entry in entries:
                writer.add_entry(_avro_entry(shape, entry, status, snapshot_id))
    live = [*added, *existing]
    manifest = Manifest(
        name=name,
        of_deletes=of_deletes,
        schema_version=shape.schema.schema_id,
        snapshot_id=snapshot_id,
        sequence_number=sequence_number,
        min_sequence_number=min((entry.sequence_number for entry in live), default=sequence_number),
        entries=live,
        added=_counts(added),
        existing=_counts(existing),
        removed=_counts(removed),
    )
    return output.content, manifest


def _counts(entries: Sequence[Entry]) -> tuple[int, int]:
    return len(entries), sum(entry.row_count for entry in entries)


def _avro_entry(shape: Shape, entry: Entry, status: ManifestEntryStatus, snapshot_id: int) -> ManifestEntry:
    of_deletes = bool(entry.hides)
    data_file = DataFile.from_args(
        content=DataFileContent.POSITION_DELETES if of_deletes else DataFileContent.DATA,
        file_path=entry.path,
        file_format=FileFormat.PARQUET,
        partition=Record(*([entry.user] if shape.spec.fields else [])),
        record_count=entry.row_count,
        file_size_in_bytes=entry.byte_count,
        column_sizes={},
        value_counts=dict.fromkeys(entry.nulls, entry.row_count),
        null_value_counts=dict(entry.nulls),
        nan_value_counts={},
        lower_bounds=dict(entry.lower_bounds),
        upper_bounds=dict(entry.upper_bounds),
        key_metadata=None,
        split_offsets=None,
        equality_ids=None,
        sort_order_id=None,
    )
    data_file.spec_id = shape.spec.spec_id
    return ManifestEntry.from_args(
        status=status,
        snapshot_id=snapshot_id if status is ManifestEntryStatus.DELETED else entry.snapshot_id,
        sequence_number=entry.sequence_number,
        file_sequence_number=entry.sequence_number,
        data_file=data_file,
    )


def write_list(
    shape: Shape,
    name: str,
    called: Any,
    *,
    snapshot_id: int,
    parent_id: int | None,
    sequence_number: int,
    manifests: Sequence[tuple[Manifest, int]],
) -> bytes:
    """The list of a snapshot's manifests, which come with their sizes in bytes; ``called`` names a file in full."""
    output = AvroOutput(name)
    with write_manifest_list(2, output, snapshot_id, parent_id, sequence_number, CODEC) as writer:
        writer.add_manifests([_listed(shape, manifest, called(manifest.name), size) for manifest, size in manifests])
    return output.content


def _listed(shape: Shape, manifest: Manifest, path: str, size: int) -> ManifestFile:
    return ManifestFile.from_args(
        manifest_path=path,
        manifest_length=size,
        partition_spec_id=shape.spec.spec_id,
        content=ManifestContent.DELETES if manifest.of_deletes else ManifestContent.DATA,
        sequence_number=manifest.sequence_number,
        min_sequence_number=manifest.min_sequence_number,
        added_snapshot_id=manifest.snapshot_id,
        added_files_count=manifest.added[0],
        existing_files_count=manifest.existing[0],
        deleted_files_count=manifest.removed[0],
        added_rows_count=manifest.added[1],
        existing_rows_count=manifest.existing[1],
        deleted_rows_count=manifest.removed[1],
        partitions=_summaries(shape, manifest),
        key_metadata=None,
    )


def _summaries(shape: Shape, manifest: Manifest) -> list[PartitionFieldSummary]:
    if not shape.spec.fields:
        return []
    users = [entry.user.encode() for entry in manifest.entries]
    return [PartitionFieldSummary(False, False, min(users, default=None), max(users, default=None))]
