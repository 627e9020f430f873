"""How long somebody has to wait after failed logins: by user, and by address.

Pure: each call is told the time. A failure counts for 15 minutes. The fifth of a user begins a pause of a second, each
further one doubles it, up to a minute; at an address it is the fiftieth, whoever was meant, so that one who mistypes
keeps nobody else there from their work. Memory is bounded: what failed longest ago is forgotten first.
"""

from __future__ import annotations

from collections import OrderedDict
from ipaddress import IPv6Address, ip_address
from typing import Final

PAUSE_S_MAX: Final = 60.0
WINDOW_S: Final = 900.0
USER_FREE, ADDRESS_FREE = 4, 49
"""Failures that begin no pause."""
KEYS_MAX: Final = 10_000
SUBNET_BITS: Final = 64
"""Of an IPv6 address: who has one has all of its network."""


def pause_s(failures: int, free: int) -> float:
    """How long nothing is tried after so many failures, of which some are free, in seconds."""
    over = failures - free
    return 0.0 if over <= 0 else min(PAUSE_S_MAX, 2.0 ** min(over - 1, 6))


class Failures:
    """The failures of one kind of key within the last 15 minutes, no more of each than count."""

    def __init__(self, free: int, keys_max: int = KEYS_MAX) -> None:
        self._free, self._keys_max = free, keys_max
        self._times: OrderedDict[str, list[float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._times)

    def wait_s(self, key: str, now: float) -> float:
        """How long from now on nothing is tried for a key, in seconds."""
        times = self._recent(key, now)
        return max(0.0, times[-1] + pause_s(len(times), self._free) - now) if times else 0.0

    def add(self, key: str, now: float) -> None:
        """Count one more."""
        self._times[key] = [*self._recent(key, now), now][-(self._free + 8) :]
        self._times.move_to_end(key)
        if len(self._times) > self._keys_max:
            self._times.popitem(last=False)

    def forget(self, key: str) -> None:
        """Begin anew."""
        self._times.pop(key, None)

    def _recent(self, key: str, now: float) -> list[float]:
        return [time for time in self._times.get(key, ()) if time > now - WINDOW_S]


class Throttle:
    """Holds logins up. ``subject`` is whom a login is for: a user, or the token that it names; None for neither."""

    def __init__(self) -> None:
        self._subjects, self._addresses = Failures(USER_FREE), Failures(ADDRESS_FREE)

    def wait_s(self, now: float, subject: str | None, address: str) -> float:
        """How long a login has to wait, in seconds; 0.0 for one that may be tried."""
        by_subject = 0.0 if subject is None else self._subjects.wait_s(subject, now)
        return max(by_subject, self._addresses.wait_s(network(address), now))

    def failed(self, now: float, subject: str | None, address: str) -> float:
        """Count a failed login; how long the next has to wait, in seconds."""
        if subject is not None:
            self._subjects.add(subject, now)
        self._addresses.add(network(address), now)
        return self.wait_s(now, subject, address)

    def succeeded(self, subject: str) -> None:
        """Forget whose login has succeeded; an address does not, or one good login there would free all guessing."""
        self._subjects.forget(subject)


def network(address: str) -> str:
    """What counts as one address: an IPv4 address, or the /64 of an IPv6 address."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if isinstance(found, IPv6Address):
        found = found.ipv4_mapped or IPv6Address(int(found) >> SUBNET_BITS << SUBNET_BITS)
    return str(found)
