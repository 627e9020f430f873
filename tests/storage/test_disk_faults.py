"""What runs by itself outlasts a disk that refuses, and nothing else."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from kalam.engine import Session
from kalam.errors import StorageFull
from kalam.lake import lake
from kalam.server import open_server
from kalam.settings import Settings
from kalam.storage.log.disk_faults import disk_may_fail


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), sqlite3.OperationalError("disk I/O error"), StorageFull("full")]
)
def test_what_a_disk_refuses_is_logged_and_left(error: Exception) -> None:
    with capture_logs() as logs, disk_may_fail("the test"):
        raise error
    assert [(entry["event"], entry["what"]) for entry in logs] == [("something waits for the disk", "the test")]


@pytest.mark.parametrize("error", [ValueError("a mistake"), KeyError("x"), AssertionError(), asyncio.CancelledError()])
def test_what_no_disk_says_is_raised(error: BaseException) -> None:
    with pytest.raises(type(error)), disk_may_fail("the test"):
        raise error


async def test_the_lake_goes_on_after_a_disk_that_refused_its_looks(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, wait_until: Callable[[Callable[[], object]], Awaitable[None]]
) -> None:
    """At the start and later; what was flushed meanwhile is committed when the disk is well."""
    failed: list[str] = []
    read_summaries = lake.read_summaries

    def read(conn: sqlite3.Connection) -> Any:
        if not failed:
            failed.append("start")
            raise sqlite3.OperationalError("disk I/O error")
        return read_summaries(conn)

    def disk_usage(folder: Path) -> Any:
        if len(failed) < 3:
            failed.append("look")
            raise OSError(5, "Input/output error")
        return shutil.disk_usage(folder)

    monkeypatch.setattr(lake, "read_summaries", read)
    monkeypatch.setattr(lake, "shutil", SimpleNamespace(disk_usage=disk_usage))
    monkeypatch.setattr(lake, "LOOK_S", 0.05)
    settings = Settings(data_dir=data_dir, http_port=0, nats_port=0, iceberg_interval_s=0.05)
    async with open_server(settings) as running:
        caller = running.engine.caller(Session(), "test")
        await caller.execute("CREATE NAMESPACE lab; CREATE TABLE lab.t (id INT PRIMARY KEY)")
        await caller.execute("INSERT INTO lab.t VALUES (1); FLUSH TABLE lab.t")

        async def snapshots() -> list[int | None]:
            shown = (await caller.execute("SHOW LAKE"))[-1].data
            assert shown is not None
            return list(shown.column("snapshot_id").to_pylist())

        await wait_until(lambda: failed == ["start", "look", "look"])

        async def committed() -> bool:
            return None not in await snapshots()

        await wait_until(committed)
