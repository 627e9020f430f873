"""What the command line needs of a broker where no server runs: its address, its configuration, its streams."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from kalam.settings import Settings
from kalam.tables.foreign.port import ForeignPort
from kalam_nats.access.keys import kept_keys
from kalam_nats.access.outside import outside_configuration, with_key
from kalam_nats.broker import address
from kalam_nats.broker.address import connect_options
from kalam_nats.broker.connection import broker_connection
from kalam_nats.streams.foreign import ForeignStreams

BROKER_TIMEOUT_S = 5.0


def broker_options(settings: Settings) -> dict[str, Any] | None:
    """Where the outside broker is that settings or the environment name; None if none is."""
    return connect_options(settings)


def options_of_kalam(options: Mapping[str, Any], data_dir: Path) -> dict[str, Any] | None:
    """How Kalam itself connects to an outside broker whose logins it answers; None where it has no keys to one."""
    keys = kept_keys(data_dir)
    return None if keys is None else with_key(dict(options), keys.kalam.seed)


def nats_configuration(data_dir: Path) -> str:
    """What an outside broker's configuration needs for logins; makes Kalam's keys to it. Raises InvalidOption."""
    return outside_configuration(data_dir)


@asynccontextmanager
async def open_foreign(url: str) -> AsyncIterator[ForeignPort]:
    """The streams of others at a broker, for who reads them without a server."""
    async with broker_connection(url, name="kalam foreign") as connection:
        yield ForeignStreams(connection, BROKER_TIMEOUT_S)


def context_options(name: str) -> dict[str, Any]:
    """What nats-py's ``connect`` takes, from a context of the nats command line; raises InvalidOption."""
    return address.context_options(name)
