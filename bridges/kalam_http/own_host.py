"""Whether a request was meant for this server: its Host, and the Origin of the web page that sent it.

A page of another site can make a browser send requests to a server on the user's own machine, and with a name of its
own that resolves to 127.0.0.1 (DNS rebinding) it can even read the answers. Both fail here: the Host of every request
must be a name of this server with this server's port, or one that is allowed, and an Origin, which a browser always
sends with a foreign page's request that carries a body, must be this server itself, or one that is allowed.
"""

from __future__ import annotations

import re
import socket

import msgspec

from kalam.errors import PermissionDenied
from kalam.settings import Settings

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
WILDCARDS = frozenset({"0.0.0.0", "::", ""})  # noqa: S104 - recognised here, bound to only if the user says so
ANY = "*"
_AUTHORITY = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^\s:@/\[\]]+))(?::([0-9]{1,5}))?")
_PORT_OF_SCHEME = {"http": 80, "https": 443}


class OwnHost(msgspec.Struct, frozen=True):
    """The names under which the server may be addressed, each with its own port only.

    ``allowed`` are further ones, with or without a port, as a reverse proxy passes them on; ``*.`` stands for any part
    before a name and ``*`` alone for any name. ``origins`` are the sites whose pages may use the server.
    """

    names: frozenset[str]
    allowed: frozenset[str] = frozenset()
    origins: frozenset[str] = frozenset()

    @classmethod
    def of(cls, settings: Settings) -> OwnHost:
        """The names of a server: loopback, the host it is bound to, for a wildcard the machine's, and those allowed."""
        configured = settings.http_host.strip("[]").lower()
        machine = {socket.gethostname().lower()} if configured in WILDCARDS else set()
        allowed = frozenset(map(str.lower, settings.allowed_hosts))
        return cls(LOOPBACK_NAMES | {configured} | machine, allowed, frozenset(settings.cors_origins))

    def check(self, hosts: list[str], origin: str | None, address: str, port: int, *, scheme: str = "http") -> None:
        """Raise PermissionDenied unless the request is addressed to the server and comes from no foreign page.

        ``hosts`` are all Host headers of the request; ``address`` and ``port`` are the server's end of its connection,
        ``scheme`` is how the client reached the server.
        """
        if len(hosts) != 1 or not self._is_own(hosts[0], scheme, address, port):
            raise PermissionDenied(
                f"Host {', '.join(hosts)[:200]!r} is not this server",
                hint=f"address the server as localhost:{port} or by the host that it is configured to listen on, "
                "or name the host, as a reverse proxy passes it on, in the server's setting allowed_hosts",
            )
        if origin is None or origin in self.origins or ANY in self.origins:
            return
        of_page, separator, authority = origin.partition("://")
        if not separator or not self._is_own(authority, of_page, address, port):
            raise PermissionDenied(
                f"a web page of {origin[:200]!r} may not use this server",
                hint="name the origin in the server's setting cors_origins if it may",
            )

    def _is_own(self, authority: str, scheme: str, address: str, port: int) -> bool:
        found = _AUTHORITY.fullmatch(authority.lower())
        if found is None:
            return False
        name = found[1] or found[2]
        named_port = int(found[3]) if found[3] else _PORT_OF_SCHEME.get(scheme)
        own = named_port == port and (name in self.names or name == address)
        return own or (bool(self.allowed) and self._is_allowed(name, found[3]))

    def _is_allowed(self, name: str, port: str | None) -> bool:
        """Whether a name stands in ``allowed``: by itself, with its port, or below one that begins with ``*.``."""
        labels = name.split(".")
        wanted = {ANY, name, *(".".join(["*", *labels[place:]]) for place in range(1, len(labels)))}
        return not self.allowed.isdisjoint(wanted | {f"{one}:{port}" for one in wanted if port})
