"""A key-value bucket of others: the first query of a table over it, and nats-py's ``watchall`` of the same keys.

What a watch gives are keys and bytes, so a table of these is compared with it, and one whose columns are read from
tokens and JSON besides.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from kalam.bench.bucket_watcher import Watched, WatchTask
from kalam.bench.figures import Figure, Unit
from kalam.bench.idle import usage
from kalam.bench.process import Process
from kalam.bench.rows import COLUMNS
from kalam.bench.stage import NAMESPACE, Stage
from kalam.cli.failure import CommandFailed

BUCKET: Final = "bench"
SELECT: Final = "SELECT count(*) FROM {}"
WATCH_S: Final = 600.0
BARE_ENGINE: Final = "nats-py watchall"
TABLES: Final = {
    "keys and bytes": "(value BLOB) OVER BUCKET '{bucket}' WITH (payload = 'raw')",
    "JSON in columns": "(site TEXT FROM TOKEN 1, {columns}) OVER BUCKET '{bucket}'",
}


def measure_bucket(stage: Stage) -> Iterator[Figure]:
    """Both take turns, and the best of each counts."""
    keys = stage.sizes.bucket_keys
    table = f"{NAMESPACE}.bucket"
    columns = COLUMNS.format(id="BIGINT", key="")
    watched: list[Watched] = []
    took: dict[str, list[tuple[float, float]]] = {name: [] for name in TABLES}
    found: list[int] = []
    for number in range(1, stage.sizes.rounds + 2):
        stage.progress.step(f"adopt: a bucket of {keys:,} keys, round {number} of {stage.sizes.rounds + 1}")
        watched.append(_watch(stage, keys))
        for name, over in TABLES.items():
            stage.sql.run(f"CREATE STREAM TABLE {table} {over.format(bucket=BUCKET, columns=columns)}")
            before_s = usage(stage.server.pid).cpu_s
            answer = stage.sql.run(SELECT.format(table))
            cpu_s = usage(stage.server.pid).cpu_s - before_s
            stage.sql.run(f"DROP TABLE {table}")
            took[name].append((answer.wall_ms, cpu_s * 1e3))
            found.append(answer.rows[0][0])
    complete = all(count == keys for count in (*found, *(each.keys for each in watched)))
    theirs = (min(each.seconds for each in watched) * 1e3, min(each.cpu_s for each in watched) * 1e3)
    for name, times in took.items():
        for place, figure in enumerate(("first query of a bucket", "CPU of who reads it")):
            yield Figure(
                name=figure,
                situation=f"{name}, {keys:,} keys",
                unit=Unit.MS,
                kalam=min(each[place] for each in times),
                bare=theirs[place],
                bare_engine=BARE_ENGINE,
                complete=complete,
                detail={"keys": min(found), "watched_keys": min(each.keys for each in watched)},
            )


def _watch(stage: Stage, keys: int) -> Watched:
    task = WatchTask(url=stage.server.nats_url, bucket=BUCKET, keys=keys)
    with Process("bucket_watcher", task, stage.log) as process:
        process.wait_ready()
        process.go()
        watched = process.result(Watched, WATCH_S)
    if watched.keys != keys:
        raise CommandFailed(f"error: a watch of the bucket gave {watched.keys:,} of {keys:,} keys")
    return watched
