"""What tests do with streams of others: fill them, read the table over them, take a backup and put it back."""

from __future__ import annotations

import json
from typing import Any

from nats.aio.client import Client
from nats.js import JetStreamContext
from patience import PATIENCE_S
from server_process import ServerProcess

CHUNK_BYTES = 64 << 10


async def publish(js: JetStreamContext, subject: str, ids: range) -> None:
    for number in ids:
        await js.publish(subject, json.dumps({"id": number}).encode())


def ids(server: ServerProcess, table: str, where: str = "") -> list[int]:
    return [row[0] for row in server.sql(f"SELECT id FROM {table} {where}")]


async def snapshot(client: Client, stream: str) -> tuple[dict[str, Any], list[bytes]]:
    """A backup of a stream, as the `nats` command line takes one: what it is, and its parts."""
    inbox = client.new_inbox()
    listening = await client.subscribe(inbox)
    request = {"deliver_subject": inbox, "no_consumers": True, "chunk_size": CHUNK_BYTES}
    reply = await client.request(f"$JS.API.STREAM.SNAPSHOT.{stream}", json.dumps(request).encode(), PATIENCE_S)
    parts: list[bytes] = []
    while (part := await listening.next_msg(PATIENCE_S)).data:
        parts.append(part.data)
        if part.reply:
            await part.respond(b"")
    await listening.unsubscribe()
    return json.loads(reply.data), parts


async def restore(client: Client, stream: str, backup: tuple[dict[str, Any], list[bytes]]) -> None:
    """Put a backup back as a stream."""
    about, parts = backup
    request = json.dumps({"config": about["config"], "state": about["state"]}).encode()
    reply = await client.request(f"$JS.API.STREAM.RESTORE.{stream}", request, PATIENCE_S)
    subject = json.loads(reply.data)["deliver_subject"]
    for part in (*parts, b""):
        answer = await client.request(subject, part, PATIENCE_S)
    assert "error" not in json.loads(answer.data), answer.data
