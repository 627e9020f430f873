"""Who listens, asked of the embedded broker and of an outside one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nats
import pytest
from held_process import held
from nats.aio.client import Client
from nats.aio.msg import Msg

from kalam.settings import Settings
from kalam_nats.broker import interest as interest_module
from kalam_nats.broker.connection import BrokerConnection, broker_connection
from kalam_nats.broker.embedded import embedded_broker
from kalam_nats.broker.interest import Interest

EVENTS = "kalam.stream.a.events"
WaitUntil = Callable[[Callable[[], object]], Awaitable[None]]


async def settle(client: Client) -> None:
    """Wait until the broker has taken what the client sent; nats-py's flush may overtake that."""
    inbox = client.new_inbox()
    echo = await client.subscribe(inbox)
    await client.publish(inbox)
    await echo.next_msg(10.0)
    await echo.unsubscribe()


@dataclass
class Scene:
    """Kalam's connection and interest, and a client of somebody else's."""

    connection: BrokerConnection
    interest: Interest
    other: Client

    async def listen(self, pattern: str, queue: str = "") -> None:
        await self.other.subscribe(pattern, queue=queue)
        await settle(self.other)


@asynccontextmanager
async def scene_on(url: str) -> AsyncIterator[Scene]:
    other = await nats.connect(url, allow_reconnect=False)
    try:
        async with broker_connection(url) as connection:
            yield Scene(connection, Interest(connection), other)
    finally:
        await other.close()


@pytest.fixture(params=["embedded", "outside"])
def broker_url(request: pytest.FixtureRequest, data_dir: Path) -> Callable[[], Any]:
    """Opens each kind of broker; both must give the same answers."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[str]:
        if request.param == "embedded":
            async with embedded_broker(Settings(nats_port=0), data_dir) as broker:
                yield broker.url
        else:
            yield request.getfixturevalue("nats_server").url

    return opened


@pytest.mark.parametrize("pattern", [EVENTS, "kalam.stream.a.*", "kalam.stream.*.events", "kalam.stream.>", ">"])
async def test_a_matching_subscription_counts(broker_url: Callable[[], Any], pattern: str) -> None:
    async with broker_url() as url, scene_on(url) as scene:
        await scene.listen(pattern)
        assert await scene.interest.count(EVENTS) == 1


@pytest.mark.parametrize("pattern", ["kalam.stream.b.events", "kalam.stream.a", "kalam.stream.a.events.*", "other.>"])
async def test_a_subscription_elsewhere_does_not_count(broker_url: Callable[[], Any], pattern: str) -> None:
    async with broker_url() as url, scene_on(url) as scene:
        await scene.listen(pattern)
        assert await scene.interest.count(EVENTS) == 0


async def test_queue_subscriptions_count(broker_url: Callable[[], Any]) -> None:
    async with broker_url() as url, scene_on(url) as scene:
        await scene.listen(EVENTS, queue="workers")
        await scene.listen(EVENTS, queue="workers")
        assert await scene.interest.count(EVENTS) == 2


async def test_a_stream_and_its_consumers_count_as_nobody(broker_url: Callable[[], Any]) -> None:
    async with broker_url() as url, scene_on(url) as scene:
        stream = scene.other.jetstream()
        await stream.add_stream(name="KALAM-a-events", subjects=[EVENTS])
        await stream.subscribe(EVENTS, ordered_consumer=True)
        await stream.pull_subscribe(EVENTS, durable="d")
        assert await scene.interest.count(EVENTS) == 0


async def test_a_listener_that_comes_or_goes_is_seen_soon(broker_url: Callable[[], Any], wait_until: WaitUntil) -> None:
    async def soon(expected: int) -> None:
        async def so_many() -> bool:
            return await scene.interest.count(EVENTS) == expected

        await wait_until(so_many)

    async with broker_url() as url, scene_on(url) as scene:
        await soon(0)
        await scene.listen(EVENTS)
        await soon(1)
        await scene.other.close()
        await soon(0)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No question times out and no answer ages, however busy the machine is."""
    monkeypatch.setattr(interest_module, "QUESTION_TIME_S", 10.0)
    monkeypatch.setattr(interest_module, "ANSWER_AGE_S", 10.0)


class Asked:
    """Answers in the broker's place and counts the questions."""

    def __init__(self) -> None:
        self.questions: list[str] = []
        self.answering = asyncio.Event()
        self.answering.set()

    async def setup(self, client: Client) -> None:
        await client.subscribe(interest_module._SUBSCRIBERS, cb=self.answer)  # noqa: SLF001 - nobody else answers it here

    async def answer(self, message: Msg) -> None:
        self.questions.append(message.data.decode())
        await self.answering.wait()
        await message.respond(b"7")


@asynccontextmanager
async def asked_on(url: str) -> AsyncIterator[tuple[Scene, Asked]]:
    async with scene_on(url) as scene:
        asked = Asked()
        await asked.setup(scene.other)
        await settle(scene.other)
        assert await scene.interest.count("first") == 7  # has found out whom to ask
        asked.questions.clear()
        yield scene, asked


