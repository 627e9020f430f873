"""Logins at a real nats-server, answered by the callout; the clients are plain ones of nats-py."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from guarded_broker import PASSWORD, Guarded, Plain, Users, guarded_broker, refused
from login_book import open_database

from kalam.access.audit import Audit
from kalam.access.book import Book
from kalam.access.login import Login
from kalam.access.logins import Logins
from kalam.access.model import User
from kalam.access.passwords import Passwords
from kalam.access.sessions import Sessions
from kalam.errors import BrokerUnavailable
from kalam.settings import Settings
from kalam_nats.access.admissions import Admissions
from kalam_nats.access.callout import QUESTION, SEALED_BY, Callout
from kalam_nats.access.keys import Keys
from kalam_nats.access.nkeys_jwt import ACCOUNT, USER, SealingPair, SigningPair
from kalam_nats.access.permissions import Reach
from kalam_nats.access.proof import prove_logins
from kalam_nats.broker.accounts import guarded_accounts
from kalam_nats.broker.connection import broker_connection

WaitUntil = Callable[[Callable[[], object]], Awaitable[None]]


def users(*names: str) -> Users:
    return Users({name: Reach(user=name) for name in names or ("ada", "ben")})


@pytest.fixture
async def guarded(data_dir: Path) -> AsyncIterator[Guarded]:
    async with guarded_broker(data_dir, users()) as broker:
        yield broker


async def test_a_user_logs_in_with_a_password_a_token_as_password_and_a_token_alone(guarded: Guarded) -> None:
    for login in (
        {"password": PASSWORD},
        {"password": "token-ada"},
        {"user": None, "password": None, "token": "token-ada"},  # type: ignore[dict-item]
    ):
        async with guarded.client("ada", **login) as ada:
            assert await ada.may_say("kalam.api.ada.sql")
            assert not await ada.may_say("kalam.api.ben.sql")
    assert guarded.users.asked == [
        ("ada", PASSWORD, "127.0.0.1"),
        ("ada", "token-ada", "127.0.0.1"),
        (None, "token-ada", "127.0.0.1"),
    ]


@pytest.mark.parametrize(
    "login",
    [
        {},
        {"user": "ada", "password": "wrong"},
        {"user": "nobody", "password": PASSWORD},
        {"user": "ada", "password": ""},
        {"user": "ada"},
        {"user": "ben", "password": "token-ada"},
        {"token": "token-nobody"},
        {"token": PASSWORD},
        {"user": "ada.>", "password": PASSWORD},
        {"user": "*", "password": PASSWORD},
        {"user": "a" * 65, "password": PASSWORD},
        {"user": "ädä", "password": PASSWORD},
        {"user": "ada\x00", "password": PASSWORD},
        {"user": "ada", "password": "x" * 3_000},
        {"user": "kalam", "password": "kalam"},
        {"nkeys_seed_str": SigningPair.new(USER).seed},
    ],
)
async def test_whoever_proves_nothing_is_refused(guarded: Guarded, login: dict[str, str]) -> None:
    assert await refused(guarded.broker.url, **login)
    assert guarded.callout.counts["admitted"] == 0


async def test_a_key_that_is_named_and_not_proven_is_refused(guarded: Guarded) -> None:
    def forged(_: str) -> bytes:
        return SigningPair.new(USER).sign(b"another").hex().encode()

    login = {"nkeys_seed_str": SigningPair.new(USER).seed, "signature_cb": forged}
    assert await refused(guarded.broker.url, **login)
    assert await refused(guarded.broker.url, user_jwt_cb=lambda: b"a.b.c", signature_cb=forged)


@pytest.mark.parametrize(
    "connect",
    [
        b'CONNECT {"user": 7, "pass": []}\r\nPING\r\n',
        b'CONNECT {"user": "ada", "pass": "' + b"x" * 100_000 + b'"}\r\nPING\r\n',
        b"CONNECT {\r\nPING\r\n",
        b'CONNECT {"jwt": "a.b.c", "sig": "!"}\r\nPING\r\n',
        b'CONNECT {"nkey": "UAAA", "sig": "AAAA"}\r\nPING\r\n',
        b'CONNECT {"user": "\xff\xfe", "pass": "\xff"}\r\nPING\r\n',
        b"PING\r\n",
    ],
)
async def test_malformed_credentials_are_refused_and_others_log_in(guarded: Guarded, connect: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(guarded.broker.url.rsplit(":", 1)[1]))
    writer.write(connect)
    with contextlib.suppress(ConnectionError):
        assert b"PONG" not in await reader.read()
    writer.close()
    async with guarded.client("ada") as ada:
        assert await ada.may_say("kalam.api.ada.sql")


async def test_logins_wait_until_users_are_known(data_dir: Path, wait_until: WaitUntil) -> None:
    async with guarded_broker(data_dir, users(), begin=False) as guarded:
        logins = [asyncio.create_task(Plain.connect(guarded.broker.url, name)) for name in ("ada", "ben")]
        await wait_until(lambda: guarded.callout.waiting == 2)
        assert guarded.users.asked == []
        guarded.callout.begin(guarded.users.log_in, guarded.users.permit)
        for login in logins:
            await (await login).client.close()


async def test_what_waits_is_refused_when_the_server_stops(data_dir: Path, wait_until: WaitUntil) -> None:
    async with guarded_broker(data_dir, users(), begin=False) as guarded:
        login = asyncio.create_task(refused(guarded.broker.url, user="ada", password=PASSWORD))
        await wait_until(lambda: guarded.callout.waiting == 1)
        await guarded.callout.close()
        assert await login


async def test_a_login_that_does_not_stand_any_more_when_it_is_verified_is_refused(
    guarded: Guarded, wait_until: WaitUntil
) -> None:
    guarded.users.held = asyncio.Event()
    login = asyncio.create_task(refused(guarded.broker.url, user="ada", password=PASSWORD))
    await wait_until(lambda: guarded.users.asked)
    permit = guarded.users.permit

    def locked_meanwhile(login: object) -> None:
        return None

    guarded.callout.begin(guarded.users.log_in, locked_meanwhile)
    guarded.users.held.set()
    assert await login
    guarded.callout.begin(guarded.users.log_in, permit)
    async with guarded.client("ben"):
        pass


async def test_a_credential_that_ends_ends_its_connection(guarded: Guarded, wait_until: WaitUntil) -> None:
    guarded.users.ends["ada"] = datetime.now(UTC) + timedelta(seconds=2)
    async with guarded.client("ada") as ada:
        await wait_until(lambda: ada.client.is_closed)
    guarded.users.ends["ada"] = datetime.now(UTC) - timedelta(seconds=2)
    assert await refused(guarded.broker.url, user="ada", password=PASSWORD)


async def test_a_question_that_is_asked_again_is_not_answered(guarded: Guarded, wait_until: WaitUntil) -> None:
    """Whoever could speak to the callout, which only its own account can, gains nothing by what was said before."""
    seed = guarded.keys.callout.seed
    async with broker_connection(guarded.broker.url, nkeys_seed_str=seed) as other:
        heard = await other.client.subscribe(QUESTION)
        await other.client.flush()
        async with guarded.client("ada"):
            question = await heard.next_msg(5)
        inbox = other.client.new_inbox()
        answers = await other.client.subscribe(inbox)
        await other.client.publish(QUESTION, question.data, reply=inbox, headers=question.headers)
        await wait_until(lambda: guarded.callout.counts["repeated"] == 1)
        for payload, headers in (
            (b"", {}),
            (question.data, {}),
            (question.data, {SEALED_BY: SealingPair.new().public}),
            (question.data[:-1], question.headers),
            (b"xkv1" + bytes(200), question.headers),
            (b"a.b.c", question.headers),
        ):
            before = guarded.callout.counts["unreadable"]
            await other.client.publish(QUESTION, payload, reply=inbox, headers=headers)
            await wait_until(lambda before=before: guarded.callout.counts["unreadable"] == before + 1)
        await other.client.flush()
        assert answers.pending_msgs == 0
        assert PASSWORD.encode() not in question.data


async def test_whoever_has_not_the_issuers_key_cannot_answer(guarded: Guarded) -> None:
    """Even on the callout's own account an answer that another key has signed lets nobody in."""
    stranger = SigningPair.new(ACCOUNT)
    guarded.callout._keys.issuer, kept = stranger, guarded.callout._keys.issuer  # noqa: SLF001
    assert await refused(guarded.broker.url, user="ada", password=PASSWORD)
    guarded.callout._keys.issuer = kept  # noqa: SLF001
    async with guarded.client("ada"):
        pass


