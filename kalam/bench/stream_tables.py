"""STREAM tables under the loads that are theirs: many rows a message, many subscribers, none, many tables, a SELECT.

``streams`` has the one way that everything takes, from a single event to one subscriber. Here each figure has a table
of its own, which is dropped after it, so that no eviction of one load is paid for by the next.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final

from kalam.bench.figures import Figure, Unit
from kalam.bench.listeners import Heard, ListenersTask
from kalam.bench.prober import Probed, ProberTask
from kalam.bench.process import Process
from kalam.bench.producer import Produced, ProducerTask
from kalam.bench.relay import RelayTask
from kalam.bench.rows import Encoding, create_table
from kalam.bench.stage import NAMESPACE, Stage
from kalam.bench.streams import BARE_ENGINE, BUFFER_ROWS, LAST_S, PROGRESS, Passage, Way, percentile_ms, receive
from kalam.bench.subscriber import Reading, SubscriberTask
from kalam.cli.failure import CommandFailed

ROWS_PER_MESSAGE: Final = 100
SUBSCRIBERS: Final = 20
SUBSCRIPTIONS_EACH: Final = 10
PROBE_EVERY_S: Final = 0.3  # an answer to the question who listens is used for 250 ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is sent, and to how many."""

    events: int
    subscribers: int
    rows_per_message: int = 1
    encoding: Encoding = Encoding.JSON

    @property
    def words(self) -> str:
        """The load in words."""
        what = "single events" if self.rows_per_message == 1 else f"{self.rows_per_message}-row {self.encoding}"
        whom = {0: "nobody", 1: "1 subscriber"}.get(self.subscribers, f"{self.subscribers} subscribers")
        return f"{what} to {whom}"

    @property
    def unit(self) -> Unit:
        """What is counted."""
        return Unit.EVENTS_PER_S if self.rows_per_message == 1 else Unit.ROWS_PER_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One round of a load; ``stored`` is how many events the table says it has stored."""

    load: Load
    produced: Produced
    heard: Heard
    stored: int

    @property
    def complete(self) -> bool:
        """Whether everything is acknowledged and stored and everybody heard everything."""
        events = self.load.events
        acknowledged = events if self.load.rows_per_message == 1 else self.produced.rows  # of windows only the last is
        counts = {acknowledged, self.stored, *self.heard.counts}
        return self.produced.rejected == 0 and counts == {events}

    @property
    def per_second(self) -> float:
        """Events that are stored and that all have heard, a second."""
        ended_ns = max(self.heard.last_ns, self.produced.ended_ns)
        return min(self.heard.counts) / (ended_ns - self.produced.started_ns) * 1e9


def measure_stream_tables(stage: Stage) -> Iterator[Figure]:
    """Deliveries, discards, delays, the window, and the question who listens."""
    yield from _deliveries(stage)
    yield from _discards(stage)
    yield from _delays(stage)
    yield from _window_load(stage)
    yield from _questions(stage)


def _deliveries(stage: Stage) -> Iterator[Figure]:
    """Messages of many rows in each encoding, then many subscribers."""
    sizes = stage.sizes
    for encoding in Encoding:
        yield _delivered(
            stage, Load(events=sizes.events, subscribers=1, rows_per_message=ROWS_PER_MESSAGE, encoding=encoding)
        )
    yield _delivered(stage, Load(events=sizes.fan_out_events, subscribers=SUBSCRIBERS), bare=True)
    yield _delivered(
        stage, Load(events=sizes.fan_out_events, subscribers=SUBSCRIBERS, rows_per_message=ROWS_PER_MESSAGE)
    )


def _delivered(stage: Stage, load: Load, *, bare: bool = False) -> Figure:
    """The best of the rounds."""
    ours: list[Delivery] = []
    theirs: list[Delivery] = []
    for number in range(1, stage.sizes.rounds + 1):
        stage.progress.step(
            f"stream_tables: {load.words}, {load.events:,} rows, round {number} of {stage.sizes.rounds}"
        )
        ours.append(_deliver(stage, load))
        if bare:
            theirs.append(_deliver_bare(stage, load))
    heard = min(min(delivery.heard.counts) for delivery in ours)
    return Figure(
        name="stored and received by all",
        situation=load.words,
        unit=load.unit,
        kalam=max(delivery.per_second for delivery in ours),
        bare=max((delivery.per_second for delivery in theirs), default=None),
        bare_engine=BARE_ENGINE if bare else None,
        complete=all(delivery.complete for delivery in (*ours, *theirs)),
        note=f"{heard:,} rows each",
        detail={"received": heard, "subscribers": load.subscribers, "stored_events": min(one.stored for one in ours)},
    )


def _deliver(stage: Stage, load: Load) -> Delivery:
    with _stream_table(stage, "delivered") as table:
        produced, heard = _send(stage, load, _way(stage, table))
        return Delivery(load=load, produced=produced, heard=heard, stored=_stat(stage, table, "published"))


def _deliver_bare(stage: Stage, load: Load) -> Delivery:
    with _relay(stage) as way:
        produced, heard = _send(stage, load, way)
    return Delivery(load=load, produced=produced, heard=heard, stored=load.events)  # its acks are JetStream's own


def _send(stage: Stage, load: Load, way: Way) -> tuple[Produced, Heard]:
    """Send while the subscribers listen."""
    listeners_task = ListenersTask(
        url=way.url, connections=load.subscribers, subjects=[way.target], expected=load.events, progress=PROGRESS
    )
    with ExitStack() as stack:
        listeners = stack.enter_context(Process("listeners", listeners_task, stage.log))
        producer = stack.enter_context(Process("producer", _producer_task(way, load, PROGRESS), stage.log))
        listeners.wait_ready()
        produced = _produced(producer)
        heard = listeners.answer(Heard, LAST_S)
        if heard is None:
            listeners.stop()
            heard = listeners.result(Heard)
        return produced, heard


def _discards(stage: Stage) -> Iterator[Figure]:
    """Events of an EPHEMERAL table that nobody listens for."""
    for rows_per_message in (1, ROWS_PER_MESSAGE):
        load = Load(events=stage.sizes.events, subscribers=0, rows_per_message=rows_per_message)
        stage.progress.step(f"stream_tables: {load.words}, {load.events:,} rows")
        rounds = [_discard(stage, load) for _ in range(stage.sizes.rounds)]
        discarded = min(count for _, count in rounds)
        yield Figure(
            name="discarded",
            situation=load.words,
            unit=load.unit,
            kalam=max(count / (done.ended_ns - done.started_ns) * 1e9 for done, count in rounds),
            complete=all(count == load.events and done.rejected == 0 for done, count in rounds),
            note=f"{discarded:,} rows",
            detail={"discarded": discarded},
        )


def _discard(stage: Stage, load: Load) -> tuple[Produced, int]:
    """What was sent, and how many events were discarded: as the acks say if all have one, else as the table says."""
    with _stream_table(stage, "discarded", "EPHEMERAL = TRUE") as table:
        with Process("producer", _producer_task(_way(stage, table), load, ""), stage.log) as producer:
            produced = _produced(producer)
        discarded = _stat(stage, table, "discarded")
        return produced, discarded if load.rows_per_message == 1 else produced.discarded


def _delays(stage: Stage) -> Iterator[Figure]:
    """The delay of events at a fixed pace that take turns between tables.

    The first event of each table goes before them and is told apart: of few events for many tables it would be the p99.
    """
    sizes = stage.sizes
    for count in (1, sizes.paced_tables):
        events = int(sizes.paced_per_s * sizes.paced_s)
        stage.progress.step(f"stream_tables: {events:,} events, {sizes.paced_per_s:,} a second, {count} tables")
        first, ours = _pace(stage, count, events)
        theirs = None
        if count == 1:
            with _relay(stage) as way:
                _passage(stage, way, [], count)
                theirs = _passage(stage, way, [], events)
        yield from _delay_figures(f"{sizes.paced_per_s:,} a second, STREAM tables: {count}", first, ours, theirs)


def _pace(stage: Stage, tables: int, events: int) -> tuple[Passage, Passage]:
    """Send an event to each table of a namespace of their own, whose one subscriber hears them all, then ``events``."""
    namespace = f"{NAMESPACE}_paced_{tables}"
    names = [f"{namespace}.events_{number}" for number in range(tables)]
    stage.sql.run(f"CREATE NAMESPACE {namespace}")
    for name in names:
        stage.sql.run(create_table("STREAM", name, f"MAX_BUFFER = {BUFFER_ROWS}"))
    subject, *more = map(stage.insert_subject, names)
    way = Way(stage.server.nats_url, subject, f"kalam.stream.{namespace}.>", f"kalam.event.rejected.{namespace}.>")
    first, following = (_passage(stage, way, more, count) for count in (tables, events))
    for name in names:
        stage.sql.run(f"DROP TABLE {name}")
    return first, following


def _passage(stage: Stage, way: Way, more_subjects: list[str], events: int) -> Passage:
    subscriber_task = SubscriberTask(
        url=way.url, subject=way.target, reading=Reading.DELAY, expected=events, progress=PROGRESS
    )
    producer_task = ProducerTask(
        url=way.url,
        subject=way.source,
        events=events,
        per_s=stage.sizes.paced_per_s,
        progress=PROGRESS,
        rejected=way.rejected,
        more_subjects=more_subjects,
    )
    with ExitStack() as stack:
        subscriber = stack.enter_context(Process("subscriber", subscriber_task, stage.log))
        producer = stack.enter_context(Process("producer", producer_task, stage.log))
        subscriber.wait_ready()
        return Passage(events, _produced(producer), receive(subscriber))


def _delay_figures(situation: str, first: Passage, kalam: Passage, bare: Passage | None) -> Iterator[Figure]:
    ours = sorted(kalam.received.delays_ns)
    theirs = sorted(bare.received.delays_ns) if bare else None
    first_ms = max(first.received.delays_ns, default=0) / 1e6
    for percent in (50, 99):
        yield Figure(
            name=f"delivery p{percent}",
            situation=situation,
            unit=Unit.MS,
            kalam=percentile_ms(ours, percent),
            bare=None if theirs is None else percentile_ms(theirs, percent),
            bare_engine=None if bare is None else BARE_ENGINE,
            complete=first.complete and kalam.complete and (bare is None or bare.complete),
            note=f"{len(ours):,} events; each table's first: {first_ms:.1f} ms at most",
            detail={"received": len(ours), "first_ms_max": round(first_ms, 3)},
        )


def _window_load(stage: Stage) -> Iterator[Figure]:
    """The first SELECT of a table that nobody has asked yet, and the next."""
    rows = stage.sizes.window_rows
    for what, select, total in (
        ("count(*)", "SELECT count(*) FROM {}", _count),
        ("GROUP BY", "SELECT tag, count(*) FROM {} GROUP BY tag", _grouped_count),
    ):
        stage.progress.step(f"stream_tables: {what} on {rows:,} buffered rows")
        with _stream_table(stage, "windowed", rows=rows) as table:
            stage.insert(table, 0, rows)
            answers = [stage.sql.run(select.format(table)) for _ in range(1 + stage.sizes.query_runs)]
        first, *following = answers
        complete = all(total(answer.rows) == rows for answer in answers)
        for name, ms in (
            ("first query", first.wall_ms),
            ("next queries, median", statistics.median(answer.wall_ms for answer in following)),
        ):
            yield Figure(
                name=name,
                situation=f"{what}, buffered rows: {rows:,}",
                unit=Unit.MS,
                kalam=ms,
                complete=complete,
                detail={"window_rows": rows},
            )


def _count(rows: Sequence[Sequence[int]]) -> int:
    return rows[0][0]


def _grouped_count(rows: Sequence[Sequence[int]]) -> int:
    return sum(row[1] for row in rows)


def _questions(stage: Stage) -> Iterator[Figure]:
    """What it costs to ask who listens: the ack of a single event, without and with a crowd of connections."""
    connections = stage.sizes.crowd_connections
    with _stream_table(stage, "asked", "EPHEMERAL = TRUE") as table:
        stage.progress.step("stream_tables: who listens, of no other connection")
        yield _asked(stage, table, 0)
        stage.progress.step(f"stream_tables: who listens, of {connections:,} connections")
        subjects = [f"bench.crowd.{{connection}}.{number}" for number in range(SUBSCRIPTIONS_EACH)]
        task = ListenersTask(url=stage.server.nats_url, connections=connections, subjects=subjects)
        with Process("listeners", task, stage.log) as crowd:
            crowd.wait_ready()
            yield _asked(stage, table, connections)
            crowd.stop()
            if lost := crowd.result(Heard).lost:
                raise CommandFailed(f"error: {lost:,} of {connections:,} connections were lost")


def _asked(stage: Stage, table: str, connections: int) -> Figure:
    events = stage.sizes.probes
    task = ProberTask(
        url=stage.server.nats_url, subject=stage.insert_subject(table), events=events, every_s=PROBE_EVERY_S
    )
    with Process("prober", task, stage.log) as prober:
        prober.wait_ready()
        prober.go()
        probed = prober.result(Probed)
    return Figure(
        name="ack with a question, median",
        situation=f"connections of {SUBSCRIPTIONS_EACH} subscriptions: {connections:,}",
        unit=Unit.MS,
        kalam=statistics.median(probed.ms),
        complete=probed.discarded == events,
        note=f"max {max(probed.ms):.2f} ms, {events} events",
        detail={"connections": connections, "discarded": probed.discarded, "ms_max": round(max(probed.ms), 3)},
    )


@contextmanager
def _stream_table(stage: Stage, name: str, *options: str, rows: int = BUFFER_ROWS) -> Iterator[str]:
    table = f"{NAMESPACE}.{name}"
    stage.sql.run(create_table("STREAM", table, ", ".join([f"MAX_BUFFER = {rows}", *options])))
    yield table
    stage.sql.run(f"DROP TABLE {table}")


@contextmanager
def _relay(stage: Stage) -> Iterator[Way]:
    """The bare engine; its stream is the one of ``streams``."""
    way = Way(stage.broker.url, "bench.in", "bench.out", "bench.rejected")
    task = RelayTask(url=way.url, source=way.source, target=way.target, events=BUFFER_ROWS)
    with Process("relay", task, stage.log) as relay:
        relay.wait_ready()
        yield way


def _way(stage: Stage, table: str) -> Way:
    return Way(
        stage.server.nats_url, stage.insert_subject(table), f"kalam.stream.{table}", f"kalam.event.rejected.{table}"
    )


def _producer_task(way: Way, load: Load, progress: str) -> ProducerTask:
    return ProducerTask(
        url=way.url,
        subject=way.source,
        events=load.events,
        per_s=0,
        progress=progress,
        rejected=way.rejected,
        rows_per_message=load.rows_per_message,
        encoding=load.encoding,
    )


def _produced(producer: Process) -> Produced:
    """Let everything be sent; raises CommandFailed if it cannot be."""
    producer.wait_ready()
    producer.go()
    produced = producer.result(Produced)
    if produced.problem:
        raise CommandFailed(f"error: the events could not be sent: {produced.problem}")
    return produced


def _stat(stage: Stage, table: str, name: str) -> int:
    rows = stage.sql.run(f"SHOW STATS FOR TABLE {table}").rows
    return int(dict(rows)[name])
