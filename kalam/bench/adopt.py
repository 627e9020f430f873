"""Streams that others made: read by Kalam's reader and barely, and asked by SQL as a STREAM table of the same rows is.

The publisher is a program of others, so nothing of Kalam's is in the stream. The wall clock of a machine that does
other things as well tells little of a read that two processes share: the CPU time of who reads stands beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from kalam.bench.adopted_bucket import measure_bucket
from kalam.bench.adopted_view import measure_view
from kalam.bench.figures import Figure, Unit
from kalam.bench.foreign_publisher import Filled, FillTask
from kalam.bench.idle import usage
from kalam.bench.process import Process
from kalam.bench.raw_pull import Pulled, PullTask
from kalam.bench.rows import COLUMNS, create_table
from kalam.bench.stage import NAMESPACE, Stage
from kalam.cli.failure import CommandFailed

PLAIN: Final = "adopt-plain"
HEADED: Final = "adopt-headed"
ASKED: Final = "adopt-asked"
RAW: Final = "a socket and a parser that pull the same messages"
HEADERS: Final = "3 headers each"
FILL_S: Final = 600.0
SELECT: Final = "SELECT tag, count(*) FROM {} GROUP BY tag"


def measure_adopt(stage: Stage) -> Iterator[Figure]:
    """The reader against a raw pull, with headers and without, and the first query; a key-value bucket; and a view."""
    yield from _reads(stage)
    yield from _first_queries(stage)
    yield from measure_bucket(stage)
    yield from measure_view(stage, _fill)


def _fill(stage: Stage, url: str, stream: str, messages: int, *, headers: bool = False) -> None:
    stage.progress.step(f"adopt: others publish {messages:,} messages to {stream}")
    task = FillTask(url=url, stream=stream, messages=messages, headers=headers)
    with Process("foreign_publisher", task, stage.log) as publisher:
        held = publisher.result(Filled, FILL_S).messages
    if held != messages:
        raise CommandFailed(f"error: {stream} holds {held:,} of {messages:,} messages")


def _read(stage: Stage, reader: str, stream: str) -> Pulled:
    task = PullTask(url=stage.broker.url, stream=stream, messages=stage.sizes.adopted_messages)
    with Process(reader, task, stage.log) as process:
        process.wait_ready()
        process.go()
        return process.result(Pulled, FILL_S)


def _reads(stage: Stage) -> Iterator[Figure]:
    """What reads take turns, and the best of each counts."""
    sizes = stage.sizes
    kinds = {"without headers": PLAIN, HEADERS: HEADED}
    messages = sizes.adopted_messages
    for stream in kinds.values():
        _fill(stage, stage.broker.url, stream, sizes.adopted_messages, headers=stream == HEADED)
    pulled: dict[tuple[str, str], list[Pulled]] = {}
    for number in range(1, sizes.adopt_rounds + 1):
        stage.progress.step(f"adopt: reading {sizes.adopted_messages:,} messages, round {number}")
        for stream in kinds.values():
            for reader in ("foreign_reader", "raw_pull"):
                pulled.setdefault((reader, stream), []).append(_read(stage, reader, stream))
    for situation, stream in kinds.items():
        yield from _read_figures(situation, pulled["foreign_reader", stream], pulled["raw_pull", stream], messages)
    headed, plain = (pulled["foreign_reader", stream] for stream in (HEADED, PLAIN))
    yield from _read_figures(HEADERS, headed, plain, messages, "the same reader, without headers")


def _read_figures(
    situation: str, ours: list[Pulled], theirs: list[Pulled], messages: int, engine: str = RAW
) -> Iterator[Figure]:
    complete = all(each.messages == messages for each in (*ours, *theirs))
    yield Figure(
        name="read, nothing decoded",
        situation=situation,
        unit=Unit.EVENTS_PER_S,
        kalam=max(each.messages / each.seconds for each in ours),
        bare=max(each.messages / each.seconds for each in theirs),
        bare_engine=engine,
        complete=complete,
        note=f"{messages:,} messages",
        detail={"read_messages": min(each.messages for each in ours)},
    )
    yield Figure(
        name="CPU of the reader, a message",
        situation=situation,
        unit=Unit.US,
        kalam=min(each.cpu_s / each.messages for each in ours) * 1e6,
        bare=min(each.cpu_s / each.messages for each in theirs) * 1e6,
        bare_engine=engine,
        complete=complete,
    )


def _first_queries(stage: Stage) -> Iterator[Figure]:
    """The first query of a table that nobody has asked yet, over a stream of others and over the table's own."""
    rows = stage.sizes.window_rows
    _fill(stage, stage.server.nats_url, ASKED, rows)
    foreign, own = f"{NAMESPACE}.adopted", f"{NAMESPACE}.own_stream"
    columns = COLUMNS.format(id="BIGINT", key="")
    stage.sql.run("SELECT count(*) FROM system.tables")  # what a server does once for the first of all is no part of it
    answers: dict[str, list[tuple[float, float, int]]] = {foreign: [], own: []}
    for number in range(1, stage.sizes.rounds + 1):
        stage.progress.step(f"adopt: the first query of {rows:,} messages, round {number} of {stage.sizes.rounds}")
        stage.sql.run(f"CREATE STREAM TABLE {foreign} ({columns}) OVER STREAM '{ASKED}'")
        stage.sql.run(create_table("STREAM", own, f"MAX_BUFFER = {rows}, FORMAT = 'json'"))
        stage.insert(own, 0, rows)
        for table in (foreign, own) if number % 2 else (own, foreign):
            answers[table].append(_first_query(stage, table))
            stage.sql.run(f"DROP TABLE {table}")
    complete = all(total == rows for each in answers.values() for _, _, total in each)
    for name, place, unit in (("first query", 0, Unit.MS), ("CPU of the server and its nats-server", 1, Unit.MS)):
        yield Figure(
            name=name,
            situation=f"GROUP BY, messages: {rows:,}",
            unit=unit,
            kalam=min(answer[place] for answer in answers[foreign]),
            bare=min(answer[place] for answer in answers[own]),
            bare_engine="a STREAM table of the same rows",
            complete=complete,
            detail={"adopted_rows": rows},
        )


def _first_query(stage: Stage, table: str) -> tuple[float, float, int]:
    """How long it took, how much CPU time, both in milliseconds, and how many rows it saw."""
    before = _cpu_s(stage)
    answer = stage.sql.run(SELECT.format(table))
    return answer.wall_ms, (_cpu_s(stage) - before) * 1e3, sum(row[1] for row in answer.rows)


def _cpu_s(stage: Stage) -> float:
    """What the server, its nats-server and its workers have used."""
    return sum(usage(pid).cpu_s for pid in _family(stage.server.pid))


def _family(pid: int) -> list[int]:
    files = Path(f"/proc/{pid}/task").glob("*/children")
    return [pid, *(member for file in files for child in file.read_text().split() for member in _family(int(child)))]
