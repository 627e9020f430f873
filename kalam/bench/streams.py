"""Single events from a producer through a STREAM table to a subscriber: how many a second, and how late."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from kalam.bench.figures import Figure, Unit
from kalam.bench.process import Process
from kalam.bench.producer import Produced, ProducerTask
from kalam.bench.relay import RelayTask
from kalam.bench.rows import create_table
from kalam.bench.stage import NAMESPACE, Stage
from kalam.bench.subscriber import Reading, Received, SubscriberTask
from kalam.cli.failure import CommandFailed

TABLE: Final = f"{NAMESPACE}.events"
BUFFER_ROWS: Final = 1_000_000
PROGRESS: Final = "bench.progress"
BARE_ENGINE: Final = "nats-py → JetStream"
LAST_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Way:
    """A way from a producer to a subscriber, or an ordered ``consumer``. What arrives on ``rejected`` was refused."""

    url: str
    source: str
    target: str
    rejected: str
    consumer: bool = False


@dataclass(frozen=True, slots=True)
class Passage:
    """What was sent and what came."""

    events: int
    produced: Produced
    received: Received

    @property
    def complete(self) -> bool:
        """Whether every event came and none was refused."""
        return self.received.received == self.events and self.produced.rejected == 0


def measure_streams(stage: Stage) -> Iterator[Figure]:
    """Events a second, then the delay of events that come at a fixed pace."""
    stage.sql.run(create_table("STREAM", TABLE, f"MAX_BUFFER = {BUFFER_ROWS}"))
    kalam = Way(
        stage.server.nats_url, stage.insert_subject(TABLE), f"kalam.stream.{TABLE}", f"kalam.event.rejected.{TABLE}"
    )
    bare = Way(stage.broker.url, "bench.in", "bench.out", "bench.rejected")
    sizes = stage.sizes
    relay_task = RelayTask(url=bare.url, source=bare.source, target=bare.target, events=BUFFER_ROWS)
    with Process("relay", relay_task, stage.log) as relay:
        relay.wait_ready()
        ours: list[Passage] = []
        theirs: list[Passage] = []
        for number in range(1, sizes.rounds + 1):
            stage.progress.step(f"streams: {sizes.events:,} single events, round {number} of {sizes.rounds}")
            ours.append(send(stage, kalam, sizes.events))
            theirs.append(send(stage, bare, sizes.events))
        yield _throughput(ours, theirs)
        events = int(sizes.paced_per_s * sizes.paced_s)
        stage.progress.step(f"streams: {events:,} events, {sizes.paced_per_s:,} a second")
        paced = [send(stage, way, events, sizes.paced_per_s) for way in (kalam, bare)]
        yield from _delays(*paced)


def send(stage: Stage, way: Way, events: int, per_s: int = 0) -> Passage:
    """Send events and wait for all of them; a fixed pace if ``per_s`` is not 0."""
    producer_task = ProducerTask(
        url=way.url, subject=way.source, events=events, per_s=per_s, progress=PROGRESS, rejected=way.rejected
    )
    subscriber_task = SubscriberTask(
        url=way.url,
        subject=way.target,
        reading=Reading.DELAY if per_s else Reading.COUNT,
        expected=events,
        progress=PROGRESS,
        consumer=way.consumer,
    )
    with ExitStack() as stack:
        subscriber = stack.enter_context(Process("subscriber", subscriber_task, stage.log))
        producer = stack.enter_context(Process("producer", producer_task, stage.log))
        subscriber.wait_ready()
        producer.wait_ready()
        producer.go()
        produced = producer.result(Produced)
        received = receive(subscriber)
    if produced.problem:
        raise CommandFailed(f"error: the events could not be sent: {produced.problem}")
    return Passage(events, produced, received)


def receive(subscriber: Process) -> Received:
    """What a subscriber received, once it has everything or nothing more is to be expected."""
    received = subscriber.answer(Received, LAST_S)
    if received is None:
        subscriber.stop()
        received = subscriber.result(Received)
    return received


def _throughput(kalam: Sequence[Passage], bare: Sequence[Passage]) -> Figure:
    received, bare_received = (min(passage.received.received for passage in side) for side in (kalam, bare))
    return Figure(
        name="received by a subscriber",
        situation="single events, as fast as they are acknowledged",
        unit=Unit.EVENTS_PER_S,
        kalam=max(map(per_second, kalam)),
        bare=max(map(per_second, bare)),
        bare_engine=BARE_ENGINE,
        complete=all(passage.complete for passage in (*kalam, *bare)),
        note=f"{received:,} events",
        detail={"received": received, "bare_received": bare_received},
    )


def per_second(passage: Passage) -> float:
    """How many events a second came, from the first one sent to the last one received."""
    return passage.received.received / (passage.received.last_ns - passage.produced.started_ns) * 1e9


def _delays(kalam: Passage, bare: Passage) -> Iterator[Figure]:
    ours, theirs = (sorted(passage.received.delays_ns) for passage in (kalam, bare))
    for percent in (50, 99):
        yield Figure(
            name=f"delivery p{percent}",
            situation=f"single events, {_pace(kalam):,.0f} a second",
            unit=Unit.MS,
            kalam=percentile_ms(ours, percent),
            bare=percentile_ms(theirs, percent),
            bare_engine=BARE_ENGINE,
            complete=kalam.complete and bare.complete,
            note=f"{len(ours):,} events",
            detail={"received": len(ours), "bare_received": len(theirs), "paced_per_s": round(_pace(kalam))},
        )


def _pace(passage: Passage) -> float:
    return len(passage.received.delays_ns) / (passage.produced.ended_ns - passage.produced.started_ns) * 1e9


def percentile_ms(ordered: Sequence[int], percent: int) -> float:
    """The delay that so many percent do not exceed; 0 if there are none."""
    return ordered[min(len(ordered) * percent // 100, len(ordered) - 1)] / 1e6 if ordered else 0.0
