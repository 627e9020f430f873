"""Kalam's keys at the broker: new at each start of the embedded one, kept in files for one outside.

A seed is a secret: its file is for the owner's eyes only. The embedded broker needs none, for only public keys stand in
its configuration, and the seeds stay in this process.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Final

from kalam.errors import InvalidOption
from kalam_nats.access.nkeys_jwt import ACCOUNT, USER, SealingPair, SigningPair, Unreadable
from kalam_nats.broker.accounts import PublicKeys

FOLDER: Final = "nats-keys"
_FILES: Final = ("issuer", "kalam", "callout", "seal")


class Keys:
    """The pairs whose public halves a broker's configuration names (``PublicKeys``)."""

    def __init__(self, issuer: SigningPair, kalam: SigningPair, callout: SigningPair, seal: SealingPair) -> None:
        self.issuer, self.kalam, self.callout, self.seal = issuer, kalam, callout, seal

    @classmethod
    def new(cls) -> Keys:
        """New random keys."""
        return cls(SigningPair.new(ACCOUNT), SigningPair.new(USER), SigningPair.new(USER), SealingPair.new())

    @property
    def public(self) -> PublicKeys:
        """What a configuration may name."""
        return PublicKeys(self.issuer.public, self.kalam.public, self.callout.public, self.seal.public)


def kept_keys(data_dir: Path) -> Keys | None:
    """The keys for an outside broker in ``data_dir/nats-keys``, None where there are none; raises InvalidOption."""
    folder = data_dir / FOLDER
    if not folder.is_dir():
        return None
    try:
        issuer, kalam, callout, seal = ((folder / f"{name}.nk").read_text("ascii") for name in _FILES)
        return Keys(SigningPair(issuer), SigningPair(kalam), SigningPair(callout), SealingPair(seal))
    except (OSError, Unreadable, UnicodeDecodeError) as exc:
        raise InvalidOption(f"the keys in {folder} cannot be read: {exc}") from exc


def keep_keys(data_dir: Path) -> Keys:
    """The keys of ``kept_keys``, made where there are none: seeds in files of mode 0600; raises InvalidOption."""
    keys = kept_keys(data_dir)
    if keys is not None:
        return keys
    keys = Keys.new()
    folder = data_dir / FOLDER
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{FOLDER}.", dir=data_dir))  # for the owner only; whole or not there
        for name in _FILES:
            _write_secret(made / f"{name}.nk", getattr(keys, name).seed)
        made.rename(folder)
    except OSError as exc:
        raise InvalidOption(f"the keys cannot be written to {folder}: {exc}") from exc
    return keys


def _write_secret(file: Path, text: str) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as opened:
        opened.write(text)
        opened.flush()
        os.fsync(descriptor)
