"""The two texts of an aggregating view, computed: of rows what they bring to their groups, of groups the rows shown.

A text that gives columns as they are, and all of their rows, is not asked of the engine: the columns are renamed. What
it would have cost is as much as all the rest of a small batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import chain

import msgspec
import numpy as np
import pyarrow as pa

from kalam.errors import Unsupported
from kalam.query.computed import ComputedQuery, ComputeProcess, Failed, each_of
from kalam.rows.columns import SLICE_ROWS, column_values, from_arrow
from kalam.rows.types import Row
from kalam.schema import Table
from kalam.views.groups import GroupTable, KeptCall
from kalam.views.groups.batch import Ints
from kalam.views.groups.plain import is_kept
from kalam.views.relation import Relation
from kalam.views.shape import Grouped
from kalam.views.shape.classified import PLACE, RELATION_NAMESPACE

PLACE_FIELD = pa.field(PLACE, pa.int32())
SLOT_FIELD = pa.field(PLACE, pa.int64())


class GroupTypes(msgspec.Struct, frozen=True):
    """The types of what is kept of groups, as DataFusion tells them."""

    keys: tuple[pa.DataType, ...]
    calls: tuple[KeptCall, ...]

    @classmethod
    def of(cls, grouped: Grouped, rows: pa.Schema, values: pa.Schema) -> GroupTypes:
        """Those of the columns of the rows text and of the types text."""
        keys = tuple(rows.field(f"_k{number}").type for number in range(len(grouped.keys)))
        arguments = [
            None if call.argument is None else rows.field(f"_a{number}").type
            for number, call in enumerate(grouped.calls)
        ]
        texts = [call.argument for call in grouped.calls]
        calls = tuple(
            KeptCall(call.kind, kind, values.field(f"_v{number}").type, texts.index(call.argument))
            for number, (call, kind) in enumerate(zip(grouped.calls, arguments, strict=True))
        )
        return cls(keys, calls)

    @property
    def unkept(self) -> str | None:
        """What of a type cannot be kept, or None."""
        keys = (f"GROUP BY of {kind}" for kind in self.keys if not is_kept(kind))
        calls = (f"{call.kind} of {call.unkept}" for call in self.calls if call.unkept is not None)
        return next(chain(keys, calls), None)


class GroupQueries:
    """Computes the texts of one view. Its methods are blocking."""

    def __init__(self, grouped: Grouped, source: Table, relation: Relation, process: ComputeProcess) -> None:
        self._grouped, self._process = grouped, process
        self._copied_rows = grouped.copied_rows
        self._read(source, relation)
        self._groups: ComputedQuery | None = None
        self._types: GroupTypes | None = None

    def _read(self, source: Table, relation: Relation) -> None:
        self._schema = relation.schema.append(PLACE_FIELD)
        text = self._grouped.rows_text(with_place=True)
        self._rows = ComputedQuery.of(self._process, source.name.namespace, source.name.table, text, self._schema)

    def read_anew(self, source: Table, relation: Relation) -> None:
        """Compute versions of the source as they are after an ALTER; the groups stay what they are."""
        self._rows.close()
        self._read(source, relation)

    def close(self) -> None:
        """The process lets go of the plans."""
        self._rows.close()
        if self._groups is not None:
            self._groups.close()

    def table(self, groups_max: int) -> GroupTable:
        """Groups of the types that DataFusion gives them; raises Unsupported for a type that cannot be kept."""
        if self._types is None:
            self._types = self._asked_types()
        types = self._types
        if types.unkept is not None:
            raise Unsupported(types.unkept)
        groups = GroupTable(types.keys, types.calls, groups_max)
        if self._groups is None:
            schema = groups.values(groups.all_slots()[:0]).rows.schema
            self._groups = ComputedQuery.of(
                self._process, RELATION_NAMESPACE, "groups", self._grouped.groups_text(), schema
            )
        return groups

    def _asked_types(self) -> GroupTypes:
        found = self._rows.schema()
        rows = found.remove(found.get_field_index(PLACE))
        if self._copied_rows is not None and not self._schema_is_kept(self._copied_rows, rows):
            self._copied_rows = None
        asked = ComputedQuery.of(
            self._process, RELATION_NAMESPACE, "rows", self._grouped.types_text(), never_empty(rows)
        )
        return GroupTypes.of(self._grouped, rows, asked.schema())

    def _schema_is_kept(self, copied: Mapping[str, str], found: pa.Schema) -> bool:
        """Whether the engine gives columns that are copied the types that they have."""
        return all(self._schema.field(column).type == found.field(name).type for name, column in copied.items())

    def rows(self, versions: pa.Table) -> tuple[pa.Table, list[Failed]]:
        """What versions of the source bring to their groups, each with its place; and those that fail."""
        places = pa.array(np.arange(versions.num_rows, dtype=np.int32))
        if self._copied_rows is not None:
            return _copied(versions, self._copied_rows).append_column(PLACE_FIELD, places), []
        found, failed = self._rows.run_each(versions.append_column(PLACE_FIELD, places))
        return pa.concat_tables(found) if found else self._rows.run(self._schema.empty_table()), failed

    def results(self, groups: pa.Table, checked: Callable[[pa.Table], pa.Table]) -> tuple[list[pa.Table], list[Failed]]:
        """The view's rows of groups, ``_c0`` …, whether each is shown, and its slot; and the groups that fail."""
        copied = self._grouped.copied_groups
        if copied is not None:
            shown = {f"_c{number}": name for number, name in enumerate(copied)}
            every = pa.array(np.ones(groups.num_rows, np.bool_))
            found = _copied(groups, shown).append_column("_shown", every).append_column(SLOT_FIELD, groups[PLACE])
            return each_of(found, checked)
        assert self._groups is not None
        return self._groups.run_each(groups, checked)

    def as_rows(self, shown: pa.Table, groups: GroupTable, slots: Ints) -> list[Row]:
        """The rows of results of these groups; texts of keys are the objects that the groups have.

        What compares them later, or looks for them, finds the same object.
        """
        copied = self._grouped.copied_groups
        if copied is None or not 0 < len(slots) <= SLICE_ROWS:
            return from_arrow(shown)
        texts = {f"_k{number}": number for number, kind in enumerate(groups.key_types) if pa.types.is_string(kind)}
        keys = groups.keys_of(slots)
        columns = [
            [key[texts[name]] for key in keys] if name in texts else column_values(column)
            for name, column in zip(copied, shown.columns, strict=True)
        ]
        return list(zip(*columns, strict=True))


def _copied(table: pa.Table, columns: Mapping[str, str]) -> pa.Table:
    """Columns of a table under other names."""
    return pa.table({name: table[column] for name, column in columns.items()})


def never_empty(schema: pa.Schema) -> pa.Schema:
    """The columns of a relation, which has at least one."""
    return schema if len(schema) else pa.schema([pa.field("_row", pa.bool_())])
