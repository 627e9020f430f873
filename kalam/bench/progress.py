"""What the bench is doing, on stderr: a spinner on a terminal, elsewhere a line for each step."""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.status import Status

from kalam.cli.telling import is_quiet

REFRESH_PER_S: Final = 2.0  # a livelier spinner would take processor time from what is measured


class Progress:
    """Tells of one step after another. Use it as a context manager."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._stack = ExitStack()
        self._status: Status | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal and not is_quiet():
            self._status = self._stack.enter_context(self._console.status("starting", refresh_per_second=REFRESH_PER_S))
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    def step(self, text: str) -> None:
        """Begin the next step."""
        if self._status is not None:
            self._status.update(text)
        elif not is_quiet():
            self._console.print(text, soft_wrap=True)
