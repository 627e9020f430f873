"""A soak: a server under an even load, whose memory has to stay level and whose rows to add up.

Run by hand, for it takes minutes; CI does not, and pytest does not collect it:

    python tests/soak/soak.py --minutes 10

Every ten seconds a line says how much memory the server and each of its processes hold. Every minute the rows are
counted. It ends with status 1 where a count is wrong, a request failed, or the server's memory went on growing.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

os.environ["KALAM_COLD_STARTS"] = "1"  # the memory of a server as users start it

from memory import memory_of
from server_process import ServerProcess

from kalam.client import connect
from kalam.client.kalam import Kalam
from kalam.errors import KalamError

SAMPLE_S = 10.0
COUNT_S = 60.0
GROWTH_MAX = 1.10
"""How much more the last third of the run may hold at its peak than the middle third."""
USERS = ("ada", "bob", "eve")

SCHEMA = """
CREATE NAMESPACE soak;
CREATE TABLE soak.rows (id BIGINT PRIMARY KEY, kind TEXT, amount DOUBLE, note TEXT, at TIMESTAMP DEFAULT NOW())
    FLUSH POLICY ROWS 5000;
CREATE USER TABLE soak.notes (id BIGINT PRIMARY KEY, note TEXT) FLUSH POLICY ROWS 5000;
CREATE STREAM TABLE soak.events (kind TEXT, amount DOUBLE) RETENTION 30s;
"""

COUNTS = ("SELECT count(*) FROM soak.rows", "SELECT count(DISTINCT id) FROM soak.rows")
QUERIES = (
    "SELECT kind, count(*), sum(amount), max(at) FROM soak.rows GROUP BY kind ORDER BY kind",
    "SELECT * FROM soak.rows ORDER BY amount DESC LIMIT 20",
    "SELECT count(*) FROM soak.rows WHERE note LIKE '%7%' AND amount > 500",
    "SELECT a.kind, count(*) FROM soak.rows a JOIN soak.events e ON a.kind = e.kind WHERE a.id < 100 GROUP BY a.kind",
    "SELECT id, note FROM soak.rows WHERE _deleted LIMIT 10",
    "SELECT * FROM system.stats",
)


Work = Callable[[], Coroutine[None, None, None]]


def say(line: str) -> None:
    """A line for whoever watches."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


@dataclass
class Tally:
    """What was acknowledged; a delete counts when it was told what it deleted."""

    asked: int = 0
    inserted: int = 0
    deletes_asked: int = 0
    deleted: int = 0
    done: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    next_id: int = 0

    def fault(self, text: str) -> None:
        say(f"FAULT {text}")
        self.faults.append(text)


