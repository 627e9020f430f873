"""A NATS client that costs little: what is sent was framed before the clock started."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final
from urllib.parse import urlsplit

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import DeliverPolicy

PENDING_MESSAGES_MAX: Final = 1 << 20
PENDING_BYTES_MAX: Final = 1 << 30


class FrameClient(Client):
    """nats-py's client with a way to send commands as they go over the wire."""

    async def listen(self, subject: str, callback: Callable[[Msg], Awaitable[None]]) -> None:
        """Subscribe with room for all that may come while the callback is busy."""
        await self.subscribe(
            subject, cb=callback, pending_msgs_limit=PENDING_MESSAGES_MAX, pending_bytes_limit=PENDING_BYTES_MAX
        )

    async def consume(self, subject: str, callback: Callable[[Msg], Awaitable[None]]) -> None:
        """Subscribe by an ordered consumer of JetStream, from the next message on, with as much room."""
        await self.jetstream().subscribe(
            subject,
            cb=callback,
            ordered_consumer=True,
            deliver_policy=DeliverPolicy.NEW,
            pending_msgs_limit=PENDING_MESSAGES_MAX,
            pending_bytes_limit=PENDING_BYTES_MAX,
        )

    async def write(self, frames: bytes) -> None:
        """Send whole commands, as ``frame`` makes them."""
        await self._send_command(frames)
        if self._flush_queue is not None and self._flush_queue.empty():
            await self._flush_pending()


async def connect(url: str, name: str) -> FrameClient:
    """Connect once, as the user whom the URL names; a bench that loses its connection has failed."""
    client = FrameClient()
    user = urlsplit(url).username
    inbox: dict[str, Any] = {} if user is None else {"inbox_prefix": f"_INBOX.{user}"}
    await client.connect(servers=[url], name=f"kalam bench {name}", allow_reconnect=False, **inbox)
    return client


def frame(subject: str, payload: bytes, reply: str = "") -> bytes:
    """One message as the command that publishes it."""
    return f"PUB {subject} {reply} {len(payload)}\r\n".encode() + payload + b"\r\n"


def typed_frame(subject: str, payload: bytes, content_type: str, reply: str = "") -> bytes:
    """One message that says in a header what its payload is."""
    header = f"NATS/1.0\r\nContent-Type: {content_type}\r\n\r\n".encode()
    sizes = f"{len(header)} {len(header) + len(payload)}"
    return f"HPUB {subject} {reply} {sizes}\r\n".encode() + header + payload + b"\r\n"
