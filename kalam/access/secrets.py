"""Secrets that Kalam makes: tokens, sessions, and the keys that the server keeps for itself.

They are 256 random bits, so one SHA-256 is enough to keep: argon2 makes guessing expensive, and nobody guesses these.
What is kept is compared in a time that does not depend on where two hashes begin to differ.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import stat
from pathlib import Path
from typing import Final

import msgspec

from kalam.errors import StorageFull, Unavailable
from kalam.storage.log.database import fsync_directory

TOKEN, SESSION = "kalam", "session"
_FORM: Final = re.compile(r"([a-z]+)_([0-9a-f]{12})_[A-Za-z0-9_-]{43}")
KEY_BYTES: Final = 32


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


def kept_key(path: Path) -> bytes:
    """A random key of 32 bytes that lies in a file which only the server's user can read, made if it is not there.

    Raises Unavailable for a file that others can read, or that is none of ours.
    """
    try:
        return _read_key(path)
    except FileNotFoundError:
        pass
    except OSError as exc:
        raise Unavailable(f"the key {path} cannot be read: {exc.strerror}") from exc
    key = secrets.token_bytes(KEY_BYTES)
    try:
        write_secret(path, key)
    except OSError as exc:
        raise StorageFull(f"the key {path} cannot be written: {exc.strerror}") from exc
    return key


def _read_key(path: Path) -> bytes:
    with path.open("rb") as file:
        mode, key = os.fstat(file.fileno()).st_mode, file.read(KEY_BYTES + 1)
    if stat.S_IMODE(mode) & 0o077:
        raise Unavailable(f"others can read the key {path}", hint=f"chmod 600 {path}")
    if len(key) != KEY_BYTES:
        raise Unavailable(f"the key {path} is damaged: it has not {KEY_BYTES} bytes")
    return key


def write_secret(path: Path, content: bytes) -> None:
    """Put a file in place that only the server's user can read, wholly or not at all."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    fsync_directory(path.parent)
