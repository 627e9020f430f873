"""The progress bar of ``kalam flush``: rows flushed of those that were hot, and which table it is at.

Only on a terminal: what it shows it asks of the server, in a thread of its own.
"""

from __future__ import annotations

import json
import threading
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from kalam.cli.failure import CommandFailed
from kalam.cli.http import Refusal, ask_sql, get_json
from kalam.cli.telling import is_quiet
from kalam.credentials import Credentials

ASK_S: Final = 0.5
AT: Final = "SELECT namespace, table_name FROM system.jobs WHERE job_type = 'flush' AND status = 'running'"


class FlushProgress:
    """A bar on stderr while the block runs; ``everything`` is flushed, or one table."""

    def __init__(self, url: str, login: Credentials, *, everything: bool) -> None:
        console = Console(stderr=True)
        self._url, self._login, self._everything = url, login, everything
        self._shown = console.is_terminal and not is_quiet()
        self._bar = Progress(
            TextColumn("flush {task.fields[table]}"),
            BarColumn(),
            TextColumn("{task.completed:>12,.0f} rows"),
            TimeElapsedColumn(),
            console=console,
            disable=not self._shown,
            transient=True,
        )
        self._task = self._bar.add_task("flush", total=None, table="")
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Self:
        self._bar.start()
        if self._shown:
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        if self._shown and kind is not KeyboardInterrupt:
            self._thread.join()
        self._bar.stop()

    def _follow(self) -> None:
        try:
            hot = self._hot_rows()
            self._bar.update(self._task, total=hot if self._everything else None)
            while not self._ended.wait(ASK_S):
                flushed = max(hot - self._hot_rows(), 0)
                self._bar.update(self._task, completed=flushed, table=self._table())
        except (CommandFailed, Refusal):  # the flush itself tells what is wrong
            return

    def _hot_rows(self) -> int:
        return int(get_json(self._url, "/v1/overview", login=self._login)["series"]["hot_rows"][-1])

    def _table(self) -> str:
        rows = json.loads(ask_sql(self._url, AT, login=self._login))["results"][0]["rows"]
        return ".".join(rows[0]) if rows else ""