class Soak:
    """The load on one server."""

    def __init__(self, server: ServerProcess, kalam: Kalam, http: httpx.AsyncClient, inserts_per_s: int) -> None:
        self._server, self._kalam, self._http, self._per_s = server, kalam, http, inserts_per_s
        self._random = random.Random(1)
        self.tally = Tally()
        self.samples: list[int] = []

    async def run(self, minutes: float) -> None:
        """Everything at once, until the time is over; then the rows are counted once more."""
        stages: tuple[tuple[Work, float], ...] = (
            (self._insert, 10),
            (self._update, 5),
            (self._delete, 2),
            (self._read, 10),
            (self._query_nats, 0.5),
            (self._query_http, 0.5),
            (self._live, 20 / 60),
            (self._events, 1),
            (self._notes, 2),
            (self._count, 1 / COUNT_S),
            (self._sample, 1 / SAMPLE_S),
        )
        end = time.monotonic() + minutes * 60
        async with asyncio.TaskGroup() as tasks:
            for work, per_s in stages:
                tasks.create_task(self._paced(work, per_s, end), name=work.__name__)
        await self._count_exactly()

    async def _paced(self, work: Work, per_s: float, end: float) -> None:
        """Begin ``work`` so many times a second, not waiting for what began before; lateness is not made up for."""
        running: set[asyncio.Task[None]] = set()
        while (now := time.monotonic()) < end:
            task = asyncio.create_task(self._guarded(work))
            running.add(task)
            task.add_done_callback(running.discard)
            await asyncio.sleep(max(0.0, 1 / per_s - (time.monotonic() - now)))
        await asyncio.gather(*running)

    async def _guarded(self, work: Work) -> None:
        name = work.__name__.strip("_")
        try:
            await work()
        except (KalamError, httpx.HTTPError, TimeoutError) as exc:
            self.tally.fault(f"{name}: {type(exc).__name__} {exc}")
        self.tally.done[name] += 1

    def _row(self) -> dict[str, object]:
        self.tally.next_id += 1
        return {
            "id": self.tally.next_id,
            "kind": f"kind{self._random.randrange(20)}",
            "amount": self._random.random() * 1e3,
            "note": f"note {self._random.random()}",
        }

    async def _insert(self) -> None:
        rows = [self._row() for _ in range(self._per_s // 10)]
        self.tally.asked += len(rows)
        stored = await self._kalam.insert("soak.rows", rows)
        self.tally.inserted += stored

    def _some_id(self) -> int:
        return self._random.randrange(1, max(2, self.tally.next_id - 100))

    async def _update(self) -> None:
        text = "UPDATE soak.rows SET amount = amount + 1, note = $2 WHERE id = $1"
        await self._kalam.sql(text, [self._some_id(), f"changed {self._random.random()}"])

    async def _delete(self) -> None:
        self.tally.deletes_asked += 1
        answer = await self._kalam.sql("DELETE FROM soak.rows WHERE id = $1", [self._some_id()])
        self.tally.deleted += answer.row_count

    async def _read(self) -> None:
        await self._kalam.sql("SELECT * FROM soak.rows WHERE id = $1", [self._some_id()])

    async def _query_nats(self) -> None:
        await self._kalam.sql(self._random.choice(QUERIES))

    async def _query_http(self) -> None:
        accept = self._random.choice(("application/json", "text/csv", "application/vnd.apache.arrow.stream"))
        answer = await self._http.post(
            "/v1/sql", json={"sql": self._random.choice(QUERIES)}, headers={"Accept": accept}
        )
        answer.raise_for_status()

    async def _live(self) -> None:
        """A live query that is open for some seconds and closed by its client."""
        kind = f"kind{self._random.randrange(20)}"
        table = self._random.choice(("soak.rows", "soak.events"))
        async with self._kalam.live(f"SELECT * FROM {table} WHERE kind = '{kind}'", last_rows=10) as live:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._random.uniform(3, 9)):
                    async for _ in live:
                        self.tally.done["changes"] += 1

    async def _events(self) -> None:
        await self._kalam.insert("soak.events", [{"kind": f"kind{number}", "amount": 1.5} for number in range(20)])

    async def _notes(self) -> None:
        user = self._random.choice(USERS)
        self.tally.next_id += 1
        body = {"sql": "INSERT INTO soak.notes VALUES ($1, $2)", "params": [self.tally.next_id, "a note"]}
        answer = await self._http.post("/v1/sql", json=body, headers={"X-Kalam-User": user})
        answer.raise_for_status()

    async def _count(self) -> None:
        """The rows counted in two ways: between what was acknowledged before and what was asked for by then."""
        tally = self.tally
        least, deleted = tally.inserted, tally.deleted
        answers = [await self._kalam.sql(text) for text in COUNTS]
        most = tally.asked - deleted
        least -= tally.deletes_asked
        counted = [int(answer.values[0][0]) for answer in answers]
        if not all(least <= count <= most for count in counted):
            tally.fault(f"{counted} rows where {least} to {most} are right")

    async def _count_exactly(self) -> None:
        expected = self.tally.inserted - self.tally.deleted
        counted = [int((await self._kalam.sql(text)).values[0][0]) for text in COUNTS]
        if counted != [expected] * len(COUNTS):
            self.tally.fault(f"{counted} rows at the end where {expected} are right")

    async def _sample(self) -> None:
        held = await asyncio.to_thread(memory_of, self._server.announcement["pid"])
        self.samples.append(held[0].rss_mb)
        line = f"{time.strftime('%H:%M:%S')} {self.tally.inserted} rows, {sum(one.rss_mb for one in held)} MB: "
        say(line + ", ".join(map(str, held)))

    def verdict(self) -> list[str]:
        """What was wrong."""
        third = len(self.samples) // 3
        middle, last = self.samples[third:-third], self.samples[-third:]
        if third and max(last) > GROWTH_MAX * max(middle):
            self.tally.fault(f"the server's memory grows: {max(middle)} MB in the middle, {max(last)} at the end")
        return self.tally.faults


async def soak(folder: Path, minutes: float, inserts_per_s: int) -> int:
    """Run all of it on a new server in ``folder``; the exit status."""
    server = ServerProcess(folder / "data").start()
    try:
        server.sql(SCHEMA)
        async with (
            connect(server.nats_url) as kalam,
            httpx.AsyncClient(base_url=server.http_url, headers={"X-Kalam-User": "admin"}, timeout=60) as http,
        ):
            load = Soak(server, kalam, http, inserts_per_s)
            await load.run(minutes)
            faults = load.verdict()
        say("done: " + ", ".join(f"{name} {count}" for name, count in load.tally.done.most_common()))
        say("well" if not faults else f"{len(faults)} faults")
        return int(bool(faults))
    finally:
        server.kill() if server.process is not None and server.process.poll() is not None else server.stop()


def main() -> int:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--inserts-per-s", type=int, default=500)
    parser.add_argument("--folder", type=Path, help="where the data directory is made; a temporary one if not given")
    given = parser.parse_args()
    if given.folder is not None:
        return asyncio.run(soak(given.folder, given.minutes, given.inserts_per_s))
    with tempfile.TemporaryDirectory(prefix="kalam-soak-") as folder:
        return asyncio.run(soak(Path(folder), given.minutes, given.inserts_per_s))


if __name__ == "__main__":
    sys.exit(main())
