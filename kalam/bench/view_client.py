"""The process that inserts at an even pace and takes the time from each row to the change of the view that counts it.

A row is counted by the first change of its group whose greatest key is not below the row's: keys rise.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict, deque
from typing import TYPE_CHECKING, Final, Self

import msgspec
from nats.aio.msg import Msg

from kalam.bench.client import FrameClient, connect, frame
from kalam.bench.pace import due
from kalam.bench.rows import payloads, row
from kalam.bench.task import answer, read_task, run, say_ready, wait_go_async

if TYPE_CHECKING:
    from kalam.bench.stage import Stage

SELECT: Final = """
    SELECT url, count(*) AS n, sum(status) AS total, avg(latency) AS mean, max(id) AS last FROM {} GROUP BY url
"""
LATE_S: Final = 30.0


class ViewClientTask(msgspec.Struct, kw_only=True):
    """Insert ``messages`` of ``each`` rows into ``table``, so many messages a second; ``view`` may be none."""

    url: str
    subject: str
    view: str
    messages: int
    each: int
    per_s: float

    @classmethod
    def of(cls, stage: Stage, table: str, view: str = "", *, messages: int, each: int, per_s: float) -> Self:
        """One at a stage's server."""
        subject = stage.insert_subject(table)
        return cls(url=stage.server.nats_url, subject=subject, view=view, messages=messages, each=each, per_s=per_s)


class Shown(msgspec.Struct, kw_only=True):
    """How long after it was sent each row was counted in the view; how many were acknowledged."""

    delays_ns: list[int]
    acknowledged: int
    rows: int
    viewed: bool

    @property
    def complete(self) -> bool:
        """Whether every row came through."""
        return self.acknowledged == self.rows and (not self.viewed or len(self.delays_ns) == self.rows)

    @property
    def told(self) -> str:
        """The same in words."""
        return f"{len(self.delays_ns):,} of {self.rows:,} rows counted"


class _Ack(msgspec.Struct):
    rows: int


class _Group(msgspec.Struct):
    url: str
    last: int


class _Changes(msgspec.Struct):
    rows: list[_Group]


class ViewClient:
    """Sends rows, and hears of the view."""

    def __init__(self, client: FrameClient, task: ViewClientTask) -> None:
        self._client, self._task = client, task
        self._waiting: defaultdict[str, deque[tuple[int, int]]] = defaultdict(deque)
        self._acks, self._changes = msgspec.json.Decoder(_Ack), msgspec.json.Decoder(_Changes)
        self._inbox = client.new_inbox()
        self._done = asyncio.Event()
        count = task.messages * task.each
        self.shown = Shown(delays_ns=[], acknowledged=0, rows=count, viewed=bool(task.view))
        self._urls = [row(number).url for number in range(count)]
        texts = enumerate(payloads(0, count, task.each))
        self._frames = [frame(task.subject, text, f"{self._inbox}.{number}") for number, text in texts]

    async def open(self) -> None:
        """Listen."""
        await self._client.listen(f"{self._inbox}.*", self._on_ack)
        if self._task.view:
            await self._client.listen(f"kalam.shared.{self._task.view}.>", self._on_change)
        await self._client.flush()

    async def pace(self) -> None:
        """Send each message when it is due, and wait until the last row is counted."""
        each = self._task.each
        async for numbers in due(self._task.messages, self._task.per_s):
            for number in numbers:
                now = time.perf_counter_ns()
                for key in range(number * each, (number + 1) * each):
                    self._waiting[self._urls[key]].append((key, now))
                await self._client.write(self._frames[number])
        try:
            async with asyncio.timeout(LATE_S):
                await self._done.wait()
        except TimeoutError:
            return

    async def _on_ack(self, msg: Msg) -> None:
        self.shown.acknowledged += 0 if msg.headers else self._acks.decode(msg.data).rows
        self._look()

    async def _on_change(self, msg: Msg) -> None:
        now = time.perf_counter_ns()
        for group in self._changes.decode(msg.data).rows:
            waiting = self._waiting[group.url]
            while waiting and waiting[0][0] <= group.last:
                self.shown.delays_ns.append(now - waiting.popleft()[1])
        self._look()

    def _look(self) -> None:
        if self.shown.complete:
            self._done.set()


def followed(stage: Stage, task: ViewClientTask) -> Shown:
    """What such a process has seen."""
    from kalam.bench.process import Process  # the process itself does without

    with Process("view_client", task, stage.log) as process:
        process.wait_ready()
        process.go()
        return process.result(Shown)


async def main(task: ViewClientTask) -> None:
    """Prepare, insert, answer."""
    client = await connect(task.url, "view client")
    viewer = ViewClient(client, task)
    await viewer.open()
    say_ready()
    await wait_go_async()
    await viewer.pace()
    answer(viewer.shown)
    await client.close()


if __name__ == "__main__":
    run(main(read_task(ViewClientTask)))
