"""One copy as a relation for the workers: which of its segments are read how, and which hot rows come beside them.

What can be shared between queries is kept: the hot rows as Arrow, the folders of links, and the whole relation while
neither the files nor the hot rows change.
"""

from __future__ import annotations

import enum
import threading
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pyarrow as pa

from kalam.query import wire
from kalam.query.arrow_streams import schema_bytes, stream_bytes
from kalam.query.handed import HandedCopy, HandedFiles
from kalam.query.hot_rows import HotRows, HotState
from kalam.rows.columns import SEQ_FIELD, STORED_FIELDS, UPDATED_FIELD, arrow_schema, shown_field
from kalam.rows.types import arrow_type
from kalam.rows.versions import History, Layout, layout
from kalam.schema import Table
from kalam.storage.log.copies import Segment, View
from kalam.storage.segments.checks import SegmentChecks
from kalam.storage.segments.folders import LinkFolders
from kalam.storage.segments.remote import remote_of

LOOKED_AT_MAX = 16
"""Files whose presence is looked at without a thread."""


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


class Alike(msgspec.Struct, frozen=True):
    """What segments have in common that are read alike."""

    deleted: bool
    hiding: Hiding
    layout: Layout


class _Known(msgspec.Struct, frozen=True):
    """The relation that was made last, and of what."""

    state: HotState
    segments: tuple[Segment, ...]
    files: list[HandedFiles]
    asked: tuple[bool, bool, bool]
    relation: HandedCopy


