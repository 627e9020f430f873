"""The Parquet writer that stands on fastparquet: types that it keeps exactly, in a file that every reader understands.

fastparquet encodes and compresses columns well, but its ``write`` guesses types, loses NaN and the type of an all-NULL
text, writes minima and maxima in a form that readers ignore for text, and fills a footer buffer of fixed size without a
look at its end, so that a long text in the statistics destroys memory. The law here therefore is: **fastparquet sees a
column only as what Parquet stores, and the footer that says what it means is ours.**

- Integers, timestamps and floats go in as integers of 32 or 64 bits (the same bytes in PLAIN): none means "missing".
- TEXT and BLOB go in as ``bytes`` straight from Arrow's buffers, 9 million values a second here against 6 to 7 through
  Python strings (an object column, pandas' ``str``). Text that repeats goes in as a dictionary, 20 million a second;
  every reader gives plain text back.
- Minima and maxima come from Arrow, for those columns that the caller names; zeros widen to -0.0 and +0.0, which are
  one value to some readers and two to others.
- Pages are of version 2, given as an argument: version 1 pages end in padding, which ClickHouse refuses.

pandas comes with this module, so it is imported only where a segment is written.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from fastparquet import __version__ as fastparquet_version
from fastparquet import parquet_thrift as thrift
from fastparquet.writer import write_column

MAGIC = b"PAR1"
CREATED_BY = f"fastparquet-python version {fastparquet_version} (build 0)"
OPTIONAL = thrift.FieldRepetitionType.OPTIONAL

# Text becomes a dictionary if each distinct value stands for so many rows, in the first rows and then in all.
SAMPLE_ROWS = 1024
ROWS_PER_DISTINCT_MIN = 8

# What each Arrow type is in the file: the physical type, and the legacy name of its meaning where there is one.
PHYSICAL: dict[pa.DataType, tuple[int, int | None]] = {
    pa.bool_(): (thrift.Type.BOOLEAN, None),
    pa.int16(): (thrift.Type.INT32, thrift.ConvertedType.INT_16),
    pa.int32(): (thrift.Type.INT32, None),
    pa.int64(): (thrift.Type.INT64, None),
    pa.float32(): (thrift.Type.FLOAT, None),
    pa.float64(): (thrift.Type.DOUBLE, None),
    pa.string(): (thrift.Type.BYTE_ARRAY, thrift.ConvertedType.UTF8),
    pa.binary(): (thrift.Type.BYTE_ARRAY, None),
    pa.timestamp("us", "UTC"): (thrift.Type.INT64, thrift.ConvertedType.TIMESTAMP_MICROS),
}
# The physical type under which fastparquet encodes a column, where that is another one with the same bytes.
ENCODED_AS = {thrift.Type.FLOAT: thrift.Type.INT32, thrift.Type.DOUBLE: thrift.Type.INT64}
PACK = {thrift.Type.INT32: "<i", thrift.Type.INT64: "<q", thrift.Type.FLOAT: "<f", thrift.Type.DOUBLE: "<d"}


def write_file(
    table: pa.Table,
    file: BinaryIO,
    *,
    groups: Iterable[tuple[int, int]],
    bounded: frozenset[str],
    codec: str | None,
    marks: Mapping[str, str],
) -> None:
    """Write the rows of ``table``, whose types are all in ``PHYSICAL``, as one Parquet file.

    ``groups`` are the row groups as (first row, rows), ``bounded`` the columns that get a minimum and a maximum (no
    value of them may be long: the footer's buffer has 1,000 bytes for a column of a row group), ``codec`` is Parquet's
    name of the compression, None for none; ``marks`` stand in the footer.
    """
    file.write(MAGIC)
    row_groups = [_write_row_group(table.slice(first, rows), file, bounded, codec) for first, rows in groups]
    footer = thrift.FileMetaData(
        version=1,
        schema=[thrift.SchemaElement(name="schema", num_children=table.num_columns, i32=True)]
        + [_declared(field) for field in table.schema],
        num_rows=table.num_rows,
        row_groups=row_groups,
        # None, for fastparquet writes an empty list as one of bytes, which readers refuse.
        key_value_metadata=[thrift.KeyValue(key=name, value=value) for name, value in marks.items()] or None,
        created_by=CREATED_BY,
        # Without it a reader may not trust the minimum and maximum of text.
        column_orders=[thrift.ColumnOrder(TYPE_ORDER={}) for _ in table.schema],
        i32list=[1],
    ).to_bytes()
    file.write(footer)
    file.write(struct.pack("<I", len(footer)))
    file.write(MAGIC)


def _declared(field: pa.Field) -> Any:
    """The schema element that tells readers what a column means."""
    physical, converted = PHYSICAL[field.type]
    return thrift.SchemaElement(
        name=field.name,
        type=physical,
        converted_type=converted,
        repetition_type=OPTIONAL,
        logicalType=_logical_type(field.type),
        i32=True,
    )


def _logical_type(data_type: pa.DataType) -> Any:
    if pa.types.is_string(data_type):
        return thrift.LogicalType(STRING=thrift.StringType())
    if pa.types.is_timestamp(data_type):
        unit = thrift.TimeUnit(MICROS=thrift.MicroSeconds())
        return thrift.LogicalType(TIMESTAMP=thrift.TimestampType(isAdjustedToUTC=True, unit=unit))
    return None


def _write_row_group(table: pa.Table, file: BinaryIO, bounded: frozenset[str], codec: str | None) -> Any:
    chunks = [
        _write_chunk(name, column.combine_chunks(), file, name in bounded, codec)
        for name, column in zip(table.column_names, table.columns, strict=True)
    ]
    total_bytes = sum(chunk.meta_data.total_uncompressed_size for chunk in chunks)
    return thrift.RowGroup(columns=chunks, total_byte_size=total_bytes, num_rows=table.num_rows)


def _write_chunk(name: str, column: pa.Array, file: BinaryIO, bounded: bool, codec: str | None) -> Any:
    physical, _ = PHYSICAL[column.type]
    encoded = thrift.SchemaElement(
        name=name, type=ENCODED_AS.get(physical, physical), repetition_type=OPTIONAL, i32=True
    )
    series = pd.Series(_encodable(column), name=name, copy=False)
    chunk = write_column(file, series, encoded, compression=codec, datapage_version=2, stats=False)
    meta = chunk.meta_data  # a view: what is set in it is set in the chunk
    meta.type = physical
    least, greatest = _bounds(column, physical) if bounded else (None, None)
    statistics = thrift.Statistics(null_count=column.null_count, max_value=greatest, min_value=least)
    meta.statistics = statistics.contents
    return chunk


def _encodable(column: pa.Array) -> Any:
    """The column as the array that fastparquet encodes: integers, booleans, bytes objects or a dictionary of these."""
    if pa.types.is_string(column.type) or pa.types.is_binary(column.type):
        return _bytes_objects(column.cast(pa.binary()))
    if pa.types.is_boolean(column.type):
        return _masked(column, pd.arrays.BooleanArray)
    bits = pa.int32() if column.type.bit_width <= 32 else pa.int64()
    integers = column.cast(bits) if column.type.bit_width < 32 else column.view(bits)
    return _masked(integers, pd.arrays.IntegerArray)


def _masked(column: pa.Array, masked_array: Any) -> Any:
    """A numpy array where nothing is NULL, else pandas' array with a mask, so that integers stay integers."""
    if not column.null_count:
        return column.to_numpy(zero_copy_only=False)
    values = column.fill_null(pa.scalar(0).cast(column.type)).to_numpy(zero_copy_only=False)
    return masked_array(values.copy(), column.is_null().to_numpy(zero_copy_only=False))


def _bytes_objects(column: pa.Array) -> Any:
    if _repeats(pc.count_distinct(column.slice(0, SAMPLE_ROWS)).as_py(), min(len(column), SAMPLE_ROWS)):
        coded = column.dictionary_encode()
        if _repeats(len(coded.dictionary), len(column)):
            categories = pd.Index(coded.dictionary.to_numpy(zero_copy_only=False), dtype=object)
            codes = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
            return pd.Categorical.from_codes(codes, categories=categories)
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype=object)


def _repeats(distinct: int, rows: int) -> bool:
    return 0 < distinct <= rows // ROWS_PER_DISTINCT_MIN


def _bounds(column: pa.Array, physical: int) -> tuple[bytes | None, bytes | None]:
    """The least and the greatest value as Parquet writes them; None where all are NULL."""
    if pa.types.is_timestamp(column.type):
        column = column.view(pa.int64())
    least, greatest = pc.min_max(column).as_py().values()
    return _packed(least, physical, zero=-0.0), _packed(greatest, physical, zero=0.0)


def _packed(value: Any, physical: int, zero: float) -> bytes | None:
    match value:
        case None | bytes():
            return value
        case str():
            return value.encode()
        case bool():
            return bytes([value])
        case float():
            return struct.pack(PACK[physical], value or zero)
        case _:
            return struct.pack(PACK[physical], value)
