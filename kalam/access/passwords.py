"""Passwords: what one may be, and their argon2id hashes, which threads of their own compute.

Law: the event loop computes no hash, and a wrong password takes as long whether or not there is the user: where there
is no hash to verify against, one is that nobody has a password for.
"""

from __future__ import annotations

import base64
import os
from typing import Final

import argon2
from argon2.exceptions import InvalidHashError, VerificationError

from kalam.access.scram import Verifier, make_verifier
from kalam.access.secrets import is_token
from kalam.errors import InvalidValue
from kalam.threads import Purpose, in_thread

LENGTH_MIN, LENGTH_MAX = 8, 1_024
"""In characters."""
HASHER: Final = argon2.PasswordHasher(time_cost=2, memory_cost=19 * 1_024, parallelism=1)
"""19 MiB and two passes (https://cheatsheetseries.owasp.org/cheatsheets/Password_Storage_Cheat_Sheet.html): some 25 ms
of a processor, so that hundreds of clients that come back at once are let in within seconds."""


def check_password(password: str) -> str:
    """Return ``password`` if a user may have it; raise InvalidValue, which does not show it, otherwise.

    It is compared as given: nothing is trimmed, folded or brought into another form of Unicode.
    """
    if not LENGTH_MIN <= len(password) <= LENGTH_MAX:
        raise InvalidValue(
            f"a password has {LENGTH_MIN} to {LENGTH_MAX:,} characters, and this one has {len(password):,}"
        )
    if is_token(password):
        raise InvalidValue("a password cannot have the form of a token")
    return password


class Passwords:
    """Hashes and verifies passwords; tests hand in a cheaper ``hasher``. ``scram``: verifiers are kept besides."""

    def __init__(self, hasher: argon2.PasswordHasher = HASHER, *, scram: bool = True) -> None:
        self._hasher, self.scram = hasher, scram
        self._nobodys = _nobodys_hash(hasher)

    async def hash(self, password: str) -> str:
        """The hash to be kept, in argon2's encoded form; raises InvalidValue for what is no password."""
        return await in_thread(Purpose.PASSWORDS, self.hash_here, password)

    def hash_here(self, password: str) -> str:
        """The same in this thread, which it takes for a while."""
        return self._hasher.hash(_as_bytes(check_password(password)))

    async def verifier(self, secret: str, salt: bytes) -> Verifier | None:
        """What SCRAM keeps of a secret; None where SCRAM is off."""
        return await in_thread(Purpose.PASSWORDS, make_verifier, secret, salt) if self.scram else None

    async def verify(self, encoded: str | None, password: str) -> bool:
        """Whether ``encoded`` is the hash of the password; None, for somebody who has none, takes as long."""
        if len(password) > LENGTH_MAX:
            return False
        return await in_thread(Purpose.PASSWORDS, self._verify, encoded, password)

    def _verify(self, encoded: str | None, password: str) -> bool:
        try:
            return self._hasher.verify(encoded or self._nobodys, _as_bytes(password))
        except (VerificationError, InvalidHashError):
            return False


def _as_bytes(password: str) -> bytes:
    return password.encode("utf-8", "surrogatepass")


def _nobodys_hash(hasher: argon2.PasswordHasher) -> str:
    """What a hash of this cost looks like, with random bytes in its place: no password is known that it is of."""
    cost = f"m={hasher.memory_cost},t={hasher.time_cost},p={hasher.parallelism}"
    salt, digest = (base64.b64encode(os.urandom(size)).decode().rstrip("=") for size in (16, hasher.hash_len))
    return f"$argon2id$v=19${cost}${salt}${digest}"
