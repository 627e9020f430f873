"""The progress bar of ``kalam backup`` and ``kalam restore``: bytes copied of all bytes. Only on a terminal."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from kalam.cli.telling import is_quiet


class CopyProgress:
    """A bar on stderr; called with the bytes done and the bytes in all."""

    def __init__(self, what: str) -> None:
        console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal or is_quiet(),
            transient=True,
        )
        self._task = self._bar.add_task(what, total=None)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None) -> None:
        self._bar.stop()

    def __call__(self, done_bytes: int, total_bytes: int) -> None:
        """Move the bar."""
        self._bar.update(self._task, completed=done_bytes, total=total_bytes)