async def test_after_the_broker_was_killed_users_and_kalam_are_in_again(
    guarded: Guarded, wait_until: WaitUntil
) -> None:
    async with guarded.client("ada", allow_reconnect=True, reconnect_time_wait=1, max_reconnect_attempts=-1) as ada:
        os.kill(guarded.broker.pid, signal.SIGKILL)
        await wait_until(lambda: ada.client.stats["reconnects"] and ada.client.is_connected)
        assert await ada.may_say("kalam.api.ada.sql")
        assert not await ada.may_say("kalam.api.ben.sql")
        await guarded.kalam.wait_connected(20)
        assert await refused(guarded.broker.url, user="ada", password="wrong")


async def test_no_secret_stands_in_the_brokers_configuration(guarded: Guarded) -> None:
    keys = guarded.keys
    text = (guarded.data_dir / "nats" / "nats.conf").read_text()
    assert keys.public.seal in text
    for pair in (keys.issuer, keys.kalam, keys.callout, keys.seal):
        assert pair.seed not in text


async def test_logins_that_come_all_at_once_are_all_in(data_dir: Path, tmp_path: Path) -> None:
    """Five hundred clients of one password, whose hash takes some 40 ms of the processor."""
    database = open_database(tmp_path)
    book, audit = Book(database), Audit(database)
    now, encoded = datetime.now(UTC), await Passwords().hash(PASSWORD)
    await book.put_user(User(name="ada", password_hash=encoded, created_at=now))
    logins = Logins(book, Sessions(database), audit)

    async def log_in(user: str | None, secret: str, address: str) -> Login:
        return await logins.log_in(user, secret, door="nats", address=address)

    some = users("ada")
    async with guarded_broker(data_dir, some, begin=False) as guarded:
        guarded.callout.begin(log_in, some.permit)
        url = guarded.broker.url
        async with asyncio.timeout(20):
            clients = await asyncio.gather(*(Plain.connect(url, "ada", connect_timeout=20) for _ in range(500)))
        assert guarded.callout.counts["admitted"] == 500
        await asyncio.gather(*(plain.client.close() for plain in clients))
    await audit.drain()
    database.close()


