"""A PostgreSQL whose statement trigger keeps the table that a view keeps: what its like costs elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from kalam.bench import process_tree
from kalam.bench.pg_asker import PgAsked, PgAsking, PgTask
from kalam.bench.pg_client import PgClient
from kalam.bench.process import Process
from kalam.bench.real_postgres import ROW_COLUMNS, NoPostgres, RealPostgres, find_postgres
from kalam.bench.stage import NAMESPACE, USER, Stage
from kalam.cli.failure import CommandFailed

TRIGGER: Final = """
    CREATE TABLE {view} (
        url TEXT PRIMARY KEY, n BIGINT, total BIGINT, latencies DOUBLE PRECISION, most DOUBLE PRECISION
    );
    CREATE FUNCTION {view}_kept() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO {view} AS kept
            SELECT url, count(*), sum(status), sum(latency), max(latency) FROM new_rows GROUP BY url
            ON CONFLICT (url) DO UPDATE SET n = kept.n + excluded.n, total = kept.total + excluded.total,
                latencies = kept.latencies + excluded.latencies, most = greatest(kept.most, excluded.most);
        RETURN NULL;
    END $$;
    CREATE TRIGGER kept AFTER INSERT ON {table} REFERENCING NEW TABLE AS new_rows
        FOR EACH STATEMENT EXECUTE FUNCTION {view}_kept()
"""


class Triggered:
    """One PostgreSQL, and what rows cost there."""

    def __init__(self, stage: Stage, real: RealPostgres) -> None:
        self._stage, self._real, self.name = stage, real, f"{real.version}, a trigger"
        self._tables = 0
        self._run(f"CREATE SCHEMA {NAMESPACE}")

    def _run(self, text: str) -> None:
        with PgClient(self._real.url, USER) as client:
            client.run(text)

    def cpu_s(self, rows: int, each: int, *, kept: bool) -> float:
        """The processor seconds of so many new rows, ``each`` in a statement; ``kept``: with the trigger."""
        self._tables += 1
        table = f"{NAMESPACE}.rows_{self._tables}"
        self._run(f"CREATE TABLE {table} ({ROW_COLUMNS})")
        if kept:
            self._run(TRIGGER.format(table=table, view=f"{NAMESPACE}.kept_{self._tables}"))
        task = PgTask(url=self._real.url, user=USER, asking=PgAsking.COPY, count=rows, table=table, each=each)
        with Process("pg_asker", task, self._stage.log) as process:
            process.wait_ready()
            before = process_tree.cpu_s(self._real.pid)
            process.go()
            asked = process.result(PgAsked)
        if asked.problem or asked.count != rows:
            raise CommandFailed(f"error: {self.name} stored {asked.count:,} of {rows:,} rows: {asked.problem}")
        return process_tree.cpu_s(self._real.pid) - before


@contextmanager
def triggered(stage: Stage) -> Iterator[Triggered | None]:
    """One, where this machine has a PostgreSQL; else None."""
    try:
        real = RealPostgres(find_postgres(), connections=1)
    except NoPostgres as exc:
        stage.progress.step(f"views: without a PostgreSQL beside them: {exc}")
        yield None
        return
    stage.progress.step("views: starting a PostgreSQL")
    with real:
        yield Triggered(stage, real)