@pytest.mark.usefixtures("patient")
async def test_an_answer_serves_until_it_is_too_old(nats_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with asked_on(nats_url) as (scene, asked):
        assert await scene.interest.count("a") == 7
        assert await scene.interest.count("a") == 7
        assert asked.questions == ["a"]
        monkeypatch.setattr(interest_module, "ANSWER_AGE_S", 0.0)
        assert await scene.interest.count("a") == 7
        assert asked.questions == ["a", "a"]


@pytest.mark.usefixtures("patient")
async def test_askers_of_one_subject_share_a_question(nats_url: str) -> None:
    async with asked_on(nats_url) as (scene, asked):
        assert await asyncio.gather(*(scene.interest.count("a") for _ in range(50))) == [7] * 50
        assert asked.questions == ["a"]


@pytest.mark.usefixtures("patient")
async def test_an_asker_that_is_cancelled_takes_no_answer_from_the_others(nats_url: str, wait_until: WaitUntil) -> None:
    async with asked_on(nats_url) as (scene, asked):
        asked.answering.clear()
        first, second, third = (asyncio.create_task(scene.interest.count("a")) for _ in range(3))
        await wait_until(lambda: asked.questions)
        second.cancel()
        await asyncio.wait([second])
        asked.answering.set()
        assert (await first, await third) == (7, 7)


@pytest.mark.usefixtures("patient")
async def test_when_the_one_that_asks_is_cancelled_the_others_get_no_answer_but_do_not_hang(
    nats_url: str, wait_until: WaitUntil
) -> None:
    async with asked_on(nats_url) as (scene, asked):
        asked.answering.clear()
        first, second = (asyncio.create_task(scene.interest.count("a")) for _ in range(2))
        await wait_until(lambda: asked.questions)
        first.cancel()
        assert await second is None
        asked.answering.set()


@pytest.mark.usefixtures("patient")
async def test_a_question_that_is_not_answered_in_time_fails(nats_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with asked_on(nats_url) as (scene, asked):
        asked.answering.clear()
        monkeypatch.setattr(interest_module, "QUESTION_TIME_S", 0.05)
        assert await scene.interest.count("a") is None
        asked.answering.set()


async def test_without_a_broker_the_question_fails(nats_server: Any, wait_until: WaitUntil) -> None:
    async with scene_on(nats_server.url) as scene:
        nats_server.stop()
        await wait_until(lambda: not scene.connection.connected)
        assert await scene.interest.count(EVENTS) is None


async def test_an_account_that_may_ask_nothing_gets_no_answer(nats_server: Any) -> None:
    permissions = {"publish": "kalam.>", "subscribe": ["kalam.>", "_INBOX.>"]}
    nats_server.stop()
    nats_server.start(authorization={"users": [{"user": "u", "password": "p", "permissions": permissions}]})
    async with broker_connection(nats_server.url, user="u", password="p") as connection:
        assert await Interest(connection).count(EVENTS) is None


@pytest.mark.usefixtures("patient")
async def test_answers_are_bounded(nats_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interest_module, "ANSWERS_MAX", 3)
    async with asked_on(nats_url) as (scene, asked):
        for subject in ("a", "b", "c", "d", "d", "a"):
            await scene.interest.count(subject)
        assert asked.questions == ["a", "b", "c", "d", "a"]


async def test_a_matching_subscription_is_found_among_many_connections(nats_url: str) -> None:
    async with scene_on(nats_url) as scene:
        crowd = [await nats.connect(nats_url, allow_reconnect=False) for _ in range(40)]
        for client in crowd:
            await client.subscribe("elsewhere")
        await crowd[-1].subscribe(EVENTS)
        await settle(crowd[-1])
        assert await scene.interest.count(EVENTS) == 1
        for client in crowd:
            await client.close()


async def test_a_listener_on_another_server_of_the_cluster_counts(
    start_nats_server: Callable[..., Any], wait_until: WaitUntil
) -> None:
    cluster = {"name": "c", "host": "127.0.0.1", "port": -1}
    here = start_nats_server(jetstream=None, cluster=cluster)
    route = here.ports["cluster"][0]
    there = start_nats_server(jetstream=None, cluster=cluster | {"routes": [route]})
    remote = await nats.connect(there.url, allow_reconnect=False)
    await remote.subscribe("reached")
    async with scene_on(here.url) as scene:

        async def listened(subject: str) -> bool:
            return await scene.interest.count(subject) == 1

        await wait_until(lambda: listened("reached"))  # the servers have found each other
        assert await scene.interest.count(EVENTS) == 0
        await remote.subscribe(EVENTS)
        await remote.flush()
        await wait_until(lambda: listened(EVENTS))
    await remote.close()


async def test_while_a_server_of_the_cluster_is_silent_there_is_no_answer(
    start_nats_server: Callable[..., Any], wait_until: WaitUntil
) -> None:
    cluster = {"name": "c", "host": "127.0.0.1", "port": -1}
    here = start_nats_server(jetstream=None, cluster=cluster)
    there = start_nats_server(jetstream=None, cluster=cluster | {"routes": [here.ports["cluster"][0]]})
    remote = await nats.connect(there.url, allow_reconnect=False)
    await remote.subscribe("reached")
    async with scene_on(here.url) as scene:

        async def answers(subject: str, expected: int | None) -> bool:
            return await scene.interest.count(subject) == expected

        await wait_until(lambda: answers("reached", 1))
        await wait_until(lambda: answers(EVENTS, 0))
        with held(there.pid):
            await wait_until(lambda: answers(EVENTS, None))
        await wait_until(lambda: answers(EVENTS, 0))
    await remote.close()
