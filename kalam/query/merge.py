"""Hot and cold as one relation: ``segments ANTI JOIN hidden keys UNION ALL hot rows``.

The anti-join is there only when something is hidden, so a table that is only inserted into reads at the speed of its
files. A window function over all versions would be shorter and takes twenty times as long.
"""

from __future__ import annotations

import enum
import threading
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from datafusion import DataFrame, Expr, SessionContext, col, lit
from datafusion.catalog import Schema

from kalam.query.arrow_frames import arrow_frame
from kalam.query.hot_rows import HIDDEN_KEY, HIDDEN_SEQ, HotRows, HotState
from kalam.query.results import TYPE_METADATA
from kalam.rows.columns import arrow_schema
from kalam.rows.types import TIMESTAMP_ARROW
from kalam.rows.versions import History, Layout, layout
from kalam.schema import DELETED, SEQ, UPDATED, Table
from kalam.storage.copies import Segment, View
from kalam.storage.remote import remote_of
from kalam.storage.segment_checks import SegmentChecks
from kalam.storage.segments import LinkFolder, LinkFolders

SEGMENTS_SCHEMA = "kalam_segments"


class ColdFiles:
    """The segments of one view as a table of DataFusion, registered until nobody holds this object any more."""

    def __init__(self, ctx: SessionContext, links: LinkFolder, schema: pa.Schema) -> None:
        self.links = links
        self._ctx = ctx
        self._name = f"c{links.path.name}"
        ctx.register_parquet(f"{SEGMENTS_SCHEMA}.{self._name}", f"{links.path}/", schema=schema)
        weakref.finalize(self, _forget, ctx.catalog().schema(SEGMENTS_SCHEMA), self._name, links)

    def frame(self) -> DataFrame:
        """The rows of the files."""
        return self._ctx.table(f"{SEGMENTS_SCHEMA}.{self._name}")


def _forget(schema: Schema, name: str, links: LinkFolder) -> None:
    schema.deregister_table(name)
    links.remove()


class Hiding(enum.Enum):
    """How it is told which rows of a segment are hidden."""

    NONE = "none is"
    BY_KEY = "every row is older than everything that hides one"
    BY_SEQ = "some are older and some newer"

    @classmethod
    def of(cls, segment: Segment, state: HotState) -> Hiding:
        """For the rows of a segment.

        A flush writes the newest version of each key, and a compaction leaves out what is hidden by then. So nothing
        that is older than the newest row of a segment hides one of its rows.
        """
        if segment.max_seq >= state.hidden_upto:
            return cls.NONE
        return cls.BY_KEY if segment.max_seq < state.hidden_since else cls.BY_SEQ


@dataclass(frozen=True, slots=True)
class Part:
    """Segments that are read alike."""

    deleted: bool
    hiding: Hiding
    layout: Layout


