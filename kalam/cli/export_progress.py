"""The progress bar of ``kalam export``: rows written, how fast, and how long it will take. Only on a terminal."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from kalam.cli.telling import is_quiet


class ExportProgress:
    """A bar on stderr; ``shown`` says whether anybody sees it."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self.shown = console.is_terminal and not is_quiet()
        self._bar = Progress(
            TextColumn("{task.completed:>12,.0f} rows"),
            BarColumn(),
            TextColumn("{task.fields[rate]:>10,.0f} rows/s"),
            TimeRemainingColumn(),
            console=console,
            disable=not self.shown,
            transient=True,
        )
        self._task = self._bar.add_task("export", total=None, rate=0.0)
        self._started = time.monotonic()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None) -> None:
        self._bar.stop()

    def expect(self, rows: int | None) -> None:
        """About so many rows will come, if that is known."""
        self._bar.update(self._task, total=rows)

    def note(self, rows: int) -> None:
        """So many are written."""
        rate = rows / max(time.monotonic() - self._started, 1e-9)
        self._bar.update(self._task, completed=rows, rate=rate)
