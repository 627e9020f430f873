"""Secrets that Kalam makes: tokens and sessions.

They are 256 random bits, so one SHA-256 is enough to keep: argon2 makes guessing expensive, and nobody guesses these.
What is kept is compared in a time that does not depend on where two hashes begin to differ.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from typing import Final

import msgspec

TOKEN, SESSION = "kalam", "session"
_FORM: Final = re.compile(r"([a-z]+)_([0-9a-f]{12})_[A-Za-z0-9_-]{43}")


class Made(msgspec.Struct, frozen=True):
    """A new secret: ``text`` is told once, ``id`` and ``hash`` are kept."""

    id: str
    text: str
    hash: bytes


def make_secret(kind: str = TOKEN) -> Made:
    """A secret of a kind, ``<kind>_<id>_<256 random bits>``."""
    id_ = secrets.token_hex(6)
    text = f"{kind}_{id_}_{secrets.token_urlsafe(32)}"
    return Made(id_, text, hash_of(text))


def id_of(text: str, kind: str = TOKEN) -> str | None:
    """The id in what has the form of a secret of this kind; None for everything else."""
    found = _FORM.fullmatch(text)
    return found[2] if found is not None and found[1] == kind else None


def is_token(text: str) -> bool:
    """Whether a text has the form of a token, and therefore is no password."""
    return id_of(text) is not None


def hash_of(text: str) -> bytes:
    """What is kept of a secret: its SHA-256."""
    return hashlib.sha256(text.encode()).digest()


def is_hash_of(kept: bytes, text: str) -> bool:
    """Whether this is what was kept of the secret."""
    return hmac.compare_digest(kept, hash_of(text))
