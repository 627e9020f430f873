"""The process that makes a stream as other people's programs do, and fills it: Kalam has no part in it."""

from __future__ import annotations

import json

import msgspec
from nats.aio.client import Client

from kalam.bench.client import connect, frame
from kalam.bench.rows import row
from kalam.bench.task import answer, read_task, run

WINDOW = 500
SUBJECTS = 1_000
HEADERS = {
    "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "Content-Type": "application/json",
    "source": "bench",
}


class FillTask(msgspec.Struct, kw_only=True):
    """Make a stream of ``messages``, each with three headers or with none."""

    url: str
    stream: str
    messages: int
    headers: bool = False


class Filled(msgspec.Struct, kw_only=True):
    """How many messages the broker says that the stream holds."""

    messages: int


def framed(task: FillTask, number: int, reply: str) -> bytes:
    """The command that publishes a message."""
    payload = msgspec.json.encode(row(number))
    subject = f"{task.stream}.{number % SUBJECTS % 10}.{number % SUBJECTS}.telemetry"
    if not task.headers:
        return frame(subject, payload, reply)
    block = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
    header = f"NATS/1.0\r\n{block}\r\n".encode()
    return (
        f"HPUB {subject} {reply} {len(header)} {len(header) + len(payload)}\r\n".encode() + header + payload + b"\r\n"
    )


async def asked(client: Client, api: str, body: object) -> dict[str, object]:
    """The answer of JetStream's API."""
    return dict(json.loads((await client.request(f"$JS.API.{api}", json.dumps(body).encode())).data))


async def main(task: FillTask) -> None:
    """Make and fill it, a window at a time, of which the last message is acknowledged."""
    client = await connect(task.url, "publisher")
    await asked(client, f"STREAM.CREATE.{task.stream}", {"name": task.stream, "subjects": [f"{task.stream}.>"]})
    inbox = client.new_inbox()
    acks = await client.subscribe(inbox)
    for start in range(0, task.messages, WINDOW):
        numbers = range(start, min(start + WINDOW, task.messages))
        await client.write(b"".join(framed(task, number, inbox if number == numbers[-1] else "") for number in numbers))
        await acks.next_msg(60)
    state = (await asked(client, f"STREAM.INFO.{task.stream}", {}))["state"]
    await client.close()
    assert isinstance(state, dict)
    answer(Filled(messages=state["messages"]))


if __name__ == "__main__":
    run(main(read_task(FillTask)))
