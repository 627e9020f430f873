"""A ``kalam.db`` of earlier beside the newer log: what SQLite wrote back in between is in neither.

SQLite begins its log anew, with other salts in its header, once it has written all of it back.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
import threading
from contextlib import closing
from http.client import HTTPException
from itertools import count
from pathlib import Path

import pytest
from server_process import ServerProcess, SqlFailed

VALUE = "x" * 400_000
"""Ten of them are the thousand pages after which SQLite writes its log back."""
KILLS = 24


class Rows:
    """Inserts rows 0, 1, 2, …."""

    def __init__(self, server: ServerProcess) -> None:
        self.server, self.count = server, 0
        server.sql("CREATE NAMESPACE o; CREATE TABLE o.t (id BIGINT PRIMARY KEY, v TEXT)")

    def insert(self) -> None:
        self.server.sql("INSERT INTO o.t VALUES ($1, $2)", self.count, VALUE)
        self.count += 1

    def insert_until_a_log_begins(self) -> None:
        before = self._log()
        while self._log() == before:
            self.insert()

    def _log(self) -> bytes:
        log = self.server.data_dir / "kalam.db-wal"
        return log.open("rb").read(32)[16:24] if log.exists() else b""


def database(server: ServerProcess) -> Path:
    return server.data_dir / "kalam.db"


def copied(server: ServerProcess) -> Path:
    return Path(shutil.copy(database(server), server.data_dir.with_name("kalam.db of earlier")))


def refusal(server: ServerProcess) -> str:
    """What a start says that ends with 1."""
    said = len(server.log_text())
    server.launch()
    assert server.wait_end() == 1
    return server.log_text()[said:]


def ids(server: ServerProcess) -> list[int]:
    return [number for [number] in server.sql("SELECT id FROM o.t ORDER BY id")]


@pytest.mark.parametrize("logs", [1, 2, 5])
def test_a_copy_of_the_same_run_that_lacks_a_log_is_refused(kalam_server: ServerProcess, logs: int) -> None:
    server = kalam_server
    rows = Rows(server)
    rows.insert_until_a_log_begins()
    copy = copied(server)
    for _ in range(logs):
        rows.insert_until_a_log_begins()
    rows.insert_until_a_log_begins()  # which the newest log does not have
    server.kill()
    newest = shutil.copy(database(server), server.data_dir.with_name("newest"))
    shutil.copy(copy, database(server))
    for _ in range(2):  # a refused start leaves everything so that the next one is refused, too
        assert "kalam.db is older than what lies beside it" in refusal(server)
    shutil.copy(newest, database(server))
    server.restart()
    assert ids(server) == list(range(rows.count))


def test_a_copy_that_its_log_completes_is_no_older_one(kalam_server: ServerProcess) -> None:
    server = kalam_server
    rows = Rows(server)
    rows.insert_until_a_log_begins()
    copy = copied(server)
    rows.insert()
    server.kill()
    shutil.copy(copy, database(server))
    server.restart()
    assert ids(server) == list(range(rows.count))


def test_a_copy_of_the_same_run_is_refused_after_a_clean_stop(kalam_server: ServerProcess) -> None:
    """Even where nothing but the server's own notes were committed since."""
    server = kalam_server
    Rows(server).insert()
    server.stop()
    server.restart()
    copy = copied(server)
    server.stop()
    shutil.copy(copy, database(server))
    assert "kalam.db is older than what lies beside it" in refusal(server)


def test_a_mark_that_a_power_cut_left_behind_keeps_nobody_from_starting(kalam_server: ServerProcess) -> None:
    server = kalam_server
    mark = server.data_dir / "kalam.generation"
    rows = Rows(server)
    behind = mark.read_bytes()
    for _ in range(3):
        rows.insert_until_a_log_begins()
    server.kill()
    mark.write_bytes(behind)
    server.restart()
    assert ids(server) == list(range(rows.count))


def test_a_reader_that_holds_the_log_at_the_start_keeps_nobody_from_the_next_one(kalam_server: ServerProcess) -> None:
    """What the start notes is not written back then, and the mark must not say that it was."""
    server = kalam_server
    rows = Rows(server)
    rows.insert()
    server.stop()
    with closing(sqlite3.connect(database(server), isolation_level=None)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM tables").fetchone() == (1,)
        server.restart()
        rows.insert()
        server.kill()
    server.restart()
    assert ids(server) == list(range(rows.count))


def test_every_kill_leads_to_a_start_with_all_that_was_acknowledged(kalam_server: ServerProcess) -> None:
    server, chance = kalam_server, random.Random(7)
    server.sql("CREATE NAMESPACE o; CREATE TABLE o.t (id BIGINT PRIMARY KEY, v TEXT)")
    first = 0
    for _ in range(KILLS):
        acknowledged: list[int] = []
        sender = threading.Thread(target=_send, args=(server, first, acknowledged))
        sender.start()
        _wait_for_rows(acknowledged, chance.randrange(5, 25), sender)
        server.kill()
        sender.join()
        server.restart()
        found = [number for number in ids(server) if number >= first]
        assert found[: len(acknowledged)] == acknowledged
        server.sql("DELETE FROM o.t WHERE id < $1", first)
        first = found[-1] + 1  # the last one may be stored and was not acknowledged


def _send(server: ServerProcess, first: int, acknowledged: list[int]) -> None:
    """Insert rows one after another until the server is gone."""
    for number in count(first):
        try:
            server.sql("INSERT INTO o.t VALUES ($1, $2)", number, VALUE)
        except (OSError, HTTPException, SqlFailed):
            return
        acknowledged.append(number)


def _wait_for_rows(acknowledged: list[int], number: int, sender: threading.Thread) -> None:
    while len(acknowledged) < number:
        sender.join(0.001)
        assert sender.is_alive(), "the inserts end before the server does"