class CopyReader:
    """Reads one copy at one schema version; keeps what can be shared between queries.

    Segments of older versions that hold the columns otherwise are read as tables of their own, renamed and filled.
    """

    def __init__(
        self,
        ctx: SessionContext,
        links: LinkFolders,
        checks: SegmentChecks,
        table: Table,
        folder: Path,
        history: History,
    ) -> None:
        self._ctx = ctx
        self._links = links
        self._checks = checks
        self._table = table
        self._folder = folder
        self._history = history
        self._hot = HotRows(table, history)
        self._cold: dict[Part, tuple[tuple[Segment, ...], ColdFiles]] = {}
        self._framed: tuple[HotState, list[ColdFiles], tuple[bool, bool], DataFrame] | None = None
        self._layouts: dict[int, Layout] = {}
        self._counted: tuple[pa.Table, tuple[Segment, ...], int] | None = None
        self._lock = threading.Lock()
        self._fields = list(arrow_schema(table.columns))
        types = [{TYPE_METADATA.decode(): str(column.type)} for column in table.columns]
        # The types' names come in here and not with the files: a file whose schema has other metadata than the table's
        # is read through a cast, behind which DataFusion prunes nothing that a running query has found out.
        self._shown = [
            col(f'"{field.name}"').alias(field.name, kind) for field, kind in zip(self._fields, types, strict=True)
        ]
        self._shown.append(col(UPDATED))
        shown = [field.with_metadata(kind) for field, kind in zip(self._fields, types, strict=True)]
        shown.append(pa.field(UPDATED, TIMESTAMP_ARROW))
        self._row_schema = pa.schema([*shown, pa.field(DELETED, pa.bool_()), pa.field(SEQ, pa.int64())])

    def frame(self, view: View, *, sees_deleted: bool, with_seq: bool = False) -> tuple[DataFrame, list[ColdFiles]]:
        """The rows of the view, and what has to be kept alive while they are read.

        Columns: the table's, ``_updated``, ``_deleted``, and ``_seq`` if asked. Deleted rows only with
        ``sees_deleted``.
        """
        state = self._hot.state(view)
        self._check(view, sees_deleted=sees_deleted)
        cold = self._cold_files(view, state, sees_deleted=sees_deleted)
        held = list(cold.values())
        if not self._is_local():
            for files in held:  # a file may have left the cache since, and come back
                self._checks.check(self._table, files.links.path, files.links.segments)
        known = self._framed
        if known is not None and known[0] is state and known[1] == held and known[2] == (sees_deleted, with_seq):
            return known[3], held
        frame = self._frame(state, cold, sees_deleted=sees_deleted, with_seq=with_seq)
        if not held or self._is_local():
            self._framed = (state, held, (sees_deleted, with_seq), frame)
        return frame, held

    def _frame(
        self, state: HotState, cold: Mapping[Part, ColdFiles], *, sees_deleted: bool, with_seq: bool
    ) -> DataFrame:
        parts: list[DataFrame] = []
        for part, files in cold.items():
            frame = files.frame().select(*self._as_now(part.layout), col(UPDATED), col(SEQ))
            if part.hiding is not Hiding.NONE:
                frame = frame.join_on(arrow_frame(self._ctx, state.hidden), *self._is_hidden(part), how="anti")
            seq = [col(SEQ)] if with_seq else []
            parts.append(frame.select(*self._shown, lit(part.deleted).alias(DELETED), *seq))
        rows = state.rows if sees_deleted else state.live
        if rows.num_rows or not parts:
            rows = rows.cast(self._row_schema)
            parts.append(arrow_frame(self._ctx, rows if with_seq else rows.drop_columns([SEQ])))
        union = parts[0]
        for frame in parts[1:]:
            union = union.union(frame)
        return union

    def count_nowait(self, view: View) -> int | None:
        """How many rows the view has, where that is a sum of numbers that are known."""
        state = self._hot.known_state(view)
        hidden_rows = None if state is None else self._known_hidden_rows(view, state)
        return None if state is None or hidden_rows is None else _stored_rows(view, state) - hidden_rows

    def count(self, view: View) -> int:
        """How many rows the view has, from the sizes of its parts.

        Only the rows that are hidden in segments have to be looked for, and that once for as long as they are the same.
        """
        state = self._hot.state(view)
        hidden_rows = self._known_hidden_rows(view, state)
        if hidden_rows is None:
            hidden_rows = self._find_hidden_rows(view, state)
            self._counted = (state.hidden, view.segments, hidden_rows)
        return _stored_rows(view, state) - hidden_rows

    def _known_hidden_rows(self, view: View, state: HotState) -> int | None:
        """How many rows of segments something hides, if that has been counted."""
        if not state.hidden.num_rows or not view.segments:
            return 0
        known = self._counted
        return known[2] if known is not None and known[0] is state.hidden and known[1] == view.segments else None

    def _find_hidden_rows(self, view: View, state: HotState) -> int:
        found = 0
        self._check(view, sees_deleted=False)
        for part, files in self._cold_files(view, state, sees_deleted=False).items():
            if part.hiding is Hiding.NONE:
                continue
            keys = files.frame().select(*self._as_now(part.layout), col(SEQ))
            found += keys.join_on(arrow_frame(self._ctx, state.hidden), *self._is_hidden(part), how="semi").count()
        return found

    def _is_hidden(self, part: Part) -> list[Expr]:
        """When a row of these segments is hidden by a row of ``hidden``."""
        same_key = col(f'"{self._table.key}"') == col(HIDDEN_KEY)
        return [same_key] if part.hiding is Hiding.BY_KEY else [same_key, col(SEQ) < col(HIDDEN_SEQ)]

    def _as_now(self, layout: Layout) -> list[Expr]:
        """The table's columns from those of files with that layout."""
        return [
            (lit(pa.scalar(fill, field.type)) if name is None else col(f'"{name}"')).alias(field.name)
            for field, name, fill in zip(self._fields, layout.names, layout.fills, strict=True)
        ]

    def _layout(self, schema_version: int) -> Layout:
        known = self._layouts.get(schema_version)
        if known is None:
            known = self._layouts[schema_version] = layout(self._table.columns, self._history[schema_version])
        return known

    def _cold_files(self, view: View, state: HotState, *, sees_deleted: bool) -> dict[Part, ColdFiles]:
        groups: dict[Part, list[Segment]] = {}
        for segment in view.segments:
            if sees_deleted or not segment.deleted:
                part = Part(segment.deleted, Hiding.of(segment, state), self._layout(segment.schema_version))
                groups.setdefault(part, []).append(segment)
        with self._lock:
            return {part: self._files(part, tuple(segments)) for part, segments in groups.items()}

    def _check(self, view: View, *, sees_deleted: bool) -> None:
        """Raise CorruptSegment unless the files that are going to be read are what they were."""
        read = [segment for segment in view.segments if sees_deleted or not segment.deleted]
        self._checks.check(self._table, self._folder, read)

    def _files(self, part: Part, segments: tuple[Segment, ...]) -> ColdFiles:
        known = self._cold.get(part)
        if known is not None and known[0] == segments:
            return known[1]
        names = part.layout.names
        fields = [field.with_name(own) for field, own in zip(self._fields, names, strict=True) if own is not None]
        schema = pa.schema([*fields, pa.field(UPDATED, TIMESTAMP_ARROW), pa.field(SEQ, pa.int64())])
        files = ColdFiles(self._ctx, self._links.make(self._folder, segments), schema)
        if self._is_local():
            self._cold[part] = (segments, files)
        return files

    def _is_local(self) -> bool:
        """Whether files may be kept for the next query; what is kept of a cache would not count there."""
        return remote_of(self._folder) is None

    def release(self) -> None:
        """Let go of the files that are kept for the next query; a query that runs has its own hold of them."""
        with self._lock:
            self._cold.clear()
            self._counted = self._framed = None


def _stored_rows(view: View, state: HotState) -> int:
    """The rows of the view, and of its segments also those that something hides."""
    hot: int = state.live.num_rows
    return hot + sum(segment.row_count for segment in view.segments if not segment.deleted)
