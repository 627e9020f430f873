"""An outside NATS with accounts, where Kalam's user may do no more than Kalam needs and read two streams."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import NatsServer
from foreign_streams import ids, publish
from live_subscriber import Subscriber, ask, connected, subscribe
from nats.js import JetStreamContext
from nats.js.api import RetentionPolicy, StreamConfig
from server_process import ServerProcess, SqlFailed

import kalam as kalam_client

OWN = (
    *("kalam.>", "_INBOX.>", "$JS.API.INFO", "$JS.API.STREAM.LIST"),
    *(f"$JS.API.STREAM.*.{name}" for name in ("KALAM-CHANGES", "KALAM-USER-CHANGES")),
)
"""What Kalam publishes on for its own sake."""
READ = ("STREAM.INFO.S", "CONSUMER.CREATE.S.>", "CONSUMER.MSG.NEXT.S.>", "CONSUMER.DELETE.S.>")
READ_LARGE = ("STREAM.INFO.LARGE", "CONSUMER.CREATE.LARGE.>", "CONSUMER.MSG.NEXT.LARGE.>", "CONSUMER.DELETE.LARGE.>")
READ_DIRECTLY = ("STREAM.INFO.Q", "DIRECT.GET.Q")


def accounts(*apis: str) -> dict[str, Any]:
    """Two accounts with JetStream, and Kalam's user in the first, who may ask these parts of its API."""
    allowed = [*OWN, *(f"$JS.API.{api}" for api in apis)]
    permissions = {"publish": {"allow": allowed}, "subscribe": {"allow": [">"]}}
    kalam = {"user": "kalam", "password": "k", "permissions": permissions}
    poor = {"user": "poor", "password": "p", "permissions": {"publish": {"allow": ["_INBOX.>"]}}}
    return {
        "APP": {"jetstream": "enabled", "users": [{"user": "root", "password": "r"}, kalam, poor]},
        "OTHER": {"jetstream": "enabled", "users": [{"user": "other", "password": "o"}]},
    }


def url_of(broker: NatsServer, user: str) -> str:
    return broker.url.replace("nats://", f"nats://{user}:{user[0]}@")


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    broker = NatsServer(tmp_path_factory.mktemp("nats"))
    broker.start(accounts=accounts(*READ, *READ_DIRECTLY, *READ_LARGE))
    yield broker
    broker.kill()


@pytest.fixture(scope="module")
def kalam(tmp_path_factory: pytest.TempPathFactory, broker: NatsServer) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path_factory.mktemp("kalam") / "data", (f"--nats-url={url_of(broker, 'kalam')}",))
    server.start().sql("CREATE NAMESPACE n")
    yield server
    server.kill()


async def make(js: JetStreamContext, name: str, **options: Any) -> None:
    await js.add_stream(StreamConfig(name=name, subjects=[f"{name.lower()}.*"], **options))
    await publish(js, f"{name.lower()}.a", range(1, 4))


async def test_the_rights_that_the_manual_names_are_enough_to_read_and_follow(
    broker: NatsServer, kalam: ServerProcess
) -> None:
    async with connected(url_of(broker, "other")) as client:
        await make(client.jetstream(), "HIDDEN")
    async with connected(url_of(broker, "root")) as client:
        js = client.jetstream()
        await make(js, "S")
        await make(js, "Q", retention=RetentionPolicy.WORK_QUEUE, allow_direct=True)
        await make(js, "DENIED")
        names = {row[0] for row in kalam.sql("SHOW STREAMS")}
        assert names == {"DENIED", "Q", "S"}
        for name in ("S", "Q"):
            assert "statement" in {row[0] for row in kalam.sql(f"DESCRIBE STREAM '{name}'")}
            kalam.sql(f"CREATE STREAM TABLE n.{name} (id BIGINT, what TEXT FROM TOKEN 2) OVER STREAM '{name}'")
            assert ids(kalam, f"n.{name}") == [1, 2, 3]
            assert ids(kalam, f"n.{name}", "WHERE what = 'a' AND _seq > 1") == [2, 3]
            live = await subscribe(client, f"SELECT id FROM n.{name}", last_rows=1)
            await publish(js, f"{name.lower()}.b", range(4, 6))
            assert [change["row"]["id"] for change in await live.wait_changes(2)] == [4, 5]
        with pytest.raises(SqlFailed) as failure:
            kalam.sql("CREATE STREAM TABLE n.denied (id BIGINT) OVER STREAM 'DENIED'")
        assert failure.value.code == "permission_denied"
        hint = failure.value.problem["hint"]
        for api in READ:
            assert f"$JS.API.{api}".replace(".S", ".DENIED", 2).replace("DENIEDTREAM", "STREAM") in hint


def test_a_start_that_may_not_ask_jetstream_says_what_to_grant(
    broker: NatsServer, kalam: ServerProcess, start_kalam: Callable[..., ServerProcess]
) -> None:
    server = start_kalam(flags=[f"--nats-url={url_of(broker, 'poor')}"], start=False)
    server.launch()
    assert server.wait_end() == 1
    assert "$JS.API.>" in server.log_text()


async def test_what_is_larger_than_a_message_may_be_is_split_or_told_and_costs_no_connection(
    broker: NatsServer, kalam: ServerProcess
) -> None:
    assert "max_payload" in kalam.log_text()  # which is 1 MiB there
    text = "x" * 900_000
    async with connected(url_of(broker, "root")) as client:
        js = client.jetstream()
        await js.add_stream(StreamConfig(name="LARGE", subjects=["large"]))
        kalam.sql("CREATE STREAM TABLE n.large (id BIGINT, text TEXT) OVER STREAM 'LARGE'")
        whole = await subscribe(client, "SELECT * FROM n.large")
        twice = await subscribe(client, "SELECT id, _raw FROM n.large")
        for number in (1, 2):
            await js.publish("large", json.dumps({"id": number, "text": text}).encode())
        await js.publish("large", b'{"id": 3}')
        assert [change["row"]["id"] for change in await whole.wait_changes(3)] == [1, 2, 3]
        assert [change["row"]["id"] for change in await twice.wait_changes(1)] == [3]
        assert [message["seq"] for message in twice.of("resync")] == [1, 2]
        late = await ask(client, "kalam.api.ada.live", {"sql": "SELECT id, _raw FROM n.large"})
        ended = Subscriber(client, late, "ada")
        await client.subscribe(late["subject"], cb=ended.take)
        await ended.wait(lambda: ended.of("closed"))
        assert "max_payload" in ended.of("closed")[0]["reason"]
        async with kalam_client.connect(url_of(broker, "root")) as k:
            await k.sql("CREATE TABLE n.own (id BIGINT PRIMARY KEY, text TEXT)")
            await k.insert("n.own", [{"id": number, "text": text[:300_000]} for number in range(8)])
        assert kalam.sql("SELECT count(*) FROM n.own") == [[8]]
    assert "broker_disconnected" not in kalam.log_text()
