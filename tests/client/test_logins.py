"""The client at a server whose users log in."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from guarded_server import PASSWORD, GuardedServer, free_port

import kalam.client as kalam
from kalam.errors import InvalidOption, PermissionDenied, TableNotFound, Unauthenticated
from kalam.kept_logins import KeptLogin, keep

WEBSOCKETS = pytest.mark.filterwarnings("ignore:parameter 'timeout' of type 'float':DeprecationWarning")
"""nats-py asks aiohttp in an older way."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuardedServer]:
    server = GuardedServer.started(tmp_path_factory.mktemp("guarded") / "data", f"--nats-ws-port={free_port()}")
    yield server
    server.kill()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration folder of the test's own, and no credentials in the environment."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in ("USER", "PASSWORD", "TOKEN"):
        monkeypatch.delenv(f"KALAM_{name}", raising=False)
    return tmp_path


async def check_everything(k: kalam.Kalam, sensor: str) -> None:
    """A user who may do everything does each kind of thing once."""
    assert await k.insert("lab.readings", {"sensor": sensor, "celsius": 20.5}) == 1
    assert (await k.sql("SELECT current_user() AS me")).rows == [{"me": "ada"}]
    question = f"SELECT celsius FROM lab.readings WHERE sensor = '{sensor}'"
    assert [row async for row in k.stream(question)] == [{"celsius": 20.5}]
    async with k.live(question) as live:
        assert (await anext(live)).row == {"celsius": 20.5}


@WEBSOCKETS
@pytest.mark.parametrize("door", ["http_url", "nats_url", "nats_ws_url"])
async def test_a_user_comes_by_each_door_with_a_password(server: GuardedServer, door: str) -> None:
    async with kalam.connect(server.announcement[door], user="ada", password=PASSWORD) as k:
        await check_everything(k, door)


@pytest.mark.parametrize("door", ["http_url", "nats_url"])
async def test_a_token_stands_in_the_place_of_a_password(server: GuardedServer, door: str) -> None:
    token = server.token("ada", f"for {door}")
    async with kalam.connect(server.announcement[door], user="ada", token=token) as k:
        await check_everything(k, f"token {door}")


async def test_http_tells_whose_a_token_is_and_nats_does_not(server: GuardedServer) -> None:
    token = server.token("ada", "whose")
    async with kalam.connect(server.http_url, token=token) as k:
        await check_everything(k, "whose")
    with pytest.raises(InvalidOption, match="does not tell whose token"):
        async with kalam.connect(server.nats_url, token=token):
            pass


async def test_credentials_come_from_a_file_the_url_the_environment_or_a_kept_login(
    server: GuardedServer, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "password").write_text(f"{PASSWORD}\n")
    async with kalam.connect(server.nats_url, user="ada", password_file=str(home / "password")) as k:
        await check_everything(k, "file")
    token = server.token("ada", "found")
    keep(KeptLogin(user="ada", token=token, name="found", urls=(server.nats_url, server.http_url)))
    async with kalam.connect(server.nats_url) as k:
        await check_everything(k, "kept")
    monkeypatch.setenv("KALAM_PASSWORD", "wrong-password")
    monkeypatch.setenv("KALAM_USER", "ada")
    with pytest.raises(Unauthenticated, match="KALAM_PASSWORD"):
        async with kalam.connect(server.nats_url):
            pass
    monkeypatch.setenv("KALAM_TOKEN", token)
    async with kalam.connect(server.nats_url) as k:
        await check_everything(k, "token")
    monkeypatch.setenv("KALAM_TOKEN", "wrong-token")
    simple = server.nats_url.replace("://", "://eve:simple-password@")
    server.sql("ALTER USER eve PASSWORD 'simple-password'")
    async with kalam.connect(simple) as k:
        assert (await k.sql("SELECT current_user() AS me")).rows == [{"me": "eve"}]


@WEBSOCKETS
@pytest.mark.parametrize("door", ["http_url", "nats_url", "nats_ws_url"])
async def test_a_wrong_password_is_told_at_once_and_without_the_password(server: GuardedServer, door: str) -> None:
    async with asyncio.timeout(10):
        with pytest.raises(Unauthenticated) as caught:
            async with kalam.connect(server.announcement[door], user="ben", password="wrong-password"):
                pass
    assert "wrong-password" not in str(caught.value)


@pytest.mark.parametrize("door", ["http_url", "nats_url"])
async def test_who_does_not_log_in_is_told_how(server: GuardedServer, door: str) -> None:
    with pytest.raises(Unauthenticated) as caught:
        async with kalam.connect(server.announcement[door]):
            pass
    assert "password=" in caught.value.fields["hint"]


