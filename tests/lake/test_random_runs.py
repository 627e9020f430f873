"""After whatever was done to a table, in whatever order, every engine reads what SELECT shows."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from lake_readers import READERS, lake_of, rows_of, selected
from lake_values import KEYS, VALUES
from patience import PATIENCE_S
from server_process import ServerProcess

TURNS = 12
USERS = {False: ("admin",), True: ("ann", "bob-2")}
ENVIRONMENT = {"KALAM_ICEBERG_INTERVAL_S": "0"}


class Run:
    """A table with a column of each type, and what is done to it; None is flushed unless it is said."""

    def __init__(self, server: ServerProcess, key: str, *, per_user: bool) -> None:
        self.server, self.key, self.users = server, KEYS[key], USERS[per_user]
        self.rng = random.Random(key)
        self.columns = {column.split()[0]: (column.split()[1], values) for column, values in VALUES.items()}
        declared = ", ".join((f"id {key} PRIMARY KEY", *VALUES))
        server.sql(f"CREATE NAMESPACE n; CREATE {'USER ' if per_user else ''}TABLE n.t ({declared})")

    def play(self) -> None:
        """One turn: changes of each user, a flush, and perhaps something that files are written again by."""
        for user in self.users:
            for _ in range(self.rng.randrange(1, 4)):
                self.rng.choice([self.upsert, self.upsert, self.update, self.delete])(user)
        self.server.sql("FLUSH TABLE n.t")
        self.rng.choice([self.compact, self.kill, self.add, self.drop, self.rename, self.wait, self.wait])()
        self.server.sql("FLUSH TABLE n.t; REFRESH LAKE FOR TABLE n.t")

    def _value(self, name: str) -> str:
        return self.rng.choice([*self.columns[name][1], "NULL"])

    def _keys(self, count: int) -> list[str]:
        return [self.key(number) for number in self.rng.sample(range(90), count)]

    def upsert(self, user: str) -> None:
        rows = (", ".join([key, *map(self._value, self.columns)]) for key in self._keys(30))
        values = ", ".join(f"({row})" for row in rows)
        new = ", ".join(f"{name} = excluded.{name}" for name in self.columns)
        names = ", ".join(("id", *self.columns))
        self.server.sql(f"INSERT INTO n.t ({names}) VALUES {values} ON CONFLICT (id) DO UPDATE SET {new}", user=user)

    def update(self, user: str) -> None:
        name = self.rng.choice(list(self.columns))
        where = ", ".join(self._keys(20))
        self.server.sql(f"UPDATE n.t SET {name} = {self._value(name)} WHERE id IN ({where})", user=user)

    def delete(self, user: str) -> None:
        self.server.sql(f"DELETE FROM n.t WHERE id IN ({', '.join(self._keys(10))})", user=user)

    def compact(self) -> None:
        self.server.sql("COMPACT TABLE n.t")

    def kill(self) -> None:
        self.server.kill()
        self.server.restart()

    def add(self) -> None:
        """Add one of a name that there was before, or of a new one; with a default, which old rows have too."""
        kind, values = self.rng.choice([(kind, values) for kind, values in self.columns.values() if kind != "JSON"])
        name = self.rng.choice([name for name in ("new", "words", "big") if name not in self.columns] or ["newer"])
        if name not in self.columns:
            default = self.rng.choice(["", f" DEFAULT {values[0]}"]) if "CAST" not in values[0] else ""
            self.server.sql(f"ALTER TABLE n.t ADD COLUMN {name} {kind}{default}")
            self.columns[name] = (kind, values)

    def drop(self) -> None:
        name = self.rng.choice(list(self.columns))
        self.server.sql(f"ALTER TABLE n.t DROP COLUMN {name}")
        del self.columns[name]

    def rename(self) -> None:
        before = self.rng.choice(list(self.columns))
        after = f"r{len(before)}_{self.rng.randrange(1_000)}"
        self.server.sql(f"ALTER TABLE n.t RENAME COLUMN {before} TO {after}")
        self.columns[after] = self.columns.pop(before)

    def wait(self) -> None:
        pass


def assert_read(server: ServerProcess, users: tuple[str, ...], engines: tuple[str, ...]) -> None:
    """Each user's rows are those of their SELECT."""
    for engine in engines:
        read = READERS[engine](lake_of(server, "n.t"))
        for user in users:
            seen = selected(server, "SELECT * FROM n.t", user)
            own = read.filter(pc.equal(read.column("user_id").cast(pa.string()), user)) if len(users) > 1 else read
            assert rows_of(own, seen.schema, "id") == rows_of(seen, seen.schema, "id"), (engine, user)


@pytest.mark.parametrize(
    ("key", "per_user"), [("TEXT", False), ("DECIMAL(20,3)", False), ("UUID", False), ("BIGINT", True)]
)
def test_every_engine_reads_what_select_shows(
    start_kalam: Callable[..., ServerProcess], tmp_path: Path, key: str, per_user: bool
) -> None:
    server = start_kalam(**ENVIRONMENT)
    run = Run(server, key, per_user=per_user)
    for turn in range(TURNS):
        run.play()
        assert_read(server, run.users, tuple(READERS) if turn == TURNS - 1 else ("duckdb",))
    command = [sys.executable, "-m", "kalam"]
    backup, data, restored = str(tmp_path / "backup"), str(server.data_dir), str(tmp_path / "restored")
    subprocess.run([*command, "backup", backup, "--data-dir", data], check=True, capture_output=True)
    subprocess.run([*command, "restore", backup, "--data-dir", restored], check=True, capture_output=True)
    other = start_kalam("restored", **ENVIRONMENT)
    wait_until_followed(other)
    assert_read(other, run.users, tuple(READERS))


def wait_until_followed(server: ServerProcess) -> None:
    """Wait until the lake is made by itself."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        [[_, _, snapshot, *_, lag_s, error]] = server.sql("SHOW LAKE")
        if snapshot is not None and lag_s == 0 and error is None:
            return
        assert time.monotonic() < deadline, (error, server.log_text()[-2_000:])
        time.sleep(0.05)
