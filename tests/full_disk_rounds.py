"""Rounds of a full disk, each during another kind of work; after each the server comes back by itself, with everything.

A round fills the disk to a few bytes or some hundred kilobytes, works until it is refused, makes room, and then waits
until every kind of work is done again. What was acknowledged is counted, and what was refused must not be there.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from patience import PATIENCE_S
from server_process import ServerProcess, SqlFailed
from small_disk import fill

KINDS = ("insert", "flush", "compaction", "ddl", "drop")
COPIES = (("d.t", "admin"), ("d.mine", "ann"))
LEFT = (0, 300 << 10, 4 << 10, 1 << 20, 64 << 10)
"""Bytes that are left free, by turns."""
BODY = 2_000
BACK_S = 180.0
"""Many times as long as it takes, for machines that do other things, too."""
REFUSALS = {"storage_full", "broker_unavailable"}


@dataclass
class Rounds:
    """What was acknowledged, round after round, on one server."""

    server: ServerProcess
    disk: Path
    ids: int = 0
    rows: dict[str, set[int]] = field(default_factory=lambda: {"d.t": set(), "d.mine": set(), "d.s": set()})
    uncertain: set[int] = field(default_factory=set)
    slowest_s: float = 0.0

    def begin(self) -> None:
        """Make the tables."""
        self.server.sql("CREATE NAMESPACE d")
        for create in ("CREATE TABLE d.t", "CREATE USER TABLE d.mine"):
            self.server.sql(f"{create} (id BIGINT PRIMARY KEY, body TEXT)")
        self.server.sql("CREATE STREAM TABLE d.s (id BIGINT, body TEXT)")

    def play(self, kind: str, number: int) -> None:
        """One round."""
        self._prepare(kind, number)
        ballast = self.disk / "ballast"
        fill(ballast, leave=LEFT[number % len(LEFT)])
        try:
            getattr(self, f"_{kind}")(number)
        finally:
            ballast.unlink()
        self._come_back(number)
        self.check()

    def check(self) -> None:
        """Everything that was acknowledged is there, once, and nothing that was refused."""
        for table, user in COPIES:
            found = [row_id for [row_id] in self.server.sql(f"SELECT id FROM {table} ORDER BY id", user=user)]
            assert found == sorted(self.rows[table]), table
        found = sorted(row_id for [row_id] in self.server.sql("SELECT id FROM d.s"))
        assert len(found) == len(set(found))
        assert self.rows["d.s"] <= set(found) <= self.rows["d.s"] | self.uncertain

    # What is done

    def _prepare(self, kind: str, number: int) -> None:
        if kind == "compaction":
            for _ in range(3):
                self._insert_each(20)
                self.server.sql("FLUSH ALL TABLES")
        elif kind == "drop":
            self.server.sql(f"CREATE TABLE d.x{number} (id BIGINT PRIMARY KEY, body TEXT)")
            self.server.sql(f"CREATE STREAM TABLE d.y{number} (id BIGINT)")
            self.server.sql(f"INSERT INTO d.x{number} SELECT value, 'x' FROM generate_series(1, 100)")
            self.server.sql(f"FLUSH TABLE d.x{number}; INSERT INTO d.x{number} VALUES (101, 'hot')")
        self._insert_each(5)

    def _insert_each(self, count: int) -> bool:
        """Insert rows into each table; whether all were taken."""
        first, self.ids = self.ids, self.ids + count
        taken = [self._insert_into(table, user, first, count) for table, user in (*COPIES, ("d.s", "admin"))]
        return all(taken)

    def _insert_into(self, table: str, user: str, first: int, count: int) -> bool:
        ids = range(first, first + count)
        values = ", ".join(f"({row_id}, '{'x' * BODY}')" for row_id in ids)
        if self._try(f"INSERT INTO {table} (id, body) VALUES {values}", user=user):
            self.rows[table].update(ids)
            return True
        if table == "d.s":  # nobody knows what became of events that the broker did not acknowledge
            self.uncertain.update(ids)
        return False

    def _try(self, text: str, user: str = "admin") -> bool:
        """Run a statement; False if it is refused for want of room."""
        try:
            self.server.sql(text, user=user)
        except SqlFailed as exc:
            if exc.code not in REFUSALS:
                raise
            return False
        return True

    def _insert(self, _: int) -> None:
        for _ in range(600):
            if not self._insert_each(10):
                break
        self._insert_each(10)

    def _flush(self, number: int) -> None:
        self._insert(number)
        self._try("FLUSH ALL TABLES")
        self._try("FLUSH TABLE d.t")

    def _compaction(self, _: int) -> None:
        for table, _ in COPIES:
            self._try(f"COMPACT TABLE {table}")

    def _ddl(self, number: int) -> None:
        for index in range(3):
            if not self._try(f"CREATE TABLE d.c{number}_{index} (id BIGINT PRIMARY KEY)"):
                assert not self._exists(f"c{number}_{index}")
            self._try(f"CREATE STREAM TABLE d.e{number}_{index} (id BIGINT)")
            self._try(f"ALTER TABLE d.t ADD COLUMN n{number}_{index} BIGINT")
            self._insert_each(1)

    def _drop(self, number: int) -> None:
        if not self._try(f"DROP TABLE d.x{number}"):
            assert self.server.sql(f"SELECT count(*) FROM d.x{number}") == [[101]]
        self._try(f"DROP TABLE d.y{number}")

    def _exists(self, table: str) -> bool:
        return bool(self.server.sql("SELECT 1 FROM system.tables WHERE table_name = $1", table))

    # Coming back

    def _come_back(self, number: int) -> None:
        """Wait until everything can be done again, and is done."""
        since = time.monotonic()
        self._wait("an insert", lambda: self._insert_each(1))
        self._wait("a flush", lambda: self._try("FLUSH ALL TABLES"))
        self._wait("a compaction", lambda: self._try("COMPACT TABLE d.t"))
        for kind in ("TABLE", "STREAM TABLE"):
            key = " PRIMARY KEY" if kind == "TABLE" else ""
            name = f"d.back{number}"
            self._wait(f"CREATE {kind}", lambda: self._try(f"CREATE {kind} IF NOT EXISTS {name} (id BIGINT{key})"))  # noqa: B023
            self._wait(f"DROP {kind}", lambda: self._try(f"DROP TABLE IF EXISTS {name}"))  # noqa: B023
        self._wait("DROP of the round", lambda: self._try(f"DROP TABLE IF EXISTS d.x{number}"))
        self._wait("to be ready", self._is_ready)
        self._wait("the changes to be told", lambda: self._stat("outbox_bytes") == 0)
        self.slowest_s = max(self.slowest_s, time.monotonic() - since)

    def _wait(self, what: str, done: Callable[[], Any]) -> None:
        deadline = time.monotonic() + BACK_S
        while not done():
            assert time.monotonic() < deadline, f"{what} was not done in {BACK_S:g} s: {self.server.log_text()[-3000:]}"
            time.sleep(0.1)

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.server.http_url}/readyz", timeout=PATIENCE_S) as response:
                return bool(json.load(response)["ready"])
        except urllib.error.HTTPError as exc:
            exc.close()
            return False

    def _stat(self, name: str) -> float:
        [[value]] = self.server.sql("SELECT value FROM system.stats WHERE name = $1", name)
        return float(value)
