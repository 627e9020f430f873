"""A socket that listens, and the URL under which it is found; the same for every door of a server."""

from __future__ import annotations

import socket
from typing import Final

from kalam.errors import InvalidOption

WILDCARDS: Final = frozenset({"0.0.0.0", "::", "*", ""})  # noqa: S104 - compared, not bound


def listening_socket(host: str, port: int, backlog: int, door: str, prefix: str) -> socket.socket:
    """A socket that listens on an address. ``prefix`` is that of the door's settings, as ``http``.

    Raises InvalidOption for what is no address of this machine, and for a port that cannot be had.
    """
    bare = host.strip("[]")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            bare or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as exc:
        raise InvalidOption(f"{prefix}_host {host!r} is no address of this machine: {exc}") from exc
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(backlog)
    except OSError as exc:
        listener.close()
        raise InvalidOption(
            f"cannot listen for {door} on {host}:{port}: {exc.strerror}", hint=f"--{prefix}-port 0 takes a free port"
        ) from exc
    return listener


def url_of(scheme: str, host: str, port: int) -> str:
    """Where a listener is found from this machine."""
    name = host.strip("[]")
    name = "127.0.0.1" if name in WILDCARDS else name
    return f"{scheme}://[{name}]:{port}" if ":" in name else f"{scheme}://{name}:{port}"
