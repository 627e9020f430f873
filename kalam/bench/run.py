"""The run of a bench: a server and a nats-server in a temporary folder, and one measurement after another."""

from __future__ import annotations

import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Final

from kalam.bench.adopt import measure_adopt
from kalam.bench.bare_broker import BareBroker
from kalam.bench.figures import Figure
from kalam.bench.flush import measure_flush
from kalam.bench.http_sql import HttpSql
from kalam.bench.idle import measure_idle
from kalam.bench.inserts import measure_inserts
from kalam.bench.kept_views import measure_views
from kalam.bench.lake import measure_lake
from kalam.bench.live import measure_live
from kalam.bench.logins import measure_logins
from kalam.bench.peers import measure_peers
from kalam.bench.postgres import measure_postgres
from kalam.bench.progress import Progress
from kalam.bench.report import print_json, print_table
from kalam.bench.select import measure_select
from kalam.bench.sizes import Sizes
from kalam.bench.stage import NAMESPACE, Stage
from kalam.bench.stored_tables import measure_stored_tables
from kalam.bench.stream_tables import measure_stream_tables
from kalam.bench.streams import measure_streams
from kalam.cli.demo_server import DemoServer
from kalam.cli.failure import CommandFailed

MEASURES: Final[dict[str, Callable[[Stage], Iterable[Figure]]]] = {
    "idle": measure_idle,
    "streams": measure_streams,
    "stream_tables": measure_stream_tables,
    "inserts": measure_inserts,
    "flush": measure_flush,
    "select": measure_select,
    "stored_tables": measure_stored_tables,
    "lake": measure_lake,
    "live": measure_live,
    "logins": measure_logins,
    "adopt": measure_adopt,
    "views": measure_views,
    "postgres": measure_postgres,
    "peers": measure_peers,
}


def run_bench(chosen: Sequence[str], sizes: Sizes, *, as_json: bool) -> int:
    """Make the chosen measurements, print their figures, and return the exit status: 0 only if all are complete."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    started = time.monotonic()
    with _stage(sizes) as stage:
        figures = {name: _measure(stage, name) for name in chosen}
    took_s = time.monotonic() - started
    if as_json:
        print_json(figures, sizes, took_s)
    else:
        print_table(figures, took_s)
    return 0 if all(figure.complete for several in figures.values() for figure in several) else 1


def _measure(stage: Stage, name: str) -> list[Figure]:
    try:
        return list(MEASURES[name](stage))
    except CommandFailed as exc:
        raise CommandFailed(
            f"{exc.text}\n{name} was given up. The server's log ends with\n{stage.server.log_end()}"
        ) from exc


@contextmanager
def _stage(sizes: Sizes) -> Iterator[Stage]:
    with ExitStack() as stack:
        home = Path(tempfile.mkdtemp(prefix="kalam-bench-"))
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        progress = stack.enter_context(Progress())
        progress.step("starting a server")
        server = stack.enter_context(DemoServer(home / "data", home / "server.log"))
        broker = stack.enter_context(BareBroker(home / "nats"))
        sql = stack.enter_context(HttpSql(server.http_url))
        sql.run(f"CREATE NAMESPACE {NAMESPACE}")
        yield Stage(home, server, sql, broker, sizes, progress)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
