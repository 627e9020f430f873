"""Reverse proxies that are believed: who asks through them, by which scheme, and under which name.

Law: of ``X-Forwarded-For`` the last address that is no trusted proxy's counts, because everything before it may be the
client's own invention; of ``X-Forwarded-Proto`` and ``X-Forwarded-Host`` the last value, which the nearest proxy wrote.
From anybody else these headers mean nothing.
"""

from __future__ import annotations

from collections import Counter as Tally
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from starlette.types import Scope

from kalam.errors import TooBusy
from kalam.settings import Settings

FOR, PROTO, HOST = b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host"


class Proxies:
    """The proxies of ``networks``, and how many requests each address has open through them.

    One connection of a proxy carries the requests of many clients, so what bounds the connections of an address bounds
    the requests of one behind it.
    """

    def __init__(self, networks: tuple[IPv4Network | IPv6Network, ...], per_address_max: int) -> None:
        self._networks, self._per_address_max = networks, per_address_max
        self._open: Tally[str] = Tally()
        self.trusts = lru_cache(1024)(self._trusts)

    @classmethod
    def of(cls, settings: Settings) -> Proxies:
        """Those that are set."""
        networks = tuple(ip_network(each, strict=False) for each in settings.trusted_proxies)
        return cls(networks, settings.http_connections_per_address_max)

    def _trusts(self, address: str) -> bool:
        """Whether an address is a trusted proxy's."""
        parsed = _parsed(address)
        return parsed is not None and any(parsed in network for network in self._networks)

    def enter(self, scope: Scope) -> str | None:
        """Have the scope of a request that came through a proxy say what the proxy saw; raises TooBusy.

        ``client``, ``scheme`` and the Host are replaced. Returns the client's address, which is to ``leave``; None for
        a request that came by itself.
        """
        if not self._networks or scope["client"] is None or not self.trusts(scope["client"][0]):
            return None
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        told = {name: b",".join(value for found, value in headers if found == name) for name in (FOR, PROTO, HOST)}
        address = self._client(scope["client"][0], told[FOR].decode("latin-1"))
        scope["client"] = (address, 0)
        if proto := _last(told[PROTO]).lower():
            scope["scheme"] = "https" if proto == b"https" else "http"
        if host := _last(told[HOST]):
            scope["headers"] = [(b"host", host), *(header for header in headers if header[0] != b"host")]
        if self._open[address] >= self._per_address_max:
            raise TooBusy(
                f"{address} has {self._per_address_max:,} requests open (setting http_connections_per_address_max)"
            )
        self._open[address] += 1
        return address

    def leave(self, address: str) -> None:
        """A request that had entered is answered."""
        self._open[address] -= 1
        if not self._open[address]:
            del self._open[address]

    def _client(self, peer: str, forwarded: str) -> str:
        for part in reversed(forwarded.split(",")):
            parsed = _parsed(_without_port(part.strip()))
            if parsed is None:
                return peer
            peer = str(parsed)
            if not self.trusts(peer):
                return peer
        return peer


@lru_cache(1024)
def _parsed(address: str) -> IPv4Address | IPv6Address | None:
    """An address; one of IPv4 in IPv6's clothes, as a listener on every address sees it, as what it is."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return None
    return getattr(parsed, "ipv4_mapped", None) or parsed


def _without_port(text: str) -> str:
    """The address of ``1.2.3.4:80`` and ``[::1]:80``."""
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0] if text.count(":") == 1 else text


def _last(value: bytes) -> bytes:
    return value.rpartition(b",")[2].strip()
