"""The segments of a table, as a commit of its lake asks for them: what they are called, and what lies in them."""

from __future__ import annotations

import sqlite3

from kalam.lake.basis import Basis, LiveSegment
from kalam.lake.data_files import Footer, read_footer
from kalam.lake.folder import uri
from kalam.lake.manifests import Shape
from kalam.lake.metadata import at_version
from kalam.lake.positions import Overrides, Places
from kalam.rows.versions import layout
from kalam.storage.segments.folders import USER_ID, Folders
from kalam.storage.segments.key_filter import KeyFilter


class Source:
    """What a snapshot is made of; blocking."""

    def __init__(self, conn: sqlite3.Connection, folders: Folders, basis: Basis) -> None:
        self._conn, self._folders, self.basis = conn, folders, basis
        self._shapes: dict[int, Shape] = {}

    def shape(self, version: int) -> Shape:
        """What manifests of files are written with that were written under a schema version.

        ClickHouse takes the names in a file from its manifest's schema, and not from the table's mapping of names.
        """
        shape = self._shapes.get(version)
        if shape is None:
            shape = self._shapes[version] = Shape.of(at_version(self.basis.table, self.basis.history, version))
        return shape

    def called(self, user: str, segment: LiveSegment) -> str:
        """A segment's path or URL for other engines."""
        return uri(f"{self._folders.location(self.basis.table).replace(USER_ID, user)}/{segment.path}")

    def footer(self, user: str, segment: LiveSegment) -> Footer:
        """What a segment's footer says. Raises FileNotFoundError."""
        path = self._folders.folder(self.basis.table, user) / segment.path
        return read_footer(path, self.basis.history[segment.schema_version], self.shape(segment.schema_version).schema)

    def hidden(self, user: str, segment: LiveSegment, overrides: Overrides, after_seq: int) -> Places:
        """The places of the rows that overrides newer than ``after_seq`` hide. Raises FileNotFoundError."""
        table = self.basis.table
        key = layout(table.key_columns, self.basis.history[segment.schema_version]).names
        row = self._conn.execute(
            "SELECT key_filter FROM key_filters WHERE segment_id = ?", (segment.segment_id,)
        ).fetchone()
        return overrides.hidden(
            self._folders.folder(table, user) / segment.path,
            [name for name in key if name is not None],
            min_seq=segment.min_seq,
            after_seq=after_seq,
            key_filter=None if row is None else KeyFilter.from_bytes(row[0]),
        )
