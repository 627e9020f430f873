"""What the server has told of tables, as frames of DataFusion: a table in memory, or hot and cold as one relation.

A copy is ``segments ANTI JOIN hidden keys UNION ALL hot rows``. The anti-join is there only where something is hidden,
so a table that is only inserted into reads at the speed of its files. A window function over all versions would be
shorter and takes twenty times as long.

A query may have the texts of segments as views (``Utf8View``): a group or a comparison copies no text then. What stands
beside segments is brought to the same type within the plan, so that only what a query reads is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

import msgspec
import pyarrow as pa
from datafusion import DataFrame, Expr, SessionContext, col, lit

from kalam.query.names import HIDDEN_SEQ, hidden_key
from kalam.query.wire import Bytes, Copy, Files, Part, Rows, Told
from kalam.query.worker.arrow_frames import arrow_frame
from kalam.schema import DELETED, SEQ, UPDATED

SEGMENTS_SCHEMA = "kalam_segments"


class Frame(msgspec.Struct, frozen=True):
    """A relation as DataFusion has it, and its columns."""

    frame: DataFrame
    schema: pa.Schema


class Frames:
    """What was told, by its number, and the frames that were made of it, by context."""

    def __init__(self, contexts: Mapping[bool, SessionContext]) -> None:
        self._contexts = contexts
        self._rows: dict[int, pa.Table] = {}
        self._told: dict[int, Told] = {}
        self._frames: dict[tuple[int, bool, bool], Frame] = {}
        self._registered: set[tuple[int, bool, bool]] = set()

    def take_rows(self, number: int, rows: pa.Table) -> None:
        """Keep rows that came as Arrow."""
        self._rows[number] = rows

    def take(self, told: Files | Rows | Copy | Bytes) -> None:
        """Keep what was told."""
        self._told[told.number] = told

    def forget(self, number: int) -> None:
        """Let go of what has this number."""
        self._rows.pop(number, None)
        self._told.pop(number, None)
        for (in_order, ctx), views in product(self._contexts.items(), (False, True)):
            self._frames.pop((number, in_order, views), None)
            if (number, in_order, views) in self._registered:
                self._registered.discard((number, in_order, views))
                ctx.catalog().schema(SEGMENTS_SCHEMA).deregister_table(_name(number, views=views))

    def frame(self, number: int, *, in_order: bool, views: bool = False) -> Frame:
        """What a relation stands for; with ``views`` the texts of segments, and what is beside these, are views."""
        told = self._told[number]
        views = views and isinstance(told, Copy) and bool(told.parts)
        known = self._frames.get((number, in_order, views))
        if known is not None:
            return known
        ctx = self._contexts[in_order]
        if isinstance(told, Copy):
            frame = self._copy(told, ctx, in_order=in_order, views=views)
        else:
            frame = arrow_frame(ctx, self._table(number))
        made = self._frames[number, in_order, views] = Frame(frame, frame.schema())
        return made

    def _table(self, number: int) -> pa.Table:
        told = self._told[number]
        assert isinstance(told, Rows)
        schema = pa.ipc.read_schema(pa.py_buffer(told.schema))
        return pa.concat_tables([schema.empty_table(), *(self._rows[piece] for piece in told.pieces)])

    def _copy(self, copy: Copy, ctx: SessionContext, *, in_order: bool, views: bool) -> DataFrame:
        schema = pa.ipc.read_schema(pa.py_buffer(copy.schema))
        own = [field for field in schema if field.name not in (UPDATED, DELETED, SEQ)]
        seq = [col(SEQ)] if copy.with_seq else []
        # The types' names come in here and not with the files: a file whose schema has other metadata than the table's
        # is read through a cast, behind which DataFusion prunes nothing that a running query has found out.
        shown = [
            col(f'"{field.name}"').alias(field.name, _text_metadata(field))
            for field in own
            if field.name not in copy.without
        ]
        frames: list[DataFrame] = []
        typed = _with_views if views else _as_it_is
        for part in copy.parts:
            files = self._files(part.files, ctx, in_order=in_order, views=views)
            frame = typed(files.select(*_as_now(part, own, files.schema()), col(UPDATED), col(SEQ)))
            if part.hidden and copy.hidden is not None:
                hidden = typed(arrow_frame(ctx, self._table(copy.hidden)))
                frame = frame.join_on(hidden, *_is_hidden(copy.key, part), how="anti")
            frames.append(frame.select(*shown, col(UPDATED), lit(part.deleted).alias(DELETED), *seq))
        if copy.rows is not None:
            rows = self._table(copy.rows).cast(schema)
            left_out = [*copy.without, *([] if copy.with_seq else [SEQ])]
            frames.append(typed(arrow_frame(ctx, rows.drop_columns(left_out) if left_out else rows)))
        union = frames[0]
        for frame in frames[1:]:
            union = union.union(frame)
        return union

    def _files(self, number: int, ctx: SessionContext, *, in_order: bool, views: bool) -> DataFrame:
        """The segments of a folder, registered until they are forgotten."""
        name = f"{SEGMENTS_SCHEMA}.{_name(number, views=views)}"
        if (number, in_order, views) not in self._registered:
            files = self._told[number]
            assert isinstance(files, Files)
            schema = pa.ipc.read_schema(pa.py_buffer(files.schema))
            read = pa.schema(map(_view_field, schema)) if views else schema
            ctx.register_parquet(name, f"{files.folder}/", schema=read)
            self._registered.add((number, in_order, views))
        return ctx.table(name)


def _name(number: int, *, views: bool) -> str:
    return f"v{number}" if views else f"c{number}"


def _view_field(field: pa.Field) -> pa.Field:
    return field.with_type(pa.string_view()) if pa.types.is_string(field.type) else field


def _as_it_is(frame: DataFrame) -> DataFrame:
    return frame


def _with_views(frame: DataFrame) -> DataFrame:
    """A frame with its texts as views; one that has them so stays as it is, for the sake of what is pruned by it."""
    columns = [(field, col(f'"{field.name}"')) for field in frame.schema()]
    if not any(pa.types.is_string(field.type) for field, _ in columns):
        return frame
    return frame.select(
        *(
            column.cast(pa.string_view()).alias(field.name, _text_metadata(field))
            if pa.types.is_string(field.type)
            else column
            for field, column in columns
        )
    )


def _text_metadata(field: pa.Field) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in (field.metadata or {}).items()}


def _is_hidden(key: Sequence[str], part: Part) -> list[Expr]:
    """When a row of these segments is hidden by a row of ``hidden``."""
    same_key = [col(f'"{name}"') == col(hidden_key(place)) for place, name in enumerate(key)]
    return [*same_key, col(SEQ) < col(HIDDEN_SEQ)] if part.by_seq else same_key


def _as_now(part: Part, fields: Sequence[pa.Field], there: pa.Schema) -> list[Expr]:
    """The table's columns from those of files with an older layout."""
    fills = None if part.fills is None else pa.ipc.open_stream(part.fills).read_all()
    return [
        (_fill(fills, place) if name is None else _widened(name, there, field)).alias(field.name)
        for place, (field, name) in enumerate(zip(fields, part.names, strict=True))
    ]


def _widened(name: str, there: pa.Schema, field: pa.Field) -> Expr:
    """A column of the files, in the wider type that an ALTER may have given it."""
    column, kind = col(f'"{name}"'), there.field(name).type
    return column.cast(field.type) if kind != field.type and _is_number(kind) else column


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _fill(fills: pa.Table | None, place: int) -> Expr:
    assert fills is not None
    return lit(fills.column(place)[0])
