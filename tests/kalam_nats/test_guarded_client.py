"""The short way in and out of nats-py's client: what it hands over is what nats-py would have."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import nats
import pytest
from held_process import held
from patience import PATIENCE_S

from kalam_nats.broker.connection import broker_connection
from kalam_nats.broker.guarded_client import GuardedClient
from kalam_nats.broker.tapping_parser import TappingParser

Taken = list[tuple[bytes, bytes, bytes, object]]


async def test_a_tap_takes_messages_with_and_without_reply_and_headers(nats_url, wait_until):
    taken: Taken = []
    async with broker_connection(nats_url) as connection:
        client = connection.client
        await client.tap("a.*", lambda *message: taken.append(message))
        await client.publish("a.b", b"one")
        await client.publish("a.c", b"", reply="r.x")
        await client.publish("a.d", b"three", headers={"Nats-Msg-Id": "7"})
        await wait_until(lambda: len(taken) == 3)
    assert taken == [
        (b"a.b", b"", b"one", None),
        (b"a.c", b"r.x", b"", None),
        (b"a.d", b"", b"three", {"Nats-Msg-Id": "7"}),
    ]


async def test_a_batch_arrives_whole_and_in_order_whatever_its_size(nats_url, wait_until):
    payloads = [bytes([i % 256]) * (i * 7 % 3_000) for i in range(5_000)] + [b"x" * 900_000, b"end"]
    taken: Taken = []
    async with broker_connection(nats_url) as connection:
        client = connection.client
        await client.tap("a", lambda *message: taken.append(message))
        await client.publish_batch([(b"a", b"", payload) for payload in payloads])
        await wait_until(lambda: len(taken) == len(payloads))
    assert [payload for _, _, payload, _ in taken] == payloads


async def test_a_cancellation_that_comes_with_the_answer_is_not_forgotten(nats_url):
    async with broker_connection(nats_url) as connection:
        client = connection.client
        asked = await client.subscribe("q")
        task = asyncio.create_task(client.request("q", b"", timeout=PATIENCE_S))
        question = await asked.next_msg(5)
        [answer] = client._resp_map.values()  # noqa: SLF001 - which waits for it inside
        answer.set_result(question)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_tap_ends_with_its_subscription_and_others_go_on(nats_url, wait_until):
    taken: Taken = []
    plain: list[bytes] = []

    async def take(msg):
        plain.append(msg.data)

    async with broker_connection(nats_url) as connection:
        client = connection.client
        tapped = await client.tap("a", lambda *message: taken.append(message))
        await client.subscribe("b", cb=take)
        for number in range(10):
            await client.publish_batch([(b"a", b"", b"%d" % number), (b"b", b"", b"%d" % number)])
        await wait_until(lambda: len(taken) == len(plain) == 10)
        await tapped.unsubscribe()
        await client.publish_batch([(b"a", b"", b"late"), (b"b", b"", b"last")])
        await wait_until(lambda: len(plain) == 11)
    assert len(taken) == 10


async def test_a_tap_takes_in_the_read_itself_and_behind_what_nats_py_has_to_read_first(nats_url, wait_until):
    readers: list[object] = []

    async def ignore(_):
        return

    async with broker_connection(nats_url) as connection:
        client = connection.client
        await client.tap("a", lambda *_: readers.append(asyncio.current_task()))
        await client.subscribe("b", cb=ignore)
        await client.flush()
        await client.publish_batch([(b"a", b"", b"")])
        await wait_until(lambda: len(readers) == 1)
        await client.publish_batch([(b"b", b"", bytes(100_000)), (b"a", b"", b"")])
        await wait_until(lambda: len(readers) == 2)
        await client.flush()
        await client.publish_batch([(b"a", b"", b"")])
        await wait_until(lambda: len(readers) == 3)
        assert readers == [None, client._reading_task, None]  # noqa: SLF001 - which is nats-py's loop


@asynccontextmanager
async def cutting_proxy(url: str, chance: random.Random) -> AsyncIterator[str]:
    """Stands before a broker, and passes on what it says in pieces of any size."""
    host, port = url.removeprefix("nats://").split(":")

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, sizes: tuple[int, ...]) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                while data:
                    size = chance.choice(sizes)
                    writer.write(data[:size])
                    data = data[size:]
                    await asyncio.sleep(0)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_broker, to_broker = await asyncio.open_connection(host, port)
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.gather(
            pass_on(reader, to_broker, (1 << 16,)), pass_on(from_broker, writer, (1, 7, 150, 1_000, 40_000))
        )

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


@pytest.mark.parametrize("seed", range(3))
async def test_wherever_a_broker_s_words_are_cut_everybody_gets_his_messages_in_order(nats_url, wait_until, seed):
    chance = random.Random(seed)
    tapped: list[tuple[bytes, bytes, object]] = []
    headed: list[tuple[bytes, bytes]] = []
    plain: list[bytes] = []

    async def take(msg):
        plain.append(msg.data)

    messages = [
        (
            chance.choice("abc"),
            HEADER if chance.random() < 0.2 else b"",
            chance.randbytes(chance.choice((0, 20, 80_000))),
        )
        for _ in range(400)
    ]
    async with cutting_proxy(nats_url, chance) as url, broker_connection(url) as connection:
        client = connection.client
        await client.tap("a", lambda _, reply, payload, headers: tapped.append((reply, payload, headers)))
        await client.tap_headed("b", lambda _, __, blocks, payloads: headed.extend(zip(blocks, payloads, strict=True)))
        await client.subscribe("c", cb=take)
        for start in range(0, len(messages), 20):
            part = messages[start : start + 20]
            await client.publish_headed_batch([(on, "r", header, payload) for on, header, payload in part])
            await client.flush()
            behind = start + len(part)
            wanted = [
                (b"r", payload, {"Nats-Msg-Id": "7"} if head else None)
                for on, head, payload in messages[:behind]
                if on == "a"
            ]
            assert tapped == wanted, "the broker's answer to the ping comes behind the messages"
        await wait_until(lambda: len(plain) == sum(on == "c" for on, _, _ in messages))
    assert headed == [(header, payload) for on, header, payload in messages if on == "b"]
    assert plain == [payload for on, _, payload in messages if on == "c"]


HEADER = b"NATS/1.0\r\nNats-Msg-Id: 7\r\n\r\n"


def message_of(sid: int, subject: bytes, reply: bytes, payload: bytes, header: bytes = b"") -> bytes:
    """A message as the broker writes it."""
    sizes = b"%d %d" % (len(header), len(header) + len(payload)) if header else b"%d" % len(payload)
    name, answer = b"HMSG" if header else b"MSG", reply + b" " if reply else b""
    return b"%b %b %d %b%b\r\n%b%b\r\n" % (name, subject, sid, answer, sizes, header, payload)


@pytest.mark.parametrize("seed", range(20))
async def test_wherever_the_bytes_are_cut_the_same_messages_come_out(seed):
    chance = random.Random(seed)
    wanted, stream = [], b""
    for i in range(60):
        subject, reply = b"s.%d" % i, b"" if i % 3 else b"r"
        payload = chance.randbytes(chance.choice((0, 1, 50, 70_000)))
        header = HEADER if chance.random() < 0.2 else b""
        wanted.append((subject, reply, payload, {"Nats-Msg-Id": "7"} if header else None))
        stream += message_of(1, subject, reply, payload, header)
        while chance.random() < 0.4:  # what nobody taps comes between
            others = (b"+OK\r\n", message_of(2, b"o", b"", b"MSG"), message_of(2, b"o", b"r", b"", HEADER))
            stream += chance.choice(others)
    taken: Taken = []
    client = GuardedClient()
    taps = client._taps  # noqa: SLF001 - as after `tap`, which needs a connection
    taps[b"1"] = lambda *message: taken.append(message)
    parser = TappingParser(client, taps, client._headed)  # noqa: SLF001
    place = 0
    while place < len(stream):
        size = chance.choice((1, 3, 20, 1_000, 32_768))
        await parser.parse(stream[place : place + size])
        place += size
    assert taken == wanted


@pytest.mark.parametrize("seed", range(20))
async def test_headers_that_are_wanted_as_they_came_are_cut_off_likewise(seed):
    chance = random.Random(seed)
    wanted, stream = [], b""
    for i in range(60):
        subject, reply = b"s.%d" % i, b"" if i % 3 else b"r"
        payload = chance.randbytes(chance.choice((0, 1, 50, 70_000)))
        header = HEADER if chance.random() < 0.7 else b""
        wanted.append((subject, reply, header, payload))
        stream += message_of(1, subject, reply, payload, header)
        while chance.random() < 0.4:
            others = (b"+OK\r\n", message_of(2, b"o", b"", b"MSG"), message_of(2, b"o", b"r", b"", HEADER))
            stream += chance.choice(others)
    taken: list[tuple[bytes, ...]] = []
    client = GuardedClient()
    headed = client._headed  # noqa: SLF001 - as after `tap_headed`, which needs a connection
    headed[b"1"] = lambda *run: taken.extend(zip(*run, strict=True))
    parser = TappingParser(client, {}, headed)
    place = 0
    while place < len(stream):
        size = chance.choice((1, 3, 20, 1_000, 32_768))
        await parser.parse(stream[place : place + size])
        place += size
    assert taken == wanted


BLANKS = [b"\x0b", b"\x0c", b"\x0c2\x0c", b"\x1c", b"\xc2\x85"]
"""What a subject may have though some take it for a blank."""


@pytest.mark.parametrize("payload", [b"small", b"x" * 300_000], ids=["small", "large"])
async def test_a_subject_does_not_say_whose_message_it_is(nats_url, wait_until, payload):
    taken: dict[bytes, Taken] = {b"a": [], b"b": []}
    plain: list[tuple[str, str, bytes, object]] = []

    async def take(msg):
        plain.append((msg.subject, msg.reply, msg.data, msg.headers))

    names = [b"x%b%d" % (blank, number) for blank in BLANKS for number in (1, 2, 3)]
    async with broker_connection(nats_url) as connection:
        client = connection.client
        await client.tap("a.*", lambda *message: taken[b"a"].append(message))
        await client.tap("b.*", lambda *message: taken[b"b"].append(message))
        await client.subscribe("c.*", cb=take)
        await client.flush()
        _, writer = await asyncio.open_connection(*nats_url.removeprefix("nats://").split(":"))
        writer.write(b'CONNECT {"verbose":false,"headers":true}\r\n')
        for name in names:
            for head in (b"a", b"b", b"c"):
                for reply in (b"", b" r." + name):
                    command = b"PUB %b.%b%b %d\r\n%b\r\n"
                    writer.write(command % (head, name, reply, len(payload), payload))
                headed = HEADER + payload
                writer.write(b"HPUB %b.%b %d %d\r\n%b\r\n" % (head, name, len(HEADER), len(headed), headed))
                await writer.drain()
        await wait_until(lambda: len(plain) == 3 * len(names))
        writer.close()
    for head in (b"a", b"b"):
        wanted = [
            (b"%b.%b" % (head, name), reply, payload, headers)
            for name in names
            for reply, headers in ((b"", None), (b"r." + name, None), (b"", {"Nats-Msg-Id": "7"}))
        ]
        assert taken[head] == wanted
    assert [subject.encode() for subject, *_ in plain[::3]] == [b"c." + name for name in names]
    assert [reply.encode() for _, reply, *_ in plain[1::3]] == [b"r." + name for name in names]


@pytest.mark.parametrize("head", [b"tapped", b"plain"])
@pytest.mark.parametrize(
    "bad",
    [
        b"PUB %b.\xff 1\r\n1\r\n",
        b"PUB %b.x \xff 1\r\n1\r\n",
        b"HPUB %b.x 1 2\r\nX1\r\n",
        b"HPUB %b.x 8 9\r\nNATS/1.01\r\n",
        b"HPUB %b.x 14 15\r\nNATS/1.0 \xff\r\n\r\n1\r\n",
        b"HPUB %b.x 15 16\r\nNATS/1.0\r\n\xff\r\n\r\n1\r\n",
    ],
)
async def test_what_cannot_be_read_does_not_end_the_reading(nats_url, wait_until, head, bad):
    heard: list[bytes] = []

    async def take(msg):
        heard.append(msg.data)

    async with broker_connection(nats_url) as connection:
        client = connection.client
        await client.tap("tapped.*", lambda _, reply, payload, headers: heard.append(payload))
        await client.subscribe("plain.*", cb=take)
        await client.flush()
        _, writer = await asyncio.open_connection(*nats_url.removeprefix("nats://").split(":"))
        writer.write(b'CONNECT {"verbose":false,"headers":true}\r\n' + bad % head + b"PUB %b.y 4\r\nlast\r\n" % head)
        await wait_until(lambda: b"last" in heard)
        writer.close()
        assert heard in ([b"last"], [b"1", b"last"])
        assert connection.losses == 0


async def test_what_is_published_one_by_one_and_in_batches_stays_in_order(nats_url, wait_until):
    taken: Taken = []
    async with broker_connection(nats_url) as connection:
        client = connection.client
        await client.tap("a", lambda *message: taken.append(message))
        for number in range(0, 3_000, 3):
            await client.publish("a", b"%d" % number)
            await client.publish_batch([(b"a", b"", b"%d" % (number + 1))])
            await client.publish_headed_batch([("a", "", b"", b"%d" % (number + 2))])
        await wait_until(lambda: len(taken) == 3_000)
    assert [payload for _, _, payload, _ in taken] == [b"%d" % number for number in range(3_000)]


async def test_a_pong_that_nobody_waits_for_any_more_does_not_end_the_reading(nats_server, wait_until):
    taken: Taken = []
    async with broker_connection(nats_server.url) as connection:
        client = connection.client
        await client.tap("a", lambda *message: taken.append(message))
        with held(nats_server.pid), pytest.raises(nats.errors.FlushTimeoutError):
            await client.flush(0.2)
        await client.flush()
        await client.publish("a", b"still here")
        await wait_until(lambda: taken)
    assert taken == [(b"a", b"", b"still here", None)]


async def test_what_was_published_in_a_turn_of_the_loop_goes_before_a_ping_of_the_same_turn(nats_url):
    taken: Taken = []
    async with broker_connection(nats_url) as connection:
        client = connection.client
        await client.tap("a", lambda *message: taken.append(message))
        for number in range(50):
            await client.publish_batch([(b"a", b"", b"%d" % number)])
            await client.flush()
            assert len(taken) == number + 1, "the broker's answer to the ping comes behind the message"


async def test_what_was_published_in_the_turn_in_which_a_connection_is_closed_is_sent(nats_url, wait_until):
    taken: Taken = []
    async with broker_connection(nats_url) as connection, broker_connection(nats_url) as other:
        await connection.client.tap("a", lambda *message: taken.append(message))
        await connection.client.flush()
        await other.client.publish_batch([(b"a", b"", b"one"), (b"a", b"", b"two")])
        await other.client.publish_headed_batch([("a", "", b"", b"three")])
        await other.client.close()
        await wait_until(lambda: len(taken) == 3)
    assert [payload for _, _, payload, _ in taken] == [b"one", b"two", b"three"]


async def test_a_writer_waits_for_a_broker_that_takes_nothing(nats_server):
    async with broker_connection(nats_server.url) as connection:
        client = connection.client

        async def write_on() -> None:
            while True:  # without a pause it would never end, and its memory neither
                await client.publish_batch([(b"a", b"", bytes(10_000))])

        with held(nats_server.pid), pytest.raises(TimeoutError):
            await asyncio.wait_for(write_on(), 1)
        await client.flush()


async def test_what_is_to_go_out_now_goes_behind_what_was_written_before_and_ahead_of_what_is_written_after(
    nats_server, wait_until
):
    taken: Taken = []
    asked: list[int] = []

    def messages(number: int):
        asked.append(number)
        yield "a", "", b"NATS/1.0\r\nKalam-Live-Seq: %d\r\n\r\n" % number, b"%d" % number

    async with broker_connection(nats_server.url) as connection:
        client = connection.client
        await client.tap("a", lambda *message: taken.append(message))
        await client.flush()
        assert client.publish_batch_nowait([(b"a", b"", b"before")])
        assert client.publish_headed_batch_now(messages(1))
        assert client.publish_headed_batch_now([])
        assert client.publish_batch_nowait([(b"a", b"", b"after")])
        await wait_until(lambda: len(taken) == 3)
        await client.publish("a", b"waits for the flusher")
        assert not client.publish_headed_batch_now(messages(2))
    assert [(payload, headers) for _, _, payload, headers in taken[:3]] == [
        (b"before", None),
        (b"1", {"Kalam-Live-Seq": "1"}),
        (b"after", None),
    ]
    assert asked == [1], "what would have to wait was taken from its queue"
    assert not client.publish_headed_batch_now(messages(3))


async def test_what_goes_behind_a_part_that_was_sent_does_not_wait_for_the_socket(nats_server, wait_until):
    taken: Taken = []
    async with broker_connection(nats_server.url) as connection:
        client = connection.client
        await client.tap("a", lambda *message: taken.append(message))
        await client.flush()
        sent = 0
        with held(nats_server.pid):
            while client.publish_headed_batch_now([("a", "", b"", b"%d" % sent + bytes(100_000))]):
                sent += 1
            assert client.publish_headed_batch_now([("a", "", b"", b"%d" % sent)], behind=True)
        await client.flush()
        await wait_until(lambda: len(taken) == sent + 1)
        await client.publish("a", b"waits for the flusher")
        assert not client.publish_headed_batch_now([("a", "", b"", b"would overtake it")], behind=True)
    assert [payload.rstrip(b"\0") for _, _, payload, _ in taken[: sent + 1]] == [b"%d" % n for n in range(sent + 1)]
    assert not client.publish_headed_batch_now([("a", "", b"", b"late")], behind=True)


async def test_a_batch_that_would_have_to_wait_is_not_sent_at_once(nats_server, wait_until):
    taken: Taken = []
    async with broker_connection(nats_server.url) as connection:
        client = connection.client
        await client.tap("a", lambda *message: taken.append(message))
        await client.flush()
        assert client.publish_batch_nowait([(b"a", b"r", b"%d" % number) for number in range(3)])
        await wait_until(lambda: len(taken) == 3)
        sent = 3
        with held(nats_server.pid):
            while client.publish_batch_nowait([(b"a", b"r", bytes(100_000))]):
                sent += 1
            assert sent < 1_000, "what is not taken piles up in memory"
        await client.flush()
        await wait_until(lambda: len(taken) == sent)
        await client.publish("a", b"waits for the flusher", "r")
        assert not client.publish_batch_nowait([(b"a", b"r", b"would overtake it")])
        await wait_until(lambda: len(taken) == sent + 1)
    assert [payload for _, _, payload, _ in taken[:3]] == [b"0", b"1", b"2"]
    assert not client.publish_batch_nowait([(b"a", b"r", b"late")])
