"""Single events through a STREAM table to one subscriber, beside events that are published into JetStream by hand.

By hand there is nothing between the producer and the stream: no check of the event, and nobody who would refuse it. Its
subscriber is once a plain one, as Kalam's is, and once an ordered consumer, which misses no event.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from statistics import median
from typing import Final

from kalam.bench.bare_stream import StreamTask
from kalam.bench.figures import Figure, Unit
from kalam.bench.process import Process
from kalam.bench.rows import create_table
from kalam.bench.stage import NAMESPACE, Stage
from kalam.bench.streams import BUFFER_ROWS, Passage, Way, per_second, percentile_ms, send

TABLE: Final = f"{NAMESPACE}.peer_events"
SUBJECT: Final = "peers.events"
PLAIN: Final = "JetStream, plain subscriber"
CONSUMER: Final = "JetStream, ordered consumer"


def measure_events(stage: Stage) -> Iterator[Figure]:
    """Events as fast as they are acknowledged, then at each pace."""
    sizes = stage.sizes
    stage.sql.run(create_table("STREAM", TABLE, f"MAX_BUFFER = {BUFFER_ROWS}"))
    task = StreamTask(url=stage.server.nats_url, name="PEERS", subject=SUBJECT, events=BUFFER_ROWS)
    with Process("bare_stream", task, stage.log) as process:
        process.wait_ready()
    kalam = Way(
        stage.server.nats_url, stage.insert_subject(TABLE), f"kalam.stream.{TABLE}", f"kalam.event.rejected.{TABLE}"
    )
    plain = Way(stage.server.nats_url, SUBJECT, SUBJECT, "peers.rejected")
    ways = {"Kalam": kalam, PLAIN: plain, CONSUMER: replace(plain, consumer=True)}
    passages = _turns(stage, ways, sizes.peer_events, 0)
    situation = "single events to 1 subscriber, as fast as they are acknowledged"
    yield from _figures(passages, "received", situation, Unit.EVENTS_PER_S, per_second)
    for per_s in sizes.peer_paced_per_s:
        passages = _turns(stage, ways, int(per_s * sizes.paced_s), per_s)
        for percent in (50, 99):
            yield from _figures(
                passages, f"delivery p{percent}", f"single events, {per_s:,} a second", Unit.MS, _delay_ms(percent)
            )
    stage.sql.run(f"DROP TABLE {TABLE}")


def _turns(stage: Stage, ways: dict[str, Way], events: int, per_s: int) -> dict[str, list[Passage]]:
    passages: dict[str, list[Passage]] = {name: [] for name in ways}
    pace = f"{per_s:,} a second" if per_s else "at full speed"
    for turn in range(stage.sizes.peer_turns):
        stage.progress.step(f"peers: {events:,} events, {pace}, turn {turn + 1}")
        for name, way in ways.items():
            passages[name].append(send(stage, way, events, per_s))
    return passages


def _figures(
    passages: dict[str, list[Passage]], name: str, situation: str, unit: Unit, measure: Callable[[Passage], float]
) -> Iterator[Figure]:
    own = passages["Kalam"]
    for engine in (PLAIN, CONSUMER):
        bare = passages[engine]
        received = min(passage.received.received for passage in own)
        yield Figure(
            name=name,
            situation=situation,
            unit=unit,
            kalam=median(map(measure, own)),
            bare=median(map(measure, bare)),
            bare_engine=engine,
            complete=all(passage.complete for passage in (*own, *bare)),
            note=f"{received:,} events a turn",
            detail={"peer_events": received},
        )


def _delay_ms(percent: int) -> Callable[[Passage], float]:
    return lambda passage: percentile_ms(sorted(passage.received.delays_ns), percent)
