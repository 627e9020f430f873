"""The process that reads Parquet files: ``python -m kalam.cli.parquet_rows``, started by ``parquet_reader.py``.

Its standard input is a socket on which it is given two files for each order, one that it reads and one for the Arrow
stream; it says when that is written. What is wrong with a file is its standard error, with which it ends.
"""

from __future__ import annotations

import os
import socket
import sys
from typing import BinaryIO, Final

import pyarrow as pa
import pyarrow.parquet as pq

from kalam.cli.loading.nested import readable_batch, readable_schema
from kalam.cli.parquet_reader import DONE, TOTAL_ROWS
from kalam.errors import KalamError
from kalam.imports import DATA_FRAMES, forgo
from kalam.rows.formats.foreign_arrow import check_buffers

BATCH_ROWS: Final = 5_000
BATCH_BYTES: Final = 16 << 20


def _batch_rows(metadata: pq.FileMetaData) -> int:
    """How many rows are read at once: no more than are bytes for."""
    sizes = [
        (group.total_byte_size, group.num_rows) for group in map(metadata.row_group, range(metadata.num_row_groups))
    ]
    widest = max((size // max(rows, 1) for size, rows in sizes), default=0)
    return max(1, min(BATCH_ROWS, BATCH_BYTES // max(widest, 1)))


def _write(file: BinaryIO, stream: BinaryIO) -> None:
    # Timestamps of 96 bits, which Spark and Impala write, would go through nanoseconds and turn over in 2262.
    parquet = pq.ParquetFile(file, coerce_int96_timestamp_unit="us")
    schema = readable_schema(parquet.schema_arrow).with_metadata({TOTAL_ROWS: str(parquet.metadata.num_rows)})
    with pa.ipc.new_stream(stream, schema) as writer:
        for batch in parquet.iter_batches(batch_size=_batch_rows(parquet.metadata)):
            check_buffers(batch)
            writer.write_batch(readable_batch(batch))


def main() -> None:
    """Read each file that comes."""
    forgo(DATA_FRAMES)
    try:
        with socket.socket(fileno=sys.stdin.fileno()) as orders:
            while files := socket.recv_fds(orders, 1, 2)[1]:
                with os.fdopen(files[0], "rb") as file, os.fdopen(files[1], "wb") as stream:
                    _write(file, stream)
                orders.send(DONE)
    except BrokenPipeError:  # whoever asked has gone
        sys.exit(1)
    except KalamError as exc:
        sys.exit(exc.detail)
    except Exception as exc:  # noqa: BLE001 - the edge of this process: whatever a library says of the file
        sys.exit(str(exc) or type(exc).__name__)


if __name__ == "__main__":
    main()
