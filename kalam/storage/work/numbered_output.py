"""Files of rows that have their numbers last: everything is written and synced before it is known which they are.

The rows of such a file follow each other in the log, so one number says all. ``_seq`` is written as plain pages of
placeholders that count up from FIRST; when the first number is known, the placeholders are overwritten where they lie,
8 bytes a row, and the footer, which names the range, is written. So whoever may not be written to meanwhile waits for
that alone, and not for the rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from kalam.errors import Internal
from kalam.rows.keys import key_at
from kalam.schema import SEQ
from kalam.storage.log.written_file import WrittenFile
from kalam.storage.segments.key_filter import KeyFilter, KeyHashes
from kalam.storage.segments.parquet import CODECS, bounded_columns, row_groups
from kalam.storage.work.output_file import OutputFile, SegmentsRequest

FIRST: Final = 0x5E9_0000_0000_0000
"""The first placeholder: at a million changes a second it would be a number after ten thousand years."""


class NumberedFile:
    """One segment, of rows in the order of their keys, whose numbers follow each other; ``rows`` are all of them."""

    def __init__(self, request: SegmentsRequest, rows: pa.Table, number: int, *, deleted: bool) -> None:
        self._output = OutputFile(request, number, deleted=deleted)
        self.row_count = rows.num_rows
        keys = [rows.column(name) for name in request.key]
        self._bounds = key_at(keys, 0), key_at(keys, -1)
        self._filter = KeyFilter.build(KeyHashes.of_columns(keys))
        bounded = bounded_columns(rows)
        rows = rows.append_column(SEQ, pa.array(np.arange(FIRST, FIRST + rows.num_rows)))
        codec = CODECS[request.compression] or "NONE"
        self._writer = pq.ParquetWriter(
            self._output.file,
            rows.schema,
            compression={name: "NONE" if name == SEQ else codec for name in rows.column_names},
            use_dictionary=[name for name in rows.column_names if name != SEQ],
            data_page_version="2.0",
            store_schema=False,
            write_statistics=bounded,
        )
        for first, count in row_groups(rows):
            self._writer.write_table(rows.slice(first, count), row_group_size=count)
        self._output.sync()

    def finish(self, first_seq: int) -> WrittenFile:
        """Give the rows the numbers from ``first_seq`` on, complete the file and sync it."""
        mark = self._output.mark(first_seq, first_seq + self.row_count - 1)
        self._writer.add_key_value_metadata(mark.metadata())
        self._writer.close()
        renumber(self._output.file, self.row_count, first_seq)
        return self._output.complete(mark, self.row_count, self._bounds, self._filter)


def renumber(file: Any, rows: int, first_seq: int) -> None:
    """Write numbers from ``first_seq`` on in the place of the placeholders; raises Internal where one is missing."""
    done = 0
    for start, size in _seq_chunks(file):
        file.seek(start)
        chunk = bytearray(file.read(size))
        place = 0
        while (place := chunk.find((FIRST + done).to_bytes(8, "little"), place)) >= 0:
            found = np.frombuffer(chunk, "<i8", min(rows - done, (len(chunk) - place) // 8), place)
            wanted = np.arange(FIRST + done, FIRST + done + len(found))
            count = len(found) if (same := found == wanted).all() else int(np.argmin(same))
            numbers = np.arange(first_seq + done, first_seq + done + count, dtype="<i8")
            del found, same  # they hold the bytes
            chunk[place : place + 8 * count] = numbers.tobytes()
            done, place = done + count, place + 8 * count
            if done == rows:
                break
        file.seek(start)
        file.write(chunk)
    if done != rows:
        raise Internal(f"only {done} of {rows} rows of a segment could be numbered")


def _seq_chunks(file: Any) -> Iterator[tuple[int, int]]:
    """Where the values of ``_seq`` lie, a row group after the other, and how many bytes they are."""
    file.flush()
    file.seek(0)
    metadata = pq.ParquetFile(file).metadata
    place = metadata.schema.to_arrow_schema().get_field_index(SEQ)
    chunks = [metadata.row_group(group).column(place) for group in range(metadata.num_row_groups)]
    return iter([(chunk.data_page_offset, chunk.total_compressed_size) for chunk in chunks])
