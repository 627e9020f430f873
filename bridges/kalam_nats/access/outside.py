"""A broker that is not Kalam's own: what has to stand in its configuration, and Kalam's keys to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from kalam.errors import InvalidOption
from kalam_nats.access.keys import FOLDER, Keys, keep_keys, kept_keys
from kalam_nats.broker.accounts import guarded_accounts

_HEAD: Final = """\
# What a nats-server needs for Kalam to answer its logins. Add it to the server's configuration, on each server of a
# cluster, beside `jetstream {{ … }}`; what else `accounts` and `authorization` have there stays.
# Only public keys stand here. The private ones are in {folder}: Kalam reads them when it starts with
# `--auth on --nats-url …` on that data directory, and nobody else should.
# With TLS on each listener passwords do not cross the network in clear. A reload (SIGHUP) of nats-server cannot change
# `auth_callout`, and each one ends every connection that Kalam let in; they log in anew.
"""
_SECRETS: Final = frozenset({"user", "password", "token", "user_credentials", "nkeys_seed", "nkeys_seed_str"})


def outside_configuration(data_dir: Path) -> str:
    """The block for the broker's configuration; makes the keys if there are none yet. Raises InvalidOption."""
    keys = keep_keys(data_dir)
    blocks = guarded_accounts(keys.public)
    text = "\n".join(f"{name}: {json.dumps(value, indent=2)}" for name, value in blocks.items())
    return f"{_HEAD.format(folder=data_dir.absolute() / FOLDER)}{text}\n"


def outside_keys(data_dir: Path) -> Keys:
    """Kalam's keys to an outside broker; raises InvalidOption where there are none."""
    keys = kept_keys(data_dir)
    if keys is None:
        raise InvalidOption(
            f"authentication is on and {data_dir / FOLDER} holds no keys for the broker",
            hint="`kalam nats-config` makes them, and prints what the broker's configuration needs",
        )
    return keys


def with_key(options: dict[str, Any], seed: str) -> dict[str, Any]:
    """Options of a connection that signs in by a key, and by nothing else that they may say."""
    return {name: value for name, value in options.items() if name not in _SECRETS} | {"nkeys_seed_str": seed}
