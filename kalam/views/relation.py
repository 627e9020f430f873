"""What the SELECT of a view sees of its source: columns, and of messages of others what they are besides."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec
import pyarrow as pa

from kalam.query.executor import bind_names
from kalam.rows.columns import TYPE_METADATA, shown_field
from kalam.rows.types import Row, arrow_type
from kalam.schema import STREAM_KEY, DataType, Table
from kalam.sql.queries.compared import columns_of, with_own_forms
from kalam.sql.text.statements import QueryText


def key_of_rows(source: Table) -> tuple[str, ...]:
    """The columns that tell the rows of a source from one another; none for a stream, whose events have sequences."""
    return (STREAM_KEY,) if source.is_bucket else source.key


class Relation(msgspec.Struct, frozen=True):
    """The columns of a source's versions that are read: their places, and as fields of Arrow."""

    places: tuple[int, ...]
    schema: pa.Schema

    @classmethod
    def of(cls, source: Table, names: Collection[str]) -> Relation:
        """The columns of these names; at least one."""
        fields = [*map(shown_field, source.columns)]
        for name, kind in source.system_columns.items() if source.is_foreign else ():
            fields.append(pa.field(name, arrow_type(DataType(name=kind)), metadata={TYPE_METADATA: kind.value}))
        places = tuple(place for place, field in enumerate(fields) if field.name in names) or (0,)
        return cls(places, pa.schema([fields[place] for place in places]))

    def rows(self, versions: Sequence[Row]) -> pa.Table:
        """These versions, as far as they are read."""
        arrays = [
            pa.array([version[place] for version in versions], field.type)
            for place, field in zip(self.places, self.schema, strict=True)
        ]
        return pa.Table.from_arrays(arrays, schema=self.schema)


def bound_text(query: QueryText, sources: Sequence[Table]) -> str:
    """The text of a query whose tables are these, as a worker takes it."""
    formed, _ = with_own_forms(query, [columns_of(source) for source in sources])
    return bind_names(formed, [source.name for source in sources])


def names_read(view: Table, source: Table) -> tuple[str, ...]:
    """The columns of a source that a view reads."""
    return tuple(
        name for reads in view.view_options.reads if reads.table_id == source.table_id for name in reads.columns
    )
