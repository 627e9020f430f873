"""SCRAM-SHA-256 (RFC 5802, RFC 7677): what is kept of a secret, and the proof that somebody knows it.

Pure. A verifier lets nobody log in who has stolen it, and cannot be made from an argon2 hash: it is made when a secret
is set. All verifiers of a user have one salt and one count of iterations, so that a proof can be tried against each
before it is known which of the secrets was meant.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import stringprep
import unicodedata
from typing import Final

import msgspec

ITERATIONS: Final = 50_000
SALT_BYTES: Final = 16
MECHANISM: Final = "SCRAM-SHA-256"
_FORBIDDEN: Final = (
    *(stringprep.in_table_c12, stringprep.in_table_c21_c22, stringprep.in_table_c3, stringprep.in_table_c4),
    *(stringprep.in_table_c5, stringprep.in_table_c6, stringprep.in_table_c7, stringprep.in_table_c8),
    *(stringprep.in_table_c9, stringprep.in_table_a1),
)


class Verifier(msgspec.Struct, frozen=True):
    """What is kept of a secret."""

    salt: bytes
    iterations: int
    stored_key: bytes
    server_key: bytes


class BadExchange(Exception):
    """The client's messages are no SCRAM."""


def new_salt() -> bytes:
    """A salt for a user who has none."""
    return secrets.token_bytes(SALT_BYTES)


def derived_salt(secret: bytes, name: str) -> bytes:
    """The salt of a name that nobody has: the same whenever it is asked for, and unknown to whoever asks."""
    return hmac.digest(secret, name.encode("utf-8", "surrogatepass"), "sha256")[:SALT_BYTES]


def make_verifier(secret: str, salt: bytes, iterations: int = ITERATIONS) -> Verifier:
    """What is to be kept of a secret; takes some milliseconds."""
    salted = hashlib.pbkdf2_hmac("sha256", saslprep(secret).encode("utf-8", "surrogatepass"), salt, iterations)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    return Verifier(salt, iterations, hashlib.sha256(client_key).digest(), hmac.digest(salted, b"Server Key", "sha256"))


def saslprep(text: str) -> str:
    """A secret in the form that it is compared in (RFC 4013); one that has none is as it is, as for PostgreSQL."""
    mapped = "".join(
        " " if stringprep.in_table_c12(each) else each for each in text if not stringprep.in_table_b1(each)
    )
    prepared = unicodedata.ucd_3_2_0.normalize("NFKC", mapped)
    if not prepared or any(test(each) for each in prepared for test in _FORBIDDEN):
        return text
    right_to_left = [stringprep.in_table_d1(each) for each in prepared]
    if any(right_to_left) and (
        any(stringprep.in_table_d2(each) for each in prepared) or not (right_to_left[0] and right_to_left[-1])
    ):
        return text
    return prepared


class Exchange:
    """The messages of one login. Raises BadExchange."""

    def __init__(self, client_first: str, salt: bytes, iterations: int) -> None:
        head, separator, bare = client_first.partition(",,")
        if not separator or head not in ("n", "y"):
            raise BadExchange("channel binding is not offered")
        self._head = base64.b64encode(f"{head},,".encode()).decode()
        fields = _fields(bare)
        nonce = fields.get("r", "")
        if "m" in fields or not nonce or not nonce.isascii():
            raise BadExchange("the client's first message has no nonce, or an extension that is not known")
        self._nonce = nonce + base64.b64encode(secrets.token_bytes(18)).decode()
        self._bare = bare
        self.first = f"r={self._nonce},s={base64.b64encode(salt).decode()},i={iterations}"

    def proof(self, client_final: str) -> Proof:
        """The client's proof, in its last message."""
        without, separator, encoded = client_final.rpartition(",p=")
        fields = _fields(without)
        if not separator or fields.get("c") != self._head or fields.get("r") != self._nonce:
            raise BadExchange("the client's last message does not belong to its first")
        try:
            proof = base64.b64decode(encoded, validate=True)
        except ValueError:
            raise BadExchange("the proof is no base64") from None
        if len(proof) != hashlib.sha256().digest_size:
            raise BadExchange("the proof has another length")
        return Proof(f"{self._bare},{self.first},{without}".encode(), proof)


class Proof(msgspec.Struct, frozen=True):
    """What a client says of a secret that it knows."""

    said: bytes
    proof: bytes

    def is_of(self, verifier: Verifier) -> bool:
        """Whether it is of this secret."""
        signature = hmac.digest(verifier.stored_key, self.said, "sha256")
        client_key = bytes(mine ^ theirs for mine, theirs in zip(signature, self.proof, strict=True))
        return hmac.compare_digest(hashlib.sha256(client_key).digest(), verifier.stored_key)

    def answer(self, verifier: Verifier) -> str:
        """What shows the client that the server knows it too."""
        signature = hmac.digest(verifier.server_key, self.said, "sha256")
        return f"v={base64.b64encode(signature).decode()}"


def _fields(message: str) -> dict[str, str]:
    return {part[:1]: part[2:] for part in message.split(",") if part[1:2] == "="}
