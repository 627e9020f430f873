"""What the measurements share: the server, the bare nats-server, the sizes, and the loading of rows."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kalam.bench.asker import Asked
from kalam.bench.bare_broker import BareBroker
from kalam.bench.http_sql import HttpSql
from kalam.bench.inserter import Acknowledged, InserterTask
from kalam.bench.process import Process
from kalam.bench.progress import Progress
from kalam.bench.sizes import Sizes
from kalam.cli.demo_server import DemoServer
from kalam.cli.failure import CommandFailed

NAMESPACE: Final = "bench"
USER: Final = "bench"
BATCH_ROWS: Final = 1_000
BATCHES_IN_FLIGHT: Final = 8
PUBLISHED_S: Final = 300.0
POLL_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Stage:
    """Where the measurements are made; ``home`` is a temporary folder of theirs."""

    home: Path
    server: DemoServer
    sql: HttpSql
    broker: BareBroker
    sizes: Sizes
    progress: Progress

    @property
    def log(self) -> Path:
        """Where the processes of the bench write what they did not expect."""
        return self.home / "processes.log"

    def folder(self, name: str) -> Path:
        """A new folder on the disk that the server uses."""
        folder = self.home / name
        folder.mkdir()
        return folder

    def insert_subject(self, table: str) -> str:
        """Where rows of ``namespace.table`` are sent to."""
        return f"kalam.api.{USER}.insert.{table}"

    @contextmanager
    def inserter(
        self,
        table: str,
        first: int,
        rows: int,
        *,
        rows_per_message: int = BATCH_ROWS,
        in_flight: int = BATCHES_IN_FLIGHT,
        random_keys: bool = False,
    ) -> Iterator[Process]:
        """A process that inserts rows at ``go``."""
        task = InserterTask(
            url=self.server.nats_url,
            subject=self.insert_subject(table),
            first=first,
            rows=rows,
            rows_per_message=rows_per_message,
            in_flight=in_flight,
            random_keys=random_keys,
        )
        with Process("inserter", task, self.log) as process:
            yield process

    def inserted(self, process: Process, rows: int) -> Acknowledged:
        """Let an inserter go; raises CommandFailed unless every row was acknowledged."""
        process.wait_ready()
        process.go()
        outcome = process.result(Acknowledged)
        if outcome.problem or outcome.rows != rows:
            raise CommandFailed(f"error: {outcome.rows:,} of {rows:,} rows were acknowledged: {outcome.problem}")
        return outcome

    def asked(self, process: Process, requests: int) -> Asked:
        """Let one that reads go; raises CommandFailed unless every request was answered."""
        process.wait_ready()
        process.go()
        asked = process.result(Asked)
        if asked.problem or asked.requests != requests:
            raise CommandFailed(f"error: {asked.requests:,} of {requests:,} requests were answered: {asked.problem}")
        return asked

    def insert(self, table: str, first: int, rows: int, *, random_keys: bool = False) -> Acknowledged:
        """Insert rows, and wait until their changes are published, so that nothing of it disturbs what follows."""
        with self.inserter(table, first, rows, random_keys=random_keys) as process:
            acknowledged = self.inserted(process, rows)
        self.wait_published()
        return acknowledged

    def wait_published(self, sql: HttpSql | None = None) -> None:
        """Wait until the server, or that of ``sql``, has published every change."""
        deadline = time.monotonic() + PUBLISHED_S
        while time.monotonic() < deadline:
            waiting = (sql or self.sql).run("SELECT value FROM system.stats WHERE name = 'outbox_bytes'").rows[0][0]
            if not waiting:
                return
            time.sleep(POLL_S)
        raise CommandFailed(f"error: changes were still not published after {PUBLISHED_S:g} s")
