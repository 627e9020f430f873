"""The progress bar of ``kalam insert``: how far into the file rows are stored, and how fast. Only on a terminal."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from kalam.cli.loading.row_sender import Outcome
from kalam.cli.telling import is_quiet


class InsertProgress:
    """A bar on stderr that counts outcomes; ``size`` is the file's length in bytes, None where it has none."""

    def __init__(self, size: int | None) -> None:
        console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.fields[rows]:>12,} rows"),
            BarColumn(),
            DownloadColumn(),
            TextColumn("{task.fields[rate]:>10,.0f} rows/s"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal or is_quiet(),
            transient=True,
        )
        self._task = self._bar.add_task("insert", total=size, rows=0, rate=0.0)
        self._lock = threading.Lock()
        self._started = time.monotonic()
        self._rows = 0
        self._end_byte = 0

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None) -> None:
        self._bar.stop()

    def note(self, outcome: Outcome) -> None:
        """Count one batch."""
        with self._lock:
            self._rows += outcome.stored_rows
            self._end_byte = max(self._end_byte, outcome.batch.end_byte)
            rate = self._rows / max(time.monotonic() - self._started, 1e-9)
        self._bar.update(self._task, completed=self._end_byte, rows=self._rows, rate=rate)