async def test_the_proof_passes_where_kalam_is_asked(guarded: Guarded) -> None:
    await prove_logins(guarded.callout, {"servers": guarded.broker.url}, 10)
    assert guarded.users.asked == []
    assert guarded.callout.counts["refused"] == 0  # nobody was turned away


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"xkey": None}, "does not answer a login|without asking"),
        ({"issuer": SigningPair.new(ACCOUNT).public}, None),
        ({"account": "KALAM"}, "does not answer a login|without asking"),
    ],
)
async def test_the_proof_fails_where_the_broker_is_configured_otherwise(
    start_nats_server: Callable[..., Any], changed: dict[str, str | None], reason: str | None
) -> None:
    keys = Keys.new()
    accounts = guarded_accounts(keys.public)
    block = accounts["authorization"]["auth_callout"] | changed
    accounts["authorization"] |= {
        "auth_callout": {name: value for name, value in block.items() if value is not None},
        "timeout": 1,
    }
    server = start_nats_server(**accounts)
    async with broker_connection(server.url, nkeys_seed_str=keys.callout.seed) as connection:
        callout = Callout(connection, keys, Admissions())
        await callout.open()
        proof = prove_logins(callout, {"servers": server.url}, 5)
        if reason is None:  # whoever is let in by another key is no user of ours: everybody is refused
            await proof
        else:
            with pytest.raises(BrokerUnavailable, match=reason):
                await proof
        await callout.close()


async def test_the_proof_fails_where_anybody_is_let_in(start_nats_server: Callable[..., Any]) -> None:
    keys, server = Keys.new(), start_nats_server()
    async with broker_connection(server.url) as connection:
        callout = Callout(connection, keys, Admissions())
        await callout.open()
        with pytest.raises(BrokerUnavailable, match="let in a user who does not exist"):
            await prove_logins(callout, {"servers": server.url}, 5)
        await callout.close()


async def test_a_websocket_logs_in_alike_and_not_from_a_foreign_page(data_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    async with guarded_broker(data_dir, users(), Settings(nats_port=0, nats_ws_port=port)):
        url = f"http://127.0.0.1:{port}"
        async with aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.WSServerHandshakeError):
                await session.ws_connect(url, headers={"Origin": "http://evil.test"})
            for password, answer in ((PASSWORD, b"PONG"), ("wrong", b"Authorization Violation")):
                async with session.ws_connect(url, headers={"Origin": "http://console.test"}) as socket_:
                    login = b'CONNECT {"verbose":false,"user":"ada","pass":"%b"}\r\nPING\r\n' % password.encode()
                    await socket_.send_bytes(login)
                    said = b""
                    while answer not in said:
                        said += (await socket_.receive(10)).data
                    if answer == b"PONG":
                        await socket_.send_bytes(b"SUB kalam.user.ben.> 1\r\nPING\r\n")
                        said = b""
                        while b"PONG" not in said:
                            said += (await socket_.receive(10)).data
                        assert b"Permissions Violation for Subscription" in said
