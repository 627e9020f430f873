"""What a server costs that has nothing to do: its processor time and its memory, read from ``/proc``."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kalam.bench.figures import Figure, Unit
from kalam.bench.rows import create_table
from kalam.bench.stage import Stage

TABLES: Final = {"STREAM": "bench.idle_stream", "SHARED": "bench.idle_shared", "USER": "bench.idle_user"}
SETTLED_S: Final = 0.5
SETTLED_CPU_S: Final = 0.02
SETTLE_S_MAX: Final = 15.0
LATE_START_S: Final = 5.0
"""How long a server may go on with its start, such as the import of DataFusion, after it is ready."""
PROC: Final = Path("/proc")


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process has used so far."""

    cpu_s: float
    memory_bytes: int


def measure_idle(stage: Stage) -> Iterator[Figure]:
    """The server with a table of each kind, its nats-server, and a nats-server alone."""
    if not (PROC / "self" / "stat").exists():
        stage.progress.step("idle: left out, for this system has no /proc")
        return
    for kind, name in TABLES.items():
        stage.sql.run(create_table(kind, name, "FORMAT = 'json'"))
        stage.sql.run(f"INSERT INTO {name} (id) VALUES (1)")  # noqa: S608 - our own table
    nats_pid = int((stage.server.data_dir / "nats" / "nats.pid").read_text())
    processes = {"server": stage.server.pid, "its nats-server": nats_pid}
    seconds = stage.sizes.idle_s
    stage.progress.step(f"idle: watching for {seconds:g} s")
    time.sleep(min(seconds / 2, LATE_START_S))
    _settle(stage.server.pid, min(2 * seconds, SETTLE_S_MAX))
    watched = {**processes, "bare": stage.broker.pid}
    before, started = {name: usage(pid) for name, pid in watched.items()}, time.perf_counter()
    time.sleep(seconds)
    took_s = time.perf_counter() - started
    after = {name: usage(pid) for name, pid in watched.items()}
    cpu = {name: (after[name].cpu_s - before[name].cpu_s) / took_s * 100 for name in watched}
    for name in processes:
        beside = name != "server"
        engine = "nats-server" if beside else None
        situation = f"a table of each kind, no load for {seconds:g} s"
        megabytes = after[name].memory_bytes / 1e6
        bare_megabytes = after["bare"].memory_bytes / 1e6 if beside else None
        yield Figure(
            name=name,
            situation=situation,
            unit=Unit.CPU,
            kalam=cpu[name],
            bare=cpu["bare"] if beside else None,
            bare_engine=engine,
        )
        yield Figure(
            name=name,
            situation=situation,
            unit=Unit.MB,
            kalam=megabytes,
            bare=bare_megabytes,
            bare_engine=engine,
            note="resident",
        )


def usage(pid: int) -> Usage:
    """What a process has used, from ``proc_pid_stat(5)``."""
    # The name, in brackets, may hold blanks; the fields behind it are counted from the third.
    fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    ticks, pages = int(fields[11]) + int(fields[12]), int(fields[21])
    return Usage(ticks / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE"))


def _settle(pid: int, patience_s: float) -> None:
    """Wait until the work of the start is over: half a second with little processor time."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        before = usage(pid).cpu_s
        time.sleep(SETTLED_S)
        if usage(pid).cpu_s - before <= SETTLED_CPU_S:
            return
