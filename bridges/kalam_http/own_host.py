"""Whether a request was meant for this server: its Host, and the Origin of the web page that sent it.

A page of another site can make a browser send requests to a server on the user's own machine, and with a name of its
own that resolves to 127.0.0.1 (DNS rebinding) it can even read the answers. Both fail here: the Host of every request
must be a name of this server with this server's port, and an Origin, which a browser always sends with a foreign page's
request that carries a body, must be this server itself.
"""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass

from kalam.errors import PermissionDenied

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
WILDCARDS = frozenset({"0.0.0.0", "::", ""})  # noqa: S104 - recognised here, bound to only if the user says so
_AUTHORITY = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^\s:@/\[\]]+))(?::([0-9]{1,5}))?")
_PORT_OF_SCHEME = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class OwnHost:
    """The names under which the server may be addressed."""

    names: frozenset[str]

    @classmethod
    def of(cls, http_host: str) -> OwnHost:
        """The names of a server bound to ``http_host``: loopback, that host, and for a wildcard the machine's."""
        configured = http_host.strip("[]").lower()
        machine = {socket.gethostname().lower()} if configured in WILDCARDS else set()
        return cls(LOOPBACK_NAMES | {configured} | machine)

    def check(self, hosts: list[str], origin: str | None, address: str, port: int) -> None:
        """Raise PermissionDenied unless the request is addressed to the server and comes from no foreign page.

        ``hosts`` are all Host headers of the request; ``address`` and ``port`` are the server's end of its connection.
        """
        if len(hosts) != 1 or not self._is_own(hosts[0], "http", address, port):
            raise PermissionDenied(
                f"Host {', '.join(hosts)[:200]!r} is not this server",
                hint=f"address the server as localhost:{port} or by the host that it is configured to listen on",
            )
        if origin is None:
            return
        scheme, separator, authority = origin.partition("://")
        if not separator or not self._is_own(authority, scheme, address, port):
            raise PermissionDenied(f"a web page of {origin[:200]!r} may not use this server")

    def _is_own(self, authority: str, scheme: str, address: str, port: int) -> bool:
        found = _AUTHORITY.fullmatch(authority.lower())
        if found is None:
            return False
        name = found[1] or found[2]
        named_port = int(found[3]) if found[3] else _PORT_OF_SCHEME.get(scheme)
        return named_port == port and (name in self.names or name == address)