def test_the_synchronous_client_logs_in_alike(server: GuardedServer) -> None:
    with kalam.connect_sync(server.nats_url, user="ada", password=PASSWORD) as k:
        assert k.sql("SELECT current_user() AS me").rows == [{"me": "ada"}]
        assert list(k.stream("SELECT 1 AS one")) == [{"one": 1}]
    with pytest.raises(Unauthenticated), kalam.connect_sync(server.nats_url, user="ada", password="wrong-password"):
        pass


async def test_who_may_only_read_is_told_what_is_denied_and_a_stranger_sees_no_table(server: GuardedServer) -> None:
    async with kalam.connect(server.nats_url, user="ben", password=PASSWORD) as k:
        assert (await k.sql("SELECT count(*) AS n FROM lab.clicks")).rows == [{"n": 0}]
        with pytest.raises(PermissionDenied):
            await k.insert("lab.readings", {"sensor": "x"})
        with pytest.raises(TableNotFound):
            await k.sql("SELECT * FROM lab.notes")
        with pytest.raises(TableNotFound):
            await anext(k.live("SELECT * FROM lab.notes"))


async def test_a_request_in_anothers_name_is_denied_at_once(server: GuardedServer) -> None:
    login = {"user": "ada", "password": PASSWORD}
    other = server.nats_url.replace("://", "://eve:simple-password@")
    server.sql("ALTER USER eve PASSWORD 'simple-password'")
    async with asyncio.timeout(20), kalam.connect(other, user="ada") as k:
        for asking in (k.sql("SELECT 1"), k.insert("lab.readings", {"sensor": "x"}), anext(k.live("SELECT 1"))):
            with pytest.raises(PermissionDenied, match=r"kalam\.api\.ada"):
                await asking
    async with kalam.connect(server.nats_url, **login) as k:
        assert (await k.sql("SELECT count(*) AS n FROM lab.readings WHERE sensor = 'x'")).rows == [{"n": 0}]


async def test_a_grant_counts_at_once_and_a_revoke_ends_what_it_allowed_and_nothing_else(server: GuardedServer) -> None:
    server.sql("CREATE TABLE lab.later (id BIGINT PRIMARY KEY)")
    async with kalam.connect(server.nats_url, user="ben", password=PASSWORD) as k:
        with pytest.raises(TableNotFound):
            await anext(k.live("SELECT * FROM lab.later"))
        server.sql("GRANT SELECT, INSERT ON TABLE lab.later TO ben")
        live = k.live("SELECT id FROM lab.later", key="id")
        assert await k.insert("lab.later", {"id": 1}) == 1
        assert (await anext(live)).row == {"id": 1}
        server.sql("REVOKE SELECT ON TABLE lab.later FROM ben")
        with pytest.raises((kalam.LiveClosed, PermissionDenied, TableNotFound)):
            await anext(live)
        assert await k.insert("lab.later", {"id": 2}) == 1
        server.sql("GRANT SELECT ON TABLE lab.later TO ben")
        assert (await k.sql("SELECT count(*) AS n FROM lab.later")).rows == [{"n": 2}]
        again = k.live("SELECT id FROM lab.later WHERE id = 2")
        assert (await anext(again)).row == {"id": 2}


async def test_who_is_cut_logs_in_anew_and_who_may_no_more_is_told(server: GuardedServer) -> None:
    token = server.token("ada", "cut")
    async with kalam.connect(server.nats_url, user="ada", token=token) as k:
        await k.insert("lab.readings", {"sensor": "cut"})
        live = k.live("SELECT sensor FROM lab.readings WHERE sensor = 'cut'")
        assert (await anext(live)).row == {"sensor": "cut"}
        following = asyncio.create_task(anext(live))
        server.sql("ALTER USER ada LOCK")
        async with asyncio.timeout(30):
            with pytest.raises((Unauthenticated, kalam.LiveClosed)):
                await following
            with pytest.raises(Unauthenticated):
                await k.sql("SELECT 1")
        server.sql("ALTER USER ada UNLOCK")
    async with kalam.connect(server.nats_url, user="ada", token=token) as k:
        assert (await k.sql("SELECT 1 AS one")).rows == [{"one": 1}]


async def test_a_restart_of_the_server_is_come_through(tmp_path: Path) -> None:
    server = GuardedServer.started(tmp_path / "again")
    try:
        ports = [f"--nats-port={server.nats_url.rpartition(':')[2]}"]
        async with kalam.connect(server.nats_url, user="ada", password=PASSWORD) as k:
            live = k.live("SELECT sensor FROM lab.readings")
            following = asyncio.create_task(anext(live))
            await k.sql("SELECT 1")
            server.stop()
            server.flags = (*server.flags, *ports)
            await asyncio.to_thread(server.restart)
            assert await k.insert("lab.readings", {"sensor": "again"}) == 1
            assert (await following).row == {"sensor": "again"}
    finally:
        server.kill()
