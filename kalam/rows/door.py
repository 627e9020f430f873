"""Decoding what came in: a whole batch by one typed decoder that is generated from the table's schema.

A message is JSON, msgpack (told apart by the first byte) or an Arrow IPC stream. msgspec decodes and checks in one
pass, in C; after it a column at a time is normalised (``kalam.rows.normalise``). Nothing is stored of a batch that
has one bad row, so the first bad value ends the work and becomes the error that the sender reads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from itertools import repeat
from operator import attrgetter
from typing import Any, NoReturn

import msgspec
import pyarrow as pa

from kalam.errors import InvalidValue, KalamError
from kalam.rows.arrow_values import UNFIT, arrow_values
from kalam.rows.column_rows import COLUMNS_MIN, ColumnRows
from kalam.rows.column_types import TYPES, Decoding
from kalam.rows.columns import SLICE_ROWS, arrow_schema
from kalam.rows.event_defaults import MADE, event_default
from kalam.rows.formats.foreign_arrow import MESSAGE_ROWS_MAX, ForeignStream
from kalam.rows.judged import UNREADABLE, judged
from kalam.rows.normalise import Generators, column_fix, fill_default
from kalam.rows.refusals import SERVER_COLUMNS, bad_value, explain, missing_value, unknown_column
from kalam.rows.sql_values import carried_value
from kalam.rows.taking import PLAIN, Taking
from kalam.rows.types import Row, door_type
from kalam.rows.values import BadValue, Fix, Values, shorten
from kalam.schema import Column, DataType, Default, DefaultKind, Table, TypeName

ARROW_STREAM = "application/vnd.apache.arrow.stream"
UNTYPED = frozenset(
    name for name, kind in TYPES.items() if kind.decoded(DataType(name=name), Decoding(native=True)) is Any
)
"""Types that the decoder lets pass as they are, NULL included."""
DIGITS = frozenset(name for name, kind in TYPES.items() if kind.lossless and kind.lossless(True) is msgspec.Raw)
"""Those of which it does where numbers are taken in other forms."""


Named = Mapping[str, Sequence[bool]]
"""For each column that only some rows of a message name, which ones; and for one that none names nothing but False."""


class RowDecoder:
    """Decodes messages into rows of one table, at one schema version, as ``taking`` wants them to be taken.

    With ``bigint_texts``, or where the table shows BIGINT as text in its events, it is taken as text as well.
    """

    def __init__(
        self, table: Table, generators: Generators, taking: Taking = PLAIN, *, bigint_texts: bool = False
    ) -> None:
        self.table = table
        self._bigint_texts = bigint_texts or table.options.bigint_as_text
        self._generators = generators
        self._taking = taking
        self._columns = table.declared_columns
        self.needs_user = any(
            column.default is not None and column.default.kind is DefaultKind.CURRENT_USER for column in self._columns
        )
        self._has_row_id = len(self._columns) < len(table.columns)
        self._defaults = tuple(usable_default(column) for column in self._columns)
        self._made = tuple(c for c in self._columns if c.default is not None and c.default.kind in MADE)
        has_blob = any(column.type.name is TypeName.BLOB for column in self._columns)
        plain, native = self._row_type(native=False, raw=True), self._row_type(native=True)
        packed: Any = native if has_blob else self._row_type(native=False) if taking.lossless else plain
        self._json_row = msgspec.json.Decoder(plain)
        self._json_rows = msgspec.json.Decoder(list[plain])  # type: ignore[valid-type]
        self._msgpack_row = msgspec.msgpack.Decoder(packed)
        self._msgpack_rows = msgspec.msgpack.Decoder(list[packed])
        self._untyped = UNTYPED | DIGITS if taking.lossless else UNTYPED
        self._native_rows: Any = list[native]  # type: ignore[valid-type]
        self._fixes = tuple(self._fix(column) for column in self._columns)
        triples = zip(self._columns, self._defaults, self._fixes, strict=True)
        self._work = [triple for triple in triples if triple[1] is not None or triple[2] is not None]

    def _row_type(self, *, native: bool, raw: bool = False) -> Any:
        """The type of a row. Members that are to be told from NULL, or that nobody may write, are UNSET by default."""
        fields: list[Any] = []
        how = Decoding(native, self._bigint_texts)
        for column, default in zip(self._columns, self._defaults, strict=True):
            kind = self._lossless_type(column, raw=raw) or door_type(column, how)
            if default is not None or (column.nullable and self._taking.conflict == "update"):
                may_miss = kind not in (Any, msgspec.Raw)
                fields.append((column.name, kind | msgspec.UnsetType if may_miss else kind, msgspec.UNSET))
            elif column.nullable:
                fields.append((column.name, kind, None))
            else:
                fields.append((column.name, kind))
        if self._taking.ignore_unknown:  # but not these, which tell a deleted row from others
            fields += [(name, Any, msgspec.UNSET) for name in sorted(SERVER_COLUMNS)]
        known_only = not self._taking.ignore_unknown
        return msgspec.defstruct("Row", fields, forbid_unknown_fields=known_only, gc=False, kw_only=True)

    def _lossless_type(self, column: Column, *, raw: bool) -> Any:
        """The type that reads a number in other forms, digit by digit where ``raw``; None where that is not asked."""
        lossless = TYPES[column.type.name].lossless if self._taking.lossless else None
        kind = None if lossless is None else lossless(raw)
        return kind if kind in (None, msgspec.Raw) or not column.nullable else kind | None

    def _fix(self, column: Column) -> Fix | None:
        own = column_fix(column, bigint_texts=self._bigint_texts)
        lossless = TYPES[column.type.name].lossless_fix if self._taking.lossless else None
        if lossless is None:
            return own
        read = lossless(column.type)
        return read if own is None else lambda values: own(read(values))

    def decode(
        self, payload: bytes, *, user: str, arrow: bool = False, rows_max: int = MESSAGE_ROWS_MAX
    ) -> Sequence[Row]:
        """The rows of one message: one row or an array of rows, or an Arrow stream where ``arrow`` is set.

        Raises InvalidValue, NotNullViolation or ColumnNotFound for the first thing that is wrong, TooLarge for an Arrow
        stream of more than ``rows_max`` rows, whose number says nothing about its bytes.
        """
        if arrow:
            return self.decode_many(ForeignStream(payload).table(rows_max), user=user)
        return self._finish(self._structs(payload), user)

    def decode_named(self, payload: bytes, *, user: str, arrow: bool, rows_max: int) -> tuple[list[Row], Named]:
        """The same, and which rows name which columns: for a decoder that takes a conflict as an update."""
        if arrow:
            table = ForeignStream(payload).table(rows_max)
            missing = {column.name for column in self._columns}.difference(table.column_names)
            return self.decode_table(table, user=user), dict.fromkeys(missing, [False] * table.num_rows)
        structs, named = self._structs(payload), {}
        for column, default in zip(self._columns, self._defaults, strict=True):
            values = list(map(attrgetter(column.name), structs))
            if msgspec.UNSET in values:
                named[column.name] = [value is not msgspec.UNSET for value in values]
                for struct, value in zip(structs, values, strict=True):
                    if value is msgspec.UNSET and default is None:
                        setattr(struct, column.name, None)
        return self._finish(structs, user), named

    def decode_each(self, payloads: Sequence[bytes], *, user: str) -> list[Row | KalamError]:
        """One row, or its error, for each message that is a single row; the way of single events.

        All messages are normalised together; only when one of them is wrong, or they are not of one format, each is
        judged alone.
        """
        decode = (self._json_row if payloads and payloads[0][:1] == b"{" else self._msgpack_row).decode
        try:
            return list(self._finish([decode(payload) for payload in payloads], user))
        except Exception:  # noqa: BLE001 - whichever it was, it tells by itself what is wrong with it
            return [judged("message", partial(self._one_row, payload, user)) for payload in payloads]

    def _one_row(self, payload: bytes, user: str) -> Row:
        rows = self.decode(payload, user=user)
        if len(rows) != 1:
            raise InvalidValue("the message is not a single row")
        return rows[0]

    def decode_events(
        self, payloads: Sequence[bytes], seqs: Sequence[int], stored_us: Sequence[int]
    ) -> list[Row | KalamError]:
        """One row, or its error, for each event of a stream; what others left out is the same at every read."""
        if not self._made:
            return self.decode_each(payloads, user="")
        decode = (self._json_row if payloads and payloads[0][:1] == b"{" else self._msgpack_row).decode
        try:
            structs = [decode(payload) for payload in payloads]
            self._fill_made(structs, seqs, stored_us)
            return list(self._finish(structs, ""))
        except Exception:  # noqa: BLE001 - whichever it was, it tells by itself what is wrong with it
            triples = zip(payloads, seqs, stored_us, strict=True)
            return [judged("event", partial(self._one_event, *triple)) for triple in triples]

    def _one_event(self, payload: bytes, seq: int, stored_us: int) -> Row:
        structs = self._structs(payload)
        if len(structs) != 1:
            raise InvalidValue("the event is not a single row")
        self._fill_made(structs, [seq], [stored_us])
        return self._finish(structs, "")[0]

    def _fill_made(self, structs: Sequence[Any], seqs: Sequence[int], stored_us: Sequence[int]) -> None:
        for column in self._made:
            value_of = attrgetter(column.name)
            for struct, seq, us in zip(structs, seqs, stored_us, strict=True):
                if value_of(struct) is msgspec.UNSET:
                    setattr(struct, column.name, event_default(column, self.table.table_id, seq, us))

    def convert(self, rows: Sequence[dict[str, Any]], *, user: str) -> list[Row]:
        """Rows of Python values by column name, as SQL gives them (see ``kalam.rows.sql_values``)."""
        try:
            structs: list[Any] = []
            for start in range(0, len(rows), SLICE_ROWS):
                structs += msgspec.convert(rows[start : start + SLICE_ROWS], self._native_rows)
        except UNREADABLE:
            try:
                msgspec.convert(rows, self._native_rows)  # tells the number of the row among all
            except UNREADABLE as exc:
                self._refuse(exc, single=False, payload=rows)
            raise
        return self._finish(structs, user)

    def _structs(self, payload: bytes) -> list[Any]:
        first = payload[:1]
        if first in b" \t\r\n" and first:
            payload = payload.lstrip()
            first = payload[:1]
        single = False
        try:
            if first == b"{":
                single = True
                return [self._json_row.decode(payload)]
            if first == b"[":
                return list(self._json_rows.decode(payload))
            if first in (b"\xde", b"\xdf") or b"\x80" <= first <= b"\x8f":
                single = True
                return [self._msgpack_row.decode(payload)]
            if first in (b"\xdc", b"\xdd") or b"\x90" <= first <= b"\x9f":
                return list(self._msgpack_rows.decode(payload))
        except UNREADABLE as exc:
            self._refuse(exc, single=single, payload=payload)
        raise InvalidValue(
            "the payload is neither a row nor an array of rows, as JSON or msgpack"
            if payload
            else "the payload is empty; send one row, or an array of rows, as JSON or msgpack"
        )

    def _finish(self, structs: list[Any], user: str) -> list[Row]:
        """Normalise decoded rows in place, column by column, touching only the values that need it."""
        if not structs:
            return []
        now = datetime.now(UTC)
        for column, default, fix in self._work:
            values = list(map(attrgetter(column.name), structs))
            fixed = self._fixed(column, default, fix, values, user, now)
            if fixed is not values:
                deque(map(setattr, structs, repeat(column.name), fixed), maxlen=0)
        rows = list(map(msgspec.structs.astuple, structs))
        if self._taking.ignore_unknown:
            rows = self._without_server_columns(rows)
        return self._with_row_ids(rows) if self._has_row_id else rows

    def _without_server_columns(self, rows: list[Row]) -> list[Row]:
        """The rows without what nobody may write, which stands last in them; raises InvalidValue where it was sent."""
        names = sorted(SERVER_COLUMNS)
        for index, row in enumerate(rows):
            for name, value in zip(names, row[-len(names) :], strict=True):
                if value is not msgspec.UNSET:
                    raise unknown_column(self.table, name, index)
        return [row[: -len(names)] for row in rows]

    def _fixed(
        self, column: Column, default: Column | None, fix: Fix | None, values: Values, user: str, now: datetime
    ) -> Values:
        if default is not None:
            values = fill_default(default, values, user, now, self._generators)
        if fix is not None:
            try:
                values = fix(values)
            except BadValue as exc:
                raise bad_value(column, exc.index, exc.expected, exc.found, exc.hint) from exc
        if not column.nullable and column.type.name in self._untyped and None in values:
            raise missing_value(column, values.index(None))
        return values

    def _with_row_ids(self, rows: list[Row]) -> list[Row]:
        ids = self._generators.snowflakes.take(len(rows))
        return [(*row, row_id) for row, row_id in zip(rows, ids, strict=True)]

    def _finish_columns(self, columns: list[Values], user: str) -> list[Row]:
        now = datetime.now(UTC)
        triples = zip(self._columns, self._defaults, self._fixes, columns, strict=True)
        fixed = [self._fixed(column, default, fix, values, user, now) for column, default, fix, values in triples]
        rows = list(zip(*fixed, strict=True))
        return self._with_row_ids(rows) if self._has_row_id else rows

    def _known_columns(self, table: pa.Table) -> pa.Table:
        """An Arrow table without what is to be ignored; raises InvalidValue for a column that is not the table's."""
        known = {column.name for column in self._columns}
        if self._taking.ignore_unknown:
            table = table.select([name for name in table.column_names if name in known or name in SERVER_COLUMNS])
        for name in table.column_names:
            if name not in known or table.column_names.count(name) > 1:
                raise unknown_column(self.table, name, None)
        return table

    def decode_many(self, table: pa.Table, *, user: str, sql: bool = False) -> Sequence[Row]:
        """The same as ``decode_table`` gives, as columns where that pays."""
        in_columns = table.num_rows >= COLUMNS_MIN and self.table.is_stored
        return (self.decode_columns if in_columns else self.decode_table)(table, user=user, sql=sql)

    def decode_columns(self, table: pa.Table, *, user: str, sql: bool = False) -> ColumnRows:
        """The same as columns: one whose values need a look is made of these, as in a row, and the others are taken."""
        table, now = self._known_columns(table), datetime.now(UTC)
        schema = arrow_schema(self.table.columns)
        arrays: list[Any] = []
        for column, default, fix in zip(self._columns, self._defaults, self._fixes, strict=True):
            found = self._whole_column(table, column)
            if found is None:
                values = self._arrow_column(table, column, default, sql)
                fixed = self._fixed(column, default, fix, values, user, now)
                found = pa.array(fixed, schema.field(len(arrays)).type)
            arrays.append(found)
        if self._has_row_id:
            arrays.append(pa.array(self._generators.snowflakes.take(table.num_rows), pa.int64()))
        return ColumnRows(pa.table(arrays, schema=schema))

    def _whole_column(self, table: pa.Table, column: Column) -> pa.ChunkedArray | None:
        whole = TYPES[column.type.name].whole
        if whole is None or column.name not in table.column_names:
            return None
        values = table.column(column.name)
        return None if values.null_count and not column.nullable else whole(values, column.type)

    def decode_table(self, table: pa.Table, *, user: str, sql: bool = False) -> list[Row]:
        """The rows of an Arrow table whose columns are named as the table's; types are cast where nothing is lost.

        With ``sql`` they are taken as SQL assigns them (see ``kalam.rows.arrow_values``).
        """
        table = self._known_columns(table)
        if not table.num_rows:
            return []
        pairs = zip(self._columns, self._defaults, strict=True)
        columns: list[Values] = [self._arrow_column(table, column, default, sql) for column, default in pairs]
        return self._finish_columns(columns, user)

    def decode_column(self, values: pa.ChunkedArray, column: Column) -> Sequence[Any]:
        """The values of one Arrow column in a row's form, as SQL assigns them."""
        found = self._arrow_column(pa.table({column.name: values}), column, None, sql=True)
        fix = column_fix(column)
        try:
            return found if fix is None else fix(found)
        except BadValue as exc:
            raise bad_value(column, exc.index, exc.expected, exc.found, exc.hint) from exc

    def _arrow_column(self, table: pa.Table, column: Column, default: Column | None, sql: bool) -> list[Any]:
        if column.name not in table.column_names:
            if default is not None:
                return [msgspec.UNSET] * table.num_rows
            if not column.nullable and table.num_rows:
                raise missing_value(column, 0)
            return [None] * table.num_rows
        values = table.column(column.name)
        if not column.nullable and values.null_count:
            raise missing_value(column, values.is_null().to_pylist().index(True))
        converted: list[Any] = []
        for start in range(0, table.num_rows, SLICE_ROWS):
            part = values.slice(start, SLICE_ROWS)
            try:
                converted += arrow_values(part, column, sql=sql, lossless=self._taking.lossless)
            except InvalidValue:  # which names column, type and value
                raise
            except UNFIT as exc:
                raise self._unfit(part, column, start, sql=sql) from exc
        return converted

    def _unfit(self, values: pa.ChunkedArray, column: Column, rows_before: int, *, sql: bool) -> InvalidValue:
        """The error of the first value that does not fit; in SQL its row has no number that a user knows."""
        first, end = 0, len(values)
        while end - first > 1:
            half = (first + end) // 2
            try:
                arrow_values(values.slice(first, half - first), column, sql=sql, lossless=self._taking.lossless)
                first = half
            except UNFIT:
                end = half
        found = f"a value of type {values.type}"
        with suppress(*UNFIT):  # some damage lets a value through that is none
            value = values[first].as_py()
            found = f"NULL in a column of type {values.type}" if value is None else shorten(value)
        expected = f"{column.type} (32 bits)" if column.type.name is TypeName.FLOAT else str(column.type)
        return bad_value(column, None if sql else rows_before + first, expected, found)

    def _refuse(self, exc: Exception, *, single: bool, payload: Any) -> NoReturn:
        raise explain(self.table, exc, single=single, payload=payload) from exc


def usable_default(column: Column) -> Column | None:
    """The column with its literal default in the form that a decoder gives; None for a column without default."""
    if column.default is None or (column.default.kind is DefaultKind.LITERAL and column.default.literal is None):
        return None
    if column.default.kind is not DefaultKind.LITERAL:
        return column
    literal = carried_value(column, column.default.literal)
    return msgspec.structs.replace(column, default=Default(kind=DefaultKind.LITERAL, literal=literal))
