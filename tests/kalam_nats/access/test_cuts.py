"""Connections that are ended: of a user, by credential, by what they may hear, and with logins under way."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from guarded_broker import PASSWORD, SUBJECTS, Guarded, Users, guarded_broker, refused

from kalam.errors import BrokerUnavailable
from kalam.names import TableName
from kalam_nats.access import cuts
from kalam_nats.access.admissions import Admissions, Cut
from kalam_nats.access.cuts import Cuts
from kalam_nats.access.permissions import Reach, TableReach, table_subjects
from kalam_nats.broker.connection import broker_connection

WaitUntil = Callable[[Callable[[], object]], Awaitable[None]]
NOTES, LOGS = TableName("app", "notes"), TableName("app", "logs")


@pytest.fixture
async def guarded(data_dir: Path) -> AsyncIterator[Guarded]:
    reach = {
        "ada": Reach(user="ada", tables=(TableReach(NOTES, stream=False),)),
        "ben": Reach(user="ben", tables=(TableReach(LOGS, stream=True, keys=("k",)),)),
        "cleo": Reach(user="cleo", namespaces=frozenset({"app"}), hidden=(TableReach(LOGS, stream=True),)),
        "root": Reach(user="root", administers=True),
        "svc": Reach(user="svc"),
    }
    async with guarded_broker(data_dir, Users(reach)) as broker:
        yield broker


async def cut_of(guarded: Guarded, wait_until: WaitUntil, cut: Cut, *, token: bool = False) -> set[str]:
    """Who of the users is out after a cut, all of them having been in."""
    async with AsyncExitStack() as stack:
        plain = {}
        for name in guarded.users.reach:
            login = {"password": f"token-{name}"} if token else {}
            plain[name] = await stack.enter_async_context(guarded.client(name, **login))
        ended = await guarded.cuts.cut(cut)
        await wait_until(lambda: sum(each.client.is_closed for each in plain.values()) == ended)
        assert guarded.kalam.connected
        for each in plain.values():
            if not each.client.is_closed:
                await each.client.flush()
        return {name for name, each in plain.items() if each.client.is_closed}


async def test_the_connections_of_a_user_end_and_others_stay(guarded: Guarded, wait_until: WaitUntil) -> None:
    assert await cut_of(guarded, wait_until, Cut(users=frozenset({"ada"}))) == {"ada"}
    assert await cut_of(guarded, wait_until, Cut(users=frozenset({"nobody"}))) == set()


async def test_all_connections_end_but_kalams_own(guarded: Guarded, wait_until: WaitUntil) -> None:
    assert await cut_of(guarded, wait_until, Cut()) == set(guarded.users.reach)


async def test_a_connection_that_may_hear_a_table_ends_through_wildcards_too(
    guarded: Guarded, wait_until: WaitUntil
) -> None:
    notes, logs = (Cut(subjects=table_subjects(name, SUBJECTS)) for name in (NOTES, LOGS))
    assert await cut_of(guarded, wait_until, notes) == {"ada", "cleo", "root"}
    assert await cut_of(guarded, wait_until, logs) == {"ben", "cleo", "root"}


async def test_a_password_ends_and_tokens_stay(guarded: Guarded, wait_until: WaitUntil) -> None:
    ada = frozenset({"ada"})
    assert await cut_of(guarded, wait_until, Cut(users=ada, logins="password"), token=True) == set()
    assert await cut_of(guarded, wait_until, Cut(users=ada, logins="password")) == {"ada"}
    assert await cut_of(guarded, wait_until, Cut(users=ada, logins="token-ben"), token=True) == set()
    assert await cut_of(guarded, wait_until, Cut(users=ada, logins="token-ada"), token=True) == {"ada"}


async def test_a_connection_is_found_that_named_no_user(guarded: Guarded, wait_until: WaitUntil) -> None:
    by_token = {"user": None, "password": None, "token": "token-ada"}
    async with guarded.client("ada", **by_token) as ada:
        assert await guarded.cuts.cut(Cut(users=frozenset({"ben"}))) == 0
        assert await guarded.cuts.cut(Cut(users=frozenset({"ada"}))) == 1
        await wait_until(lambda: ada.client.is_closed)


async def test_what_was_let_in_before_this_process_began_ends_in_doubt(guarded: Guarded, wait_until: WaitUntil) -> None:
    own = frozenset({guarded.keys.kalam.public})
    async with broker_connection(guarded.broker.url, nkeys_seed_str=guarded.keys.callout.seed) as other:
        others = Cuts(guarded.kalam, other, Admissions(), own)
        async with guarded.client("svc") as svc:
            assert await others.cut(Cut(subjects=table_subjects(NOTES, SUBJECTS))) == 1
            await wait_until(lambda: svc.client.is_closed)


async def test_three_hundred_connections_end(guarded: Guarded, wait_until: WaitUntil) -> None:
    async with AsyncExitStack() as stack:
        many = [await stack.enter_async_context(guarded.client("ada")) for _ in range(300)]
        async with guarded.client("ben") as ben:
            assert await guarded.cuts.cut(Cut(users=frozenset({"ada"}))) == 300
            await wait_until(lambda: all(each.client.is_closed for each in many))
            await ben.client.flush()


async def test_a_list_of_several_pages_is_read_to_its_end(
    guarded: Guarded, wait_until: WaitUntil, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuts, "PAGE", 2)
    async with AsyncExitStack() as stack:
        many = [await stack.enter_async_context(guarded.client(name)) for name in ("ada", "ben", "ada", "cleo", "ada")]
        assert await guarded.cuts.cut(Cut()) == 5
        await wait_until(lambda: all(each.client.is_closed for each in many))


async def test_a_login_under_way_when_a_user_is_locked_does_not_get_in(guarded: Guarded, wait_until: WaitUntil) -> None:
    """Between its verification and its answer: however the two interleave, nobody who is locked stays in."""
    guarded.users.held = asyncio.Event()
    logins = [asyncio.create_task(refused(guarded.broker.url, user="ada", password=PASSWORD)) for _ in range(20)]
    await wait_until(lambda: len(guarded.users.asked) == 20)
    guarded.users.locked.add("ada")
    ending = asyncio.create_task(guarded.cuts.cut(Cut(users=frozenset({"ada"}))))
    guarded.users.held.set()
    await ending
    assert all(await asyncio.gather(*logins))


async def test_a_login_that_was_answered_just_before_is_found_by_the_second_look(
    guarded: Guarded, wait_until: WaitUntil
) -> None:
    permit = guarded.users.permit
    ending: list[asyncio.Task[int]] = []

    def permit_and_cut(login: Any) -> Any:
        if not ending:
            ending.append(asyncio.create_task(guarded.cuts.cut(Cut(users=frozenset({"ada"})))))
        return permit(login)

    guarded.callout.begin(guarded.users.log_in, permit_and_cut)
    async with guarded.client("ada") as ada:
        await ending[0]
        await wait_until(lambda: ada.client.is_closed)


async def test_what_the_broker_could_not_be_told_it_is_told_when_it_is_back(
    guarded: Guarded, wait_until: WaitUntil
) -> None:
    async with guarded.client("ada") as ada:
        await guarded.kalam._discard()  # noqa: SLF001 - cut off from the broker, which users are not
        assert await guarded.cuts.cut(Cut(users=frozenset({"ada"}))) == 0
        await guarded.kalam.wait_connected(20)
        await wait_until(lambda: ada.client.is_closed)


async def test_connections_end_after_the_broker_was_killed(guarded: Guarded, wait_until: WaitUntil) -> None:
    os.kill(guarded.broker.pid, signal.SIGKILL)
    await wait_until(lambda: not guarded.kalam.connected)
    await guarded.kalam.wait_connected(20)
    await wait_until(lambda: guarded.auth.connected)
    async with guarded.client("ada") as ada:
        assert await guarded.cuts.cut(Cut(users=frozenset({"ada"}))) == 1
        await wait_until(lambda: ada.client.is_closed)


async def test_that_connections_can_be_ended_is_looked_at(guarded: Guarded) -> None:
    await guarded.cuts.check()
    blind = Cuts(guarded.kalam, guarded.kalam, Admissions(), frozenset())
    with pytest.raises(BrokerUnavailable, match="account AUTH imports"):
        await blind.check()


async def test_nobody_but_kalam_ends_connections(guarded: Guarded) -> None:
    async with guarded.client("root") as root:
        for subject in ("$SYS.REQ.SERVER.X.KICK", "$SYS.REQ.ACCOUNT.PING.CONNZ", "$SYS.REQ.USER.INFO"):
            assert not await root.may_say(subject)
