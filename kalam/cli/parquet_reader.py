"""Parquet files read in a process of its own, which hands their rows over as Arrow streams.

The readers of Parquet and of its codecs are large, and what they make of a damaged file is not certain: one that ends
its process ends this one, and the command says which file it was. The process (``parquet_rows.py``) is started with the
first file, or before, and reads those that follow: its start takes as long as a million rows.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Generator
from types import TracebackType
from typing import IO, TYPE_CHECKING, BinaryIO, Final, Self

from kalam.cli.failure import CommandFailed

if TYPE_CHECKING:  # pyarrow takes a while
    import pyarrow as pa

TOTAL_ROWS: Final = b"rows"
"""Metadata of the stream's schema: how many rows the file has."""
PIPE_BYTES: Final = 1 << 20
"""A batch or two: with the 64 KiB of other pipes the two processes would wait for each other at every tenth of one."""
DONE: Final = b"d"
"""What the process says when a file is read."""


class ParquetReader:
    """The process, which is there when a file was read. Use it as a context manager."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._orders: socket.socket | None = None
        self._errors: IO[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """The process, None where there is none."""
        return None if self._process is None else self._process.pid

    def close(self) -> None:
        """End it, whatever it does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        for opened in (self._orders, self._errors):
            if opened is not None:
                opened.close()
        self._process = self._orders = self._errors = None

    def tables(self, file: BinaryIO) -> Generator[tuple[pa.Table, float]]:
        """The rows of a file, each table with the share of the rows that have come; raises CommandFailed."""
        import pyarrow as pa

        done = False
        with contextlib.ExitStack() as stack:
            source: IO[bytes] = file
            if not file.seekable():  # its table of contents is at its end
                source = stack.enter_context(tempfile.TemporaryFile())
                shutil.copyfileobj(file, source)
                source.flush()
            try:
                orders = self._started()
                with self._asked(orders, source) as stream:
                    yield from _tables(stream)
                done = orders.recv(1) == DONE
            except (pa.ArrowException, OSError) as exc:
                raise self._failure(file) from exc
            else:
                if not done:
                    raise self._failure(file)
            finally:
                if not done:
                    self.close()

    def start(self) -> None:
        """Begin to start the process, which the first file would have to wait for otherwise."""
        self._started()

    def _started(self) -> socket.socket:
        if self._orders is None:
            self._orders, theirs = socket.socketpair()
            self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "kalam.cli.parquet_rows"],
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=self._errors,
                )
        return self._orders

    @staticmethod
    def _asked(orders: socket.socket, source: IO[bytes]) -> IO[bytes]:
        """The stream that the process makes of a file."""
        ours, theirs = os.pipe()
        with contextlib.suppress(OSError):  # a user may have so many bytes of pipes
            fcntl.fcntl(ours, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        try:
            socket.send_fds(orders, [b"f"], [source.fileno(), theirs])
        except OSError:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        return os.fdopen(ours, "rb")

    def _failure(self, file: BinaryIO) -> CommandFailed:
        assert self._process is not None
        assert self._errors is not None
        status = self._process.wait()
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip().splitlines()
        reason = f"its reader ended with status {status}"
        if status < 0:
            reason = f"its reader was ended by {signal.Signals(-status).name}, so the file is damaged or too large"
        elif said:
            reason = said[-1]
        name = getattr(file, "name", "the file")
        return CommandFailed(f"error: cannot read {name} as Parquet: {reason}")


def _tables(stream: IO[bytes]) -> Generator[tuple[pa.Table, float]]:
    import pyarrow as pa

    with pa.ipc.open_stream(stream) as reader:
        total, rows = max(int(reader.schema.metadata[TOTAL_ROWS]), 1), 0
        for batch in reader:
            rows += batch.num_rows
            yield pa.Table.from_batches([batch]).replace_schema_metadata(), rows / total
