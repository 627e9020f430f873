"""NATS's keys and tokens, as far as an auth callout needs them.

An nkey is an Ed25519 key pair whose text begins with a letter for its use: ``A`` an account, ``U`` a user, ``N`` a
server, ``X`` a Curve25519 key for sealed messages; its seed begins with ``S`` and that letter. A token is a JWT with
the header ``{"typ": "JWT", "alg": "ed25519-nkey"}``; its ``jti`` is a hash of its claims. A sealed message is ``xkv1``,
a nonce and a box of NaCl. The formats are those of NATS's libraries ``nkeys`` and ``jwt`` (ADR-14, ADR-26); the
packages that make tokens for Python call themselves untested, and a callout needs three kinds of them.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import time
from typing import Any, Final

import msgspec
import nkeys
from nacl.bindings import crypto_sign_BYTES
from nacl.exceptions import BadSignatureError, CryptoError
from nacl.public import Box, PrivateKey, PublicKey
from nacl.signing import SigningKey, VerifyKey

ACCOUNT: Final = 0
USER: Final = 20 << 3
SERVER: Final = 13 << 3
CURVE: Final = 23 << 3
_SEED: Final = 18 << 3
_KEY_BYTES: Final = 32

REQUEST_AUDIENCE: Final = "nats-authorization-request"
SEAL: Final = b"xkv1"
_HEADER: Final = {"typ": "JWT", "alg": "ed25519-nkey"}


class Unreadable(ValueError):
    """What came is no key, no token, or was not signed or sealed by whom it names."""


class SigningPair:
    """An Ed25519 key pair of one use; ``seed`` is the text from which it is made again, and a secret."""

    def __init__(self, seed: str) -> None:
        prefix, raw = _decode_seed(seed)
        self.seed = seed
        self._key = SigningKey(raw)
        self.public = _encode(bytes([prefix]), bytes(self._key.verify_key))

    @classmethod
    def new(cls, prefix: int) -> SigningPair:
        """A new random pair; ``prefix`` is ``ACCOUNT`` or ``USER``."""
        return cls(new_seed(prefix))

    def sign(self, data: bytes) -> bytes:
        """The signature, 64 bytes."""
        return bytes(self._key.sign(data).signature)


class SealingPair:
    """A Curve25519 key pair, with which the broker and the callout seal what they say to each other."""

    def __init__(self, seed: str) -> None:
        prefix, raw = _decode_seed(seed)
        if prefix != CURVE:
            raise Unreadable("the key for sealed messages is of another use")
        self.seed = seed
        self._key = PrivateKey(raw)
        self.public = _encode(bytes([CURVE]), bytes(self._key.public_key))

    @classmethod
    def new(cls) -> SealingPair:
        """A new random pair."""
        return cls(new_seed(CURVE))

    def open(self, sealed: bytes, sender: str) -> bytes:
        """What ``sender`` (a public ``X…`` key) sealed for this pair; raises Unreadable if it is anything else."""
        if not sealed.startswith(SEAL):
            raise Unreadable("the message is not sealed")
        box = Box(self._key, PublicKey(_decode_public(sender, CURVE)))
        try:
            return bytes(box.decrypt(sealed[len(SEAL) :]))
        except (CryptoError, ValueError) as exc:
            raise Unreadable("the message was not sealed for this key") from exc

    def seal(self, message: bytes, recipient: str) -> bytes:
        """``message`` as only ``recipient`` (a public ``X…`` key) can read it."""
        return SEAL + bytes(Box(self._key, PublicKey(_decode_public(recipient, CURVE))).encrypt(message))


class ClientInfo(msgspec.Struct, frozen=True):
    """What the broker knows of a connection: its address, id, kind (``Client``, ``Leafnode``) and type."""

    host: str = ""
    id: int = 0
    kind: str = ""
    type: str = ""
    mqtt_id: str = ""
    nonce: str = ""


class ConnectOptions(msgspec.Struct, frozen=True):
    """What a client said of itself; each member is the client's own word."""

    jwt: str = ""
    nkey: str = ""
    sig: str = ""
    auth_token: str = ""
    user: str = ""
    password: str = msgspec.field(default="", name="pass")
    name: str = ""

    def __repr__(self) -> str:
        return f"ConnectOptions(user={self.user!r})"  # secrets stay out of logs


class Server(msgspec.Struct, frozen=True):
    """The server that asks."""

    id: str
    name: str = ""


class AuthorizationRequest(msgspec.Struct, frozen=True):
    """The question of a broker whether a connection may log in; ``user_nkey`` names the connection in the answer."""

    server_id: Server
    user_nkey: str
    client_info: ClientInfo
    connect_opts: ConnectOptions


class _RequestClaims(msgspec.Struct, frozen=True):
    iss: str
    aud: str
    jti: str
    nats: AuthorizationRequest
    exp: int = 0


class Asked(msgspec.Struct, frozen=True):
    """An authorization request that its server signed; ``jti`` is the token's id, ``expires_at`` in Unix seconds."""

    jti: str
    expires_at: int
    request: AuthorizationRequest


