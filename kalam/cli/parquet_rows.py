"""A Parquet file read in a process of its own, which hands its rows over as an Arrow stream.

The readers of Parquet and of its codecs are large, and what they make of a damaged file is not certain: one that ends
its process ends this one, and the command says which file it was. ``python -m kalam.cli.parquet_rows`` is that process:
the file is its standard input, the stream its standard output, and what is wrong with the file its standard error.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import IO, BinaryIO, Final

import pyarrow as pa
import pyarrow.parquet as pq

from kalam.cli.failure import CommandFailed
from kalam.cli.loading.nested import readable_batch, readable_schema
from kalam.errors import KalamError
from kalam.imports import DATA_FRAMES, forgo
from kalam.rows.formats.foreign_arrow import check_buffers

BATCH_ROWS: Final = 5_000
BATCH_BYTES: Final = 16 << 20
TOTAL_ROWS: Final = b"rows"


def parquet_tables(file: BinaryIO) -> Iterator[tuple[pa.Table, float]]:
    """The rows of a file, each table with the share of the rows that have come; raises CommandFailed."""
    with contextlib.ExitStack() as stack:
        source: IO[bytes] = file
        if not file.seekable():  # its table of contents is at its end
            source = stack.enter_context(tempfile.TemporaryFile())
            shutil.copyfileobj(file, source)
            source.flush()
        errors = stack.enter_context(tempfile.TemporaryFile())
        reader = stack.enter_context(_reader(source, errors))
        stack.callback(reader.kill)
        try:
            yield from _tables(reader)
        except (pa.ArrowException, OSError) as exc:
            raise _failure(reader, errors, file) from exc
        if reader.wait():
            raise _failure(reader, errors, file)


def _reader(source: IO[bytes], errors: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "kalam.cli.parquet_rows"], stdin=source, stdout=subprocess.PIPE, stderr=errors
    )


def _tables(reader: subprocess.Popen[bytes]) -> Iterator[tuple[pa.Table, float]]:
    assert reader.stdout is not None
    with pa.ipc.open_stream(reader.stdout) as stream:
        total, rows = max(int(stream.schema.metadata[TOTAL_ROWS]), 1), 0
        for batch in stream:
            rows += batch.num_rows
            yield pa.Table.from_batches([batch]).replace_schema_metadata(), rows / total


def _failure(reader: subprocess.Popen[bytes], errors: IO[bytes], file: BinaryIO) -> CommandFailed:
    status = reader.wait()
    errors.seek(0)
    said = errors.read().decode(errors="replace").strip().splitlines()
    reason = f"its reader ended with status {status}"
    if status < 0:
        reason = f"its reader was ended by {signal.Signals(-status).name}, so the file is damaged or too large"
    elif said:
        reason = said[-1]
    name = getattr(file, "name", "the file")
    return CommandFailed(f"error: cannot read {name} as Parquet: {reason}")


def _batch_rows(metadata: pq.FileMetaData) -> int:
    """How many rows are read at once: no more than are bytes for."""
    sizes = [
        (group.total_byte_size, group.num_rows) for group in map(metadata.row_group, range(metadata.num_row_groups))
    ]
    widest = max((size // max(rows, 1) for size, rows in sizes), default=0)
    return max(1, min(BATCH_ROWS, BATCH_BYTES // max(widest, 1)))


def main() -> None:
    """Read the file on standard input."""
    forgo(DATA_FRAMES)
    try:
        # Timestamps of 96 bits, which Spark and Impala write, would go through nanoseconds and turn over in 2262.
        parquet = pq.ParquetFile(sys.stdin.buffer, coerce_int96_timestamp_unit="us")
        schema = readable_schema(parquet.schema_arrow).with_metadata({TOTAL_ROWS: str(parquet.metadata.num_rows)})
        with pa.ipc.new_stream(sys.stdout.buffer, schema) as stream:
            for batch in parquet.iter_batches(batch_size=_batch_rows(parquet.metadata)):
                check_buffers(batch)
                stream.write_batch(readable_batch(batch))
    except BrokenPipeError:  # whoever asked has gone
        sys.exit(1)
    except KalamError as exc:
        sys.exit(exc.detail)
    except Exception as exc:  # noqa: BLE001 - the edge of this process: whatever a library says of the file
        sys.exit(str(exc) or type(exc).__name__)


if __name__ == "__main__":
    main()
