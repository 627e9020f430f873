"""The shape of what a live query asks of its watch."""

from __future__ import annotations

from functools import partial

from kalam.errors import ColumnNotFound
from kalam.live.live_request import LiveRequest
from kalam.live.shape import Shape
from kalam.live.watch import Watch
from kalam.names import listed


def shape_of(watch: Watch, request: LiveRequest, row_bytes_max: int) -> Shape:
    """The projection and the format, shared by those that have the same; raises ColumnNotFound."""
    names = [column.name for column in watch.columns]
    chosen = request.columns
    if chosen is None:
        chosen = tuple(name for name in names if name not in watch.table.hidden_columns)
    unknown = [name for name in chosen if name not in names]
    if unknown:
        raise no_column(watch, unknown[0])
    if len(set(chosen)) < len(chosen):
        raise ColumnNotFound("a live query names each column once")
    places = [names.index(name) for name in chosen]
    as_text = request.bigint_as_text
    make = partial(Shape, watch.columns, places, request.format, row_bytes_max, bigint_as_text=as_text)
    return watch.shape((chosen, request.format, as_text), make)


def no_column(watch: Watch, name: str) -> ColumnNotFound:
    """The refusal of a column that is not there."""
    known = listed([column.name for column in watch.columns])
    return ColumnNotFound(f"table {watch.table.name} has no column {name!r}; it has {known}")