def read_request(token: bytes) -> Asked:
    """The request in a token; raises Unreadable unless the server that it names has signed it."""
    claims = _verified(token, SERVER)
    if claims.aud != REQUEST_AUDIENCE:
        raise Unreadable("the token is no authorization request")
    if claims.iss != claims.nats.server_id.id:
        raise Unreadable("the request was signed by another server than it names")
    return Asked(claims.jti, claims.exp, claims.nats)


def user_token(
    issuer: SigningPair,
    *,
    connection: str,
    name: str,
    account: str,
    publish: dict[str, list[str]],
    subscribe: dict[str, list[str]],
    expires_at: int | None = None,
) -> str:
    """The token of a connection that may log in.

    Args:
        issuer: the account's key that the broker's configuration names.
        connection: the request's ``user_nkey``.
        name: under which the connection is listed.
        account: the account that it comes into.
        publish: ``{"allow": […], "deny": […]}``; an empty allow list would allow everything.
        subscribe: the same.
        expires_at: Unix seconds at which the broker ends the connection; None for never.
    """
    if not (publish.get("allow") and subscribe.get("allow")):
        raise ValueError("the broker takes an empty list for a permission to do everything")
    nats = {"pub": publish, "sub": subscribe, "subs": -1, "data": -1, "payload": -1, "type": "user", "version": 2}
    claims = {"iss": issuer.public, "sub": connection, "aud": account, "name": name, "nats": nats}
    return _signed(issuer, claims if expires_at is None else claims | {"exp": expires_at})


def response_token(issuer: SigningPair, asked: AuthorizationRequest, *, token: str = "", error: str = "") -> str:
    """The answer to a request: a user's token, or why there is none (which the broker logs and tells nobody)."""
    nats = {"jwt": token, "error": error, "type": "authorization_response", "version": 2}
    kept = {name: value for name, value in nats.items() if value}
    return _signed(issuer, {"iss": issuer.public, "sub": asked.user_nkey, "aud": asked.server_id.id, "nats": kept})


def new_seed(prefix: int) -> str:
    """The seed of a new random pair of that use."""
    return _encode(bytes([_SEED | prefix >> 5, (prefix & 31) << 3]), os.urandom(_KEY_BYTES))


def _signed(issuer: SigningPair, claims: dict[str, Any]) -> str:
    claims = claims | {"iat": int(time.time())}
    digest = hashlib.sha256(msgspec.json.encode(claims)).digest()
    claims["jti"] = base64.b32encode(digest).rstrip(b"=").decode()
    signed = f"{_base64url(msgspec.json.encode(_HEADER))}.{_base64url(msgspec.json.encode(claims))}"
    return f"{signed}.{_base64url(issuer.sign(signed.encode()))}"


_CLAIMS: Final = msgspec.json.Decoder(_RequestClaims)
_HEADERS: Final = msgspec.json.Decoder(dict[str, str])


def _verified(token: bytes, prefix: int) -> _RequestClaims:
    try:
        header, body, signature = token.split(b".")
        if _HEADERS.decode(_from_base64url(header)) != _HEADER:
            raise Unreadable("the token is signed in another way")
        claims = _CLAIMS.decode(_from_base64url(body))
        raw = _from_base64url(signature)
        if len(raw) != crypto_sign_BYTES:
            raise Unreadable("the signature has another length")
        VerifyKey(_decode_public(claims.iss, prefix)).verify(header + b"." + body, raw)
    except (ValueError, msgspec.MsgspecError, BadSignatureError) as exc:
        raise Unreadable(f"the token cannot be read: {exc}") from exc
    return claims


def _encode(prefix: bytes, raw: bytes) -> str:
    body = prefix + raw
    checksum = nkeys.crc16(bytearray(body)).to_bytes(2, "little")
    return base64.b32encode(body + checksum).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    try:
        whole = base64.b32decode(text + "=" * (-len(text) % 8))
    except (binascii.Error, ValueError) as exc:
        raise Unreadable("the key is not in base32") from exc
    body, checksum = whole[:-2], whole[-2:]
    if nkeys.crc16(bytearray(body)).to_bytes(2, "little") != checksum:
        raise Unreadable("the key has a wrong checksum")
    return body


def _decode_public(text: str, prefix: int) -> bytes:
    body = _decode(text)
    if len(body) != 1 + _KEY_BYTES or body[0] != prefix:
        raise Unreadable("the public key is of another use")
    return body[1:]


def _decode_seed(text: str) -> tuple[int, bytes]:
    body = _decode(text.strip())
    if len(body) != 2 + _KEY_BYTES or body[0] & 248 != _SEED:
        raise Unreadable("the text is no seed")
    return (body[0] & 7) << 5 | body[1] >> 3, body[2:]


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _from_base64url(data: bytes) -> bytes:
    return base64.b64decode(data + b"=" * (-len(data) % 4), b"-_", validate=True)
