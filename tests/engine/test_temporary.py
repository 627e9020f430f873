"""Statements that fill a temporary table, and end while a thread writes its rows."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from login_book import wait_until

from kalam.access.identity import ADMINISTRATOR
from kalam.engine import Session, dispatch
from kalam.engine.temporary import written_out
from kalam.server import open_server
from kalam.settings import Settings
from kalam.storage.log.spilled import Spill
from kalam.threads import INLINE_CHARACTERS_MAX


async def test_a_statement_that_is_cancelled_lets_go_of_its_file_behind_the_thread_that_writes(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing, may_write = threading.Event(), threading.Event()
    told: list[str] = []
    add, leave = Spill.add, Spill.__exit__

    def slow_add(spill: Spill, rows: pa.Table) -> None:
        writing.set()
        may_write.wait()
        add(spill, rows)
        told.append("written")

    def left(spill: Spill, *raised: object) -> None:
        told.append("left")
        leave(spill, *raised)

    async with open_server(Settings(data_dir=data_dir, http_port=0, nats_port=0)) as running:
        space = running.engine.open_temporary("admin")
        caller = running.engine.caller(Session(ADMINISTRATOR, temporary=space), "postgresql")
        monkeypatch.setattr(Spill, "add", slow_add)
        monkeypatch.setattr(Spill, "__exit__", left)
        text = "CREATE TEMP TABLE t AS SELECT value AS n FROM generate_series(1, 20000)"
        statement = asyncio.create_task(caller.execute(text))
        try:
            await wait_until(writing.is_set)
            for _ in range(3):
                statement.cancel()
                await asyncio.sleep(0)
            assert told == []
        finally:
            may_write.set()
        with pytest.raises(asyncio.CancelledError):
            await statement
        assert told == ["written", "left"]
        assert space.tables == {}
        space.close()


async def test_names_are_written_out_in_long_statements_beside_the_loop(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_loop: list[bool] = []

    def noting(*asked: Any) -> Any:
        in_loop.append(threading.current_thread() is threading.main_thread())
        return written_out(*asked)

    monkeypatch.setattr(dispatch, "written_out", noting)
    async with open_server(Settings(data_dir=data_dir, http_port=0, nats_port=0)) as running:
        space = running.engine.open_temporary("admin")
        caller = running.engine.caller(Session(ADMINISTRATOR, temporary=space), "postgresql")
        await caller.execute("CREATE TEMP TABLE t (n INT, name TEXT)")
        for rows in (1, INLINE_CHARACTERS_MAX // 10):
            in_loop.clear()
            values = ", ".join(f"({n}, 'abcde')" for n in range(rows))
            [result] = await caller.execute(f"INSERT INTO t VALUES {values}")
            assert (result.row_count, in_loop) == (rows, [rows == 1])
        space.close()
