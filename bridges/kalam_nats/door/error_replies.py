"""Errors as replies: the headers that NATS's micro services use, and the problem object that HTTP sends."""

from __future__ import annotations

from collections.abc import Mapping

from kalam.errors import KalamError
from kalam.query.results import problem_json
from kalam_nats.broker.connection import BrokerConnection

ERROR_TEXT_MAX = 512
HEADER_BYTES = 4 << 10
"""Room for headers, which count against the broker's ``max_payload``."""


async def reply_error(connection: BrokerConnection, reply: str, error: KalamError) -> None:
    """Answer a request with an error."""
    headers = {"Nats-Service-Error": header_text(error.told), "Nats-Service-Error-Code": str(error.status)}
    await reply_whole(connection, reply, problem_json(error), headers)


async def reply_whole(
    connection: BrokerConnection, reply: str, body: bytes, headers: Mapping[str, str] | None = None
) -> None:
    """Answer with a body: as one message, or in numbered pieces that end with an empty message."""
    client = connection.client
    size = client.max_payload - HEADER_BYTES
    if len(body) <= size:
        await client.publish(reply, body, headers=dict(headers) if headers else None)
        return
    for number, start in enumerate(range(0, len(body), size), 1):
        part = {**(headers or {}), "Kalam-Part": str(number)}
        await client.publish(reply, body[start : start + size], headers=part)
    await client.publish(reply, b"")


def header_text(text: str) -> str:
    """A text as a header carries it: one line of visible ASCII, cut."""
    line = " ".join(text.split()).encode("ascii", "replace").decode()
    return "".join(char if " " <= char <= "~" else "?" for char in line)[:ERROR_TEXT_MAX]