class CopyReader:
    """Reads one copy at one schema version.

    Segments of older versions that hold the columns otherwise are read as tables of their own, renamed, filled and
    cast.
    """

    def __init__(self, links: LinkFolders, checks: SegmentChecks, table: Table, folder: Path, history: History) -> None:
        self._links, self._checks = links, checks
        self._table, self._folder, self._history = table, folder, history
        self._place = str(folder)
        self._hot = HotRows(table, history)
        self._cold: dict[Alike, tuple[tuple[Segment, ...], HandedFiles]] = {}
        self._known: _Known | None = None
        self._layouts: dict[int, Layout] = {}
        self._counted: tuple[object, tuple[Segment, ...], int] | None = None
        self._lock = threading.Lock()
        self._fields = list(arrow_schema(table.columns))
        shown = pa.schema([*map(shown_field, table.columns), *STORED_FIELDS, SEQ_FIELD])
        self._schema = schema_bytes(shown)

    def relation(self, view: View, *, sees_deleted: bool, with_seq: bool = False, hides: bool = False) -> HandedCopy:
        """The rows of the view; blocking.

        Columns: the table's, without hidden ones if it ``hides`` them, ``_updated``, ``_deleted``, and ``_seq`` if
        asked. Deleted rows only with ``sees_deleted``.
        """
        state = self._hot.state(view)
        self._check(view, sees_deleted=sees_deleted)
        cold = self._cold_files(view, state, sees_deleted=sees_deleted)
        files, asked, known = list(cold.values()), (sees_deleted, with_seq, hides), self._known
        if not self._is_local():
            for each in files:  # a file may have left the cache since, and come back
                self._checks.check(self._table, each.links.path, each.links.segments)
        if known is not None and known.state is state and known.files == files and known.asked == asked:
            return known.relation
        relation = self._relation(state, cold, sees_deleted=sees_deleted, with_seq=with_seq, hides=hides)
        if not files or self._is_local():
            self._known = _Known(state, view.segments, files, asked, relation)
        return relation

    def known_relation(
        self, view: View, *, sees_deleted: bool, with_seq: bool = False, hides: bool = False
    ) -> HandedCopy | None:
        """The same relation if it was the last to be made; None if not, or if many files would have to be looked at."""
        known = self._known
        if known is None or known.asked != (sees_deleted, with_seq, hides) or known.segments != view.segments:
            return None
        if self._hot.known_state(view) is not known.state or len(view.segments) > LOOKED_AT_MAX:
            return None
        read = [segment for segment in view.segments if sees_deleted or not segment.deleted]
        if any(self._checks.stamp_nowait(self._place, segment) is None for segment in read):
            return None
        return known.relation

    def _relation(
        self, state: HotState, cold: Mapping[Alike, HandedFiles], *, sees_deleted: bool, with_seq: bool, hides: bool
    ) -> HandedCopy:
        rows = state.rows if sees_deleted else state.live
        parts = [(files, self._part(alike, files)) for alike, files in cold.items()]
        return HandedCopy(
            key=self._table.key,
            schema=self._schema,
            parts=parts,
            hidden=state.hidden if any(part.hidden for _, part in parts) else None,
            rows=rows if rows.num_rows or not parts else None,
            with_seq=with_seq,
            without=sorted(self._table.hidden_columns) if hides else (),
        )

    def _part(self, alike: Alike, files: HandedFiles) -> wire.Part:
        names, fills = alike.layout.names, alike.layout.fills
        fill = None
        if None in names:
            values = [pa.array([value], field.type) for field, value in zip(self._fields, fills, strict=True)]
            fill = stream_bytes(pa.table(values, schema=pa.schema(self._fields))).to_pybytes()
        return wire.Part(
            files=files.number,
            names=list(names),
            fills=fill,
            deleted=alike.deleted,
            hidden=alike.hiding is not Hiding.NONE,
            by_seq=alike.hiding is Hiding.BY_SEQ,
        )

    def count_nowait(self, view: View) -> int | None:
        """How many rows the view has, where that is a sum of numbers that are known."""
        state = self._hot.known_state(view)
        return None if state is None else self._count(view, state)

    def count(self, view: View) -> int | None:
        """The same after a look at what is hot; None where rows of segments have to be looked for. Blocking."""
        return self._count(view, self._hot.state(view))

    def note_count(self, view: View, rows: int) -> None:
        """Keep how many rows a view was found to have, for as long as the same ones are hidden."""
        state = self._hot.known_state(view)
        if state is not None:
            self._counted = (state.hidden, view.segments, _stored_rows(view, state) - rows)

    def _count(self, view: View, state: HotState) -> int | None:
        if not state.hidden.num_rows or not view.segments:
            return _stored_rows(view, state)
        known = self._counted
        if known is None or known[0] is not state.hidden or known[1] != view.segments:
            return None
        return _stored_rows(view, state) - known[2]

    def _layout(self, schema_version: int) -> Layout:
        known = self._layouts.get(schema_version)
        if known is None:
            known = self._layouts[schema_version] = layout(self._table.columns, self._history[schema_version])
        return known

    def _cold_files(self, view: View, state: HotState, *, sees_deleted: bool) -> dict[Alike, HandedFiles]:
        groups: dict[Alike, list[Segment]] = {}
        for segment in view.segments:
            if sees_deleted or not segment.deleted:
                alike = Alike(segment.deleted, Hiding.of(segment, state), self._layout(segment.schema_version))
                groups.setdefault(alike, []).append(segment)
        with self._lock:
            return {alike: self._files(alike, tuple(segments)) for alike, segments in groups.items()}

    def _check(self, view: View, *, sees_deleted: bool) -> None:
        """Raise CorruptSegment unless the files that are going to be read are what they were."""
        read = [segment for segment in view.segments if sees_deleted or not segment.deleted]
        self._checks.check(self._table, self._folder, read)

    def _files(self, alike: Alike, segments: tuple[Segment, ...]) -> HandedFiles:
        known = self._cold.get(alike)
        if known is not None and known[0] == segments:
            return known[1]
        pairs = zip(alike.layout.names, alike.layout.types, strict=True)
        fields = [pa.field(name, arrow_type(kind)) for name, kind in pairs if name is not None and kind is not None]
        schema = pa.schema([*fields, UPDATED_FIELD, SEQ_FIELD])
        files = HandedFiles(self._links.make(self._folder, segments), schema)
        if self._is_local():
            self._cold[alike] = (segments, files)
        return files

    def _is_local(self) -> bool:
        """Whether files may be kept for the next query; what is kept of a cache would not count there."""
        return remote_of(self._folder) is None

    def release(self) -> None:
        """Let go of the files that are kept for the next query; a query that runs has its own hold of them."""
        with self._lock:
            self._cold.clear()
            self._counted = self._known = None


class CopyRelation(msgspec.Struct, frozen=True):
    """What a view of a copy stands for in a query."""

    reader: CopyReader
    view: View
    sees_deleted: bool
    with_seq: bool
    guard: str | None = None
    hides: bool = False

    def make(self) -> HandedCopy:
        """Make it; blocking."""
        seen, seq = self.sees_deleted, self.with_seq
        return self.reader.relation(self.view, sees_deleted=seen, with_seq=seq, hides=self.hides)

    def known(self) -> HandedCopy | None:
        """The same if it can be had without waiting."""
        seen, seq = self.sees_deleted, self.with_seq
        return self.reader.known_relation(self.view, sees_deleted=seen, with_seq=seq, hides=self.hides)


def _stored_rows(view: View, state: HotState) -> int:
    """The rows of the view, and of its segments also those that something hides."""
    return state.live.num_rows + sum(segment.row_count for segment in view.segments if not segment.deleted)
