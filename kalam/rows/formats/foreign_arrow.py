"""Arrow that others made: every buffer is checked before a value is read, and every layout becomes a plain one.

Arrow reads an array as its buffers say, without a look at where they lead: an offset beyond the end shows the memory
behind a message, or ends the process. So nothing of a batch is used before ``validate(full=True)`` has passed: offsets,
places in a dictionary, run ends, views, null counts and UTF-8. It is asked once, of whole batches.

Dictionaries, runs and views may stand for far more than was sent (8 MiB of views on one value of 1 MiB are 500 GiB), so
what a column is as a plain array is added up before it is made one. Nested types are refused by the schema, before a
batch of them is read: no column has one.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kalam.errors import InvalidValue, KalamError, TooLarge
from kalam.rows.formats.arrow_messages import MESSAGE_BYTES_MAX, CheckedMessages, check_messages

MESSAGE_ROWS_MAX: Final = 10_000_000
"""A batch of NULLs needs no bytes, so that its rows are bounded by themselves."""
_VIEW_BYTES: Final = 16
_ENCODED: Final = (pa.DictionaryType, pa.RunEndEncodedType)


class ForeignStream:
    """An Arrow IPC stream of others: its batches, checked and plain, of which ``schema`` is the schema.

    Raises InvalidValue, or TooLarge, for what cannot be read.
    """

    def __init__(self, source: Any) -> None:
        self._messages: CheckedMessages | None = None
        self.schema: pa.Schema = self._guarded(lambda: self._open(source))

    def _open(self, source: Any) -> pa.Schema:
        if isinstance(source, bytes):  # which pyarrow reads where it lies
            check_messages(source)
        else:
            source = self._messages = CheckedMessages(source)
        self._reader = pa.ipc.open_stream(source)
        check_schema(self._reader.schema)
        schema = plain_schema(self._reader.schema)
        self._is_plain = schema.types == self._reader.schema.types
        return schema

    def next_batch(self) -> pa.RecordBatch | None:
        """The next batch, None at the end."""
        return self._guarded(self._next)

    def _next(self) -> pa.RecordBatch | None:
        try:
            batch = self._reader.read_next_batch()
        except StopIteration:
            return None
        if batch.num_rows > MESSAGE_ROWS_MAX:
            raise TooLarge(f"a record batch has {batch.num_rows:,} rows, at most {MESSAGE_ROWS_MAX:,} are taken")
        check_buffers(batch)
        return batch if self._is_plain else plain_batch(batch)

    def table(self, rows_max: int) -> pa.Table:
        """All that is left; raises TooLarge for more than ``rows_max`` rows."""
        batches, rows = [], 0
        while (batch := self.next_batch()) is not None:
            batches.append(batch)
            rows += batch.num_rows
            if rows > rows_max:
                raise TooLarge(f"the message has more than {rows_max} rows (setting batch_rows_max)")
        return pa.Table.from_batches(batches, self._reader.schema if self._is_plain else self.schema)

    def _guarded(self, read: Any) -> Any:
        try:
            return read()
        except KalamError:
            raise
        except Exception as exc:  # whatever a library says of bytes that others made
            failure = self._messages.failure if self._messages is not None else None
            if isinstance(failure, KalamError):
                raise failure from exc
            raise InvalidValue(f"this is not an Arrow IPC stream: {exc}") from exc


def check_schema(schema: pa.Schema) -> None:
    """Raise InvalidValue for a column of a nested type."""
    for field in schema:
        kind = _storage(field.type)
        if isinstance(kind, _ENCODED):
            kind = _storage(kind.value_type)
        if pa.types.is_nested(kind) or isinstance(kind, _ENCODED):
            raise InvalidValue(
                f"the Arrow column {field.name[:80]!r} has the type {str(field.type)[:80]}, which no column can hold",
                hint="a list, map or struct goes into a JSON column as its JSON text",
            )


def _storage(kind: pa.DataType) -> pa.DataType:
    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """The schema that ``plain_batch`` gives."""
    return pa.schema([pa.field(field.name, _plain_type(field.type)) for field in schema])


def _plain_type(kind: pa.DataType) -> pa.DataType:
    kind = _storage(kind)
    if isinstance(kind, _ENCODED):
        return _plain_type(kind.value_type)
    if pa.types.is_string_view(kind):
        return pa.string()
    return pa.binary() if pa.types.is_binary_view(kind) else kind


def check_buffers(batch: pa.RecordBatch) -> None:
    """Raise InvalidValue for a batch of which a buffer does not hold what it says."""
    try:
        batch.validate(full=True)
    except (pa.ArrowException, ValueError) as exc:
        raise InvalidValue(f"an Arrow column is damaged: {exc}") from exc


def plain_batch(batch: pa.RecordBatch) -> pa.RecordBatch:
    """A batch that was checked, without dictionaries, runs, views and extensions.

    Raises TooLarge where it would have more than MESSAGE_BYTES_MAX bytes.
    """
    arrays = [_storage_array(array) for array in batch.columns]
    size = sum(map(_plain_bytes, arrays))
    if size > MESSAGE_BYTES_MAX:
        raise TooLarge(
            f"a record batch unpacks to {size:,} bytes, at most {MESSAGE_BYTES_MAX:,} are taken",
            hint="send fewer rows in a record batch",
        )
    return pa.RecordBatch.from_arrays([_plain(array) for array in arrays], schema=plain_schema(batch.schema))


def _storage_array(array: pa.Array) -> pa.Array:
    return array.storage if isinstance(array, pa.ExtensionArray) else array


def _plain_bytes(array: pa.Array) -> int:
    """The bytes that an encoded array has once it is plain; 0 for one that is."""
    kind = array.type
    if isinstance(kind, pa.DictionaryType):
        sizes = _value_bytes(_storage_array(array.dictionary))
        used = np.asarray(array.indices.drop_null().to_numpy(), np.int64)
        return int(sizes[used].sum())
    if isinstance(kind, pa.RunEndEncodedType):
        ends = np.asarray(array.run_ends.to_numpy(), np.int64)
        sizes = _value_bytes(_storage_array(array.values))
        runs = np.diff(np.clip(ends, array.offset, array.offset + len(array)), prepend=array.offset)
        return int((sizes * runs).sum())
    return int(_value_bytes(array).sum()) if _is_view(kind) else 0


def _is_view(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string_view(kind) or pa.types.is_binary_view(kind))


def _value_bytes(array: pa.Array) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The bytes of each value of an array without encoding."""
    if _is_view(array.type):
        lengths = np.frombuffer(array.buffers()[1] or b"", np.int32)[:: _VIEW_BYTES // 4]
        there = array.is_valid().to_numpy(zero_copy_only=False)  # what stands in the place of a NULL says nothing
        return np.where(there, lengths[array.offset : array.offset + len(array)], 0).astype(np.int64)
    if pa.types.is_primitive(array.type) or pa.types.is_null(array.type) or pa.types.is_interval(array.type):
        return np.full(len(array), 16, np.int64)  # no number has more but DECIMAL of 256 bits
    return np.asarray(pc.fill_null(pc.binary_length(array), 0).to_numpy(), np.int64) + 4


def _plain(array: pa.Array) -> pa.Array:
    kind = array.type
    if isinstance(kind, pa.DictionaryType):
        values = _plain(_storage_array(array.dictionary))
        return pa.DictionaryArray.from_arrays(array.indices, values, safe=False).dictionary_decode()
    if isinstance(kind, pa.RunEndEncodedType):
        return _plain(_storage_array(pc.run_end_decode(array)))
    if pa.types.is_string_view(kind):
        return array.cast(pa.string())
    return array.cast(pa.binary()) if pa.types.is_binary_view(kind) else array
