"""``nats sub`` and ``nats req`` as the manual uses them, on nats-py: no package index has the command itself."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import nats
from nats.js.api import ConsumerConfig, DeliverPolicy
from patience import PATIENCE_S

UNITS_S = {"s": 1, "m": 60, "h": 3600}
NOTHING_MORE_S = 2.0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="nats")
    parser.add_argument("--context")
    commands = parser.add_subparsers(required=True)
    sub = commands.add_parser("sub")
    sub.add_argument("subject", nargs="?")
    sub.add_argument("--stream")
    sub.add_argument("--all", action="store_true")
    sub.add_argument("--start-sequence", type=int)
    sub.add_argument("--since")
    sub.add_argument("--last-per-subject", action="store_true")
    sub.add_argument("--terminate-at-end", action="store_true")
    sub.set_defaults(run=subscribe)
    req = commands.add_parser("req")
    req.add_argument("subject")
    req.add_argument("payload")
    req.set_defaults(run=request)
    return parser.parse_args()


def show(data: bytes, subject: str | None = None) -> None:
    if subject is not None:
        sys.stdout.write(f'Received on "{subject}"\n')
    sys.stdout.write(data.decode() + "\n")
    sys.stdout.flush()


async def request(client: nats.NATS, given: argparse.Namespace) -> None:
    reply = await client.request(given.subject, given.payload.encode(), timeout=PATIENCE_S)
    if reply.headers:
        raise SystemExit(f"{reply.headers}: {reply.data.decode()}")
    show(reply.data)


async def subscribe(client: nats.NATS, given: argparse.Namespace) -> None:
    if given.stream or given.all or given.start_sequence or given.since or given.last_per_subject:
        await replay(client, given)
        return
    subscription = await client.subscribe(given.subject)
    async for message in subscription.messages:
        show(message.data, message.subject)


async def replay(client: nats.NATS, given: argparse.Namespace) -> None:
    context = client.jetstream()
    stream = given.stream or await context.find_stream_name_by_subject(given.subject)
    [configured] = (await context.stream_info(stream)).config.subjects[:1]
    consumer = await context.pull_subscribe(given.subject or configured, stream=stream, config=start(given))
    left = (await consumer.consumer_info()).num_pending
    while left or not given.terminate_at_end:
        for message in await consumer.fetch(left or 1, timeout=NOTHING_MORE_S):
            show(message.data, message.subject)
            left -= 1


def start(given: argparse.Namespace) -> ConsumerConfig:
    if given.start_sequence:
        return ConsumerConfig(deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=given.start_sequence)
    if given.last_per_subject:
        return ConsumerConfig(deliver_policy=DeliverPolicy.LAST_PER_SUBJECT)
    if given.since:
        found = re.fullmatch(r"(\d+)([smh])", given.since)
        assert found, given.since
        begin = datetime.now(UTC) - timedelta(seconds=int(found[1]) * UNITS_S[found[2]])
        return ConsumerConfig(deliver_policy=DeliverPolicy.BY_START_TIME, opt_start_time=begin)
    return ConsumerConfig(deliver_policy=DeliverPolicy.ALL)


def options(context: str | None) -> dict[str, Any]:
    """Where NATS is and who logs in, as the tool finds it in a context and in NATS_PASSWORD."""
    if context is None:
        return {"servers": os.environ["NATS_URL"]}
    folder = Path(os.environ.get("XDG_CONFIG_HOME") or Path("~/.config").expanduser())
    told = json.loads((folder / "nats" / "context" / f"{context}.json").read_text())
    password = os.environ.get("NATS_PASSWORD") or told["password"]
    login = {"user": told["user"], "password": password, "inbox_prefix": told["inbox_prefix"]}
    return {"servers": told["url"], **login}


async def main() -> None:
    given = arguments()
    client = await nats.connect(**options(given.context))
    await given.run(client, given)
    await client.close()


asyncio.run(main())
