"""Reads a change feed with plain JetStream, as a program in any language would, and replays it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import nats
from nats import errors as nats_errors
from nats.aio.client import Client
from nats.js.api import AckPolicy, ConsumerConfig

SHARED_STREAM = "KALAM-CHANGES"
USER_STREAM = "KALAM-USER-CHANGES"


@dataclass(frozen=True)
class FeedMessage:
    """A message of the feed: a run of changes, the first numbered ``seq``."""

    subject: str
    table_id: str
    op: str
    seq: int
    rows: list[dict[str, Any]]
    old: list[dict[str, Any]] | None
    stream_seq: int


@asynccontextmanager
async def connected(url: str, **options: Any) -> AsyncIterator[Client]:
    """A plain NATS client, which gives up rather than reconnect."""
    client = await nats.connect(url, allow_reconnect=False, error_cb=_ignore, **options)
    try:
        yield client
    finally:
        await client.close()


async def work_until_cut_off(url: str, work: Callable[[Client], Coroutine[Any, Any, None]]) -> None:
    """Run ``work`` with a client until the connection ends, which nats-py does not tell those who wait for a reply.

    An error of ``work`` is raised, but for those by which the client notices the end.
    """
    ended = asyncio.Event()

    async def note() -> None:
        ended.set()

    async with connected(url, disconnected_cb=note) as client:
        tasks = [asyncio.create_task(work(client)), asyncio.create_task(ended.wait())]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        with suppress(asyncio.CancelledError, nats_errors.Error, OSError):
            await tasks[0]


async def _ignore(error: Exception) -> None:
    """nats-py would print it; the caller sees the failing request."""


async def read_feed(url: str, subject: str) -> list[FeedMessage]:
    """Every message that the feed's stream holds under ``subject`` (with wildcards), from its start."""
    stream = USER_STREAM if ".user." in subject else SHARED_STREAM
    async with connected(url) as client:
        config = ConsumerConfig(ack_policy=AckPolicy.NONE, mem_storage=True)
        sub = await client.jetstream().pull_subscribe(subject, stream=stream, config=config)
        messages: list[FeedMessage] = []
        while waiting := (await sub.consumer_info()).num_pending:
            with suppress(nats_errors.TimeoutError):  # a purge took away meanwhile what was waiting
                messages += [_decode(msg) for msg in await sub.fetch(min(200, waiting), timeout=2)]
        return messages


def _decode(msg: Any) -> FeedMessage:
    body = json.loads(msg.data)
    return FeedMessage(
        subject=msg.subject,
        table_id=msg.headers["Kalam-Table"],
        op=body["op"],
        seq=body["seq"],
        rows=body.get("rows", []),
        old=body.get("old"),
        stream_seq=msg.metadata.sequence.stream,
    )


def last_seq(messages: Sequence[FeedMessage]) -> int:
    """The number of the last change; 0 for none."""
    return messages[-1].seq + max(len(messages[-1].rows), 1) - 1 if messages else 0


def check_old(old: dict[str, Any], former: dict[str, Any], row: dict[str, Any]) -> None:
    """Fail where ``old`` is not what the columns that changed were; one that was added since says what it likes."""
    known = {name: value for name, value in old.items() if name in former}
    assert repr(known) == repr({name: former[name] for name in known})
    own = [name for name in row if name in former and not name.startswith("_")]
    assert {name for name in own if row[name] != former[name]} <= known.keys()


def replay(messages: Sequence[FeedMessage], *key: str, with_old: bool = False) -> dict[Any, dict[str, Any]]:
    """The content of the table that these messages describe; fails on a hole, a repeat, or an impossible change.

    By the value of the column ``key``, or by the values of several. ``old`` is looked at ``with_old``.
    """
    rows: dict[Any, dict[str, Any]] = {}
    key_of = itemgetter(*key)
    seq = 0
    for message in messages:
        assert message.seq == seq + 1, f"change {message.seq} follows {seq}"
        seq += max(len(message.rows), 1)
        if message.op == "truncate":
            rows.clear()
        for place, row in enumerate(message.rows):
            own = key_of(row)
            assert (own in rows) is (message.op != "insert"), f"{message.op} of {own}"
            if with_old and message.op == "update":
                assert message.old is not None
                check_old(message.old[place], rows[own], row)
            if message.op == "delete":
                del rows[own]
            else:
                rows[own] = row
    return rows
