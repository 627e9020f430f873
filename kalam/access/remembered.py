"""Logins that were proven a moment ago, so that who comes back with the same secret costs no second hash.

What is remembered is a keyed hash of user and secret, with a key that is new for each process: memory that leaks has
no secret in it, and nothing to try passwords against. Each use remembers it for another minute, so that a client that
asks all the time is held up by nobody's failures. Whether a login still stands is for the caller to say.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import msgspec

from kalam.access.login import Login

REMEMBERED_S: Final = 60.0
REMEMBERED_MAX: Final = 10_000
ADDRESSES_MAX: Final = 16
"""From so many addresses a secret may be used without a word in the audit between them."""


class _Proof(msgspec.Struct):
    login: Login
    until: float
    addresses: set[str]


class Remembered:
    """The logins of the last minute by their secrets; ``clock`` gives seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._proofs: OrderedDict[bytes, _Proof] = OrderedDict()

    def digest(self, user: str | None, secret: str) -> bytes:
        """By what a secret is remembered; a name has no NUL, so no two pairs are alike."""
        text = f"{'' if user is None else user}\0{secret}"
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), key=self._key, digest_size=32).digest()

    def find(self, digest: bytes, address: str | None = None) -> Login | None:
        """The login that a secret proved within the last minute, from this address too, if one is named."""
        proof = self._proofs.get(digest)
        if proof is None:
            return None
        now = self._clock()
        if now >= proof.until:
            del self._proofs[digest]
            return None
        if address is not None and address not in proof.addresses:
            return None
        proof.until = now + REMEMBERED_S
        self._proofs.move_to_end(digest)
        return proof.login

    def put(self, digest: bytes, login: Login, address: str) -> None:
        """Remember a login."""
        former = self._proofs.pop(digest, None)
        addresses = former.addresses if former and len(former.addresses) < ADDRESSES_MAX else set()
        self._proofs[digest] = _Proof(login, self._clock() + REMEMBERED_S, addresses | {address})
        if len(self._proofs) > REMEMBERED_MAX:
            self._proofs.popitem(last=False)

    def forget(self, ended: Callable[[Login], bool]) -> None:
        """Forget the logins that have ended."""
        for digest in [digest for digest, proof in self._proofs.items() if ended(proof.login)]:
            del self._proofs[digest]
