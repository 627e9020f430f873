"""A broker that is not Kalam's own, configured as `kalam nats-config` says, and otherwise."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from guarded_broker import PASSWORD, Plain, Users, refused

from kalam.errors import BrokerUnavailable, InvalidOption
from kalam.server import open_server
from kalam.settings import Settings
from kalam_nats.access.broker_logins import broker_logins
from kalam_nats.access.keys import FOLDER, Keys
from kalam_nats.access.outside import outside_configuration, outside_keys, with_key
from kalam_nats.access.permissions import Reach
from kalam_nats.broker.connection import broker_connection


def start(start_nats_server: Callable[..., Any], text: str) -> Any:
    """A nats-server of the test's own with a text in its configuration."""
    server = start_nats_server()
    server.stop()
    server.added = text
    server.start()
    return server


async def test_the_block_that_is_printed_is_all_that_an_outside_broker_needs(
    start_nats_server: Callable[..., Any], data_dir: Path
) -> None:
    text = outside_configuration(data_dir)
    keys = outside_keys(data_dir)
    for pair in (keys.issuer, keys.kalam, keys.callout, keys.seal):
        assert pair.public in text
        assert pair.seed not in text
    server = start(start_nats_server, text)
    users = Users({"ada": Reach(user="ada")})
    async with broker_logins(keys, {"servers": server.url, "user": "x", "password": "y"}, 5) as logins:
        logins.callout.begin(users.log_in, users.permit)
        async with broker_connection(**with_key({"servers": server.url}, keys.kalam.seed)) as kalam:
            await kalam.client.jetstream().add_stream(name="S", subjects=["s"])
            plain = await Plain.connect(server.url, "ada")
            assert await plain.may_say("kalam.api.ada.sql")
            assert not await plain.may_say("kalam.api.ben.sql")
            await plain.client.close()
            assert await refused(server.url, user="ben", password=PASSWORD)


async def test_what_is_printed_again_is_the_same(data_dir: Path) -> None:
    assert outside_configuration(data_dir) == outside_configuration(data_dir)


async def test_without_keys_it_is_told_what_makes_them(data_dir: Path) -> None:
    with pytest.raises(InvalidOption, match="no keys") as caught:
        outside_keys(data_dir)
    assert "nats-config" in caught.value.fields["hint"]


async def test_a_broker_that_does_not_know_the_keys_is_named(start_nats_server: Callable[..., Any]) -> None:
    server = start_nats_server(authorization={"user": "a", "password": "b"})
    with pytest.raises(BrokerUnavailable, match="does not know Kalam's keys"):
        async with broker_logins(Keys.new(), {"servers": server.url}, 1):
            pass


async def test_a_broker_that_has_other_keys_is_named(start_nats_server: Callable[..., Any], data_dir: Path) -> None:
    server = start(start_nats_server, outside_configuration(data_dir))
    with pytest.raises(BrokerUnavailable, match="no connection") as caught:
        async with broker_logins(Keys.new(), {"servers": server.url}, 1):
            pass
    assert "nats-config" in caught.value.fields["hint"]


@pytest.mark.parametrize("configured", [True, False])
async def test_a_server_whose_users_log_in_runs_on_it_and_on_no_other(
    start_nats_server: Callable[..., Any], data_dir: Path, configured: bool
) -> None:
    text = outside_configuration(data_dir)
    outside = start(start_nats_server, text) if configured else start_nats_server()
    settings = Settings(data_dir=data_dir, http_port=0, nats_url=outside.url, auth="on")
    if not configured:
        with pytest.raises(BrokerUnavailable, match=r"let in a user who does not exist|let Kalam end connections"):
            async with open_server(settings):
                pass
        return
    async with open_server(settings):
        assert await refused(outside.url)
        assert await refused(outside.url, user="admin", password="wrong-password")


async def test_who_was_let_in_before_the_server_began_logs_in_anew(
    start_nats_server: Callable[..., Any],
    data_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    wait_until: Callable[[Callable[[], object]], Awaitable[None]],
) -> None:
    """What was taken from users while no server ran is known to the broker only then."""
    monkeypatch.setenv("KALAM_ADMIN_PASSWORD", PASSWORD)
    outside = start(start_nats_server, outside_configuration(data_dir))
    settings = Settings(data_dir=data_dir, http_port=0, nats_url=outside.url, auth="on")
    again = {"allow_reconnect": True, "max_reconnect_attempts": -1, "reconnect_time_wait": 0.1}
    async with open_server(settings):
        admin = await Plain.connect(outside.url, "admin", **again)
    await admin.settle()
    async with open_server(settings):
        await wait_until(lambda: admin.client.stats["reconnects"] and admin.client.is_connected)
        assert await admin.may_hear("kalam.event.>")
        await admin.client.close()


async def test_a_server_without_keys_says_how_to_make_them(
    start_nats_server: Callable[..., Any], data_dir: Path
) -> None:
    settings = Settings(data_dir=data_dir, http_port=0, nats_url=start_nats_server().url, auth="on")
    with pytest.raises(InvalidOption, match="no keys"):
        async with open_server(settings):
            pass


def test_the_command_prints_the_block_and_no_secret(data_dir: Path) -> None:
    command = [sys.executable, "-m", "kalam", "nats-config", "--data-dir", str(data_dir)]
    first, second = (subprocess.run(command, capture_output=True, text=True, check=True) for _ in range(2))
    assert first.stdout == second.stdout == outside_configuration(data_dir)
    seeds = [file.read_text() for file in (data_dir / FOLDER).iterdir()]
    assert len(seeds) == 4
    assert not any(seed in first.stdout + first.stderr for seed in seeds)
