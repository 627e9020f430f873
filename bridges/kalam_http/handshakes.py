"""HTTPS: connections are accepted here, counted, and handed to their protocol when the handshake is done.

asyncio's own server would begin any number of handshakes and tell of a connection only afterwards, so that who never
finishes one would be bounded by nothing. Law: a connection counts from when it is accepted, and has ``http_request_s``
for its handshake.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import Any

from kalam.errors import TooBusy
from kalam_http.connections import Connections

PAUSE_S = 0.1
"""How long to wait where the machine has no file for another connection."""


class Handshakes:
    """Accepts connections until it is closed; has the two methods by which uvicorn ends a server."""

    def __init__(
        self,
        listener: socket.socket,
        context: ssl.SSLContext,
        connections: Connections,
        make: Callable[[], asyncio.Protocol],
    ) -> None:
        listener.setblocking(False)
        self._listener, self._context, self._connections, self._make = listener, context, connections, make
        self._begun: set[asyncio.Task[None]] = set()
        self._accepting = asyncio.get_running_loop().create_task(self._accept(), name="https")

    def close(self) -> None:
        """Take no more connections, and give up those that are not there yet."""
        for task in (self._accepting, *self._begun):
            task.cancel()

    async def wait_closed(self) -> None:
        """Wait until nothing is under way."""
        await asyncio.wait([self._accepting, *self._begun])

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, address = await loop.sock_accept(self._listener)
            except OSError:  # too many open files, or a client that was gone before it came
                await asyncio.sleep(PAUSE_S)
                continue
            task = loop.create_task(self._begin(connection, address), name="TLS handshake")
            self._begun.add(task)
            task.add_done_callback(self._begun.discard)

    async def _begin(self, connection: socket.socket, address: Any) -> None:
        try:
            with self._connections.handshake(str(address[0])):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                # Without a socket that is a connection there is nobody to be told what went wrong.
                with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                    await asyncio.get_running_loop().connect_accepted_socket(
                        self._make, connection, ssl=self._context, ssl_handshake_timeout=self._connections.request_s
                    )
                    return
        except TooBusy:
            pass  # counted, and logged now and then
        connection.close()
