"""The process that asks by PostgreSQL's protocol, the same of a Kalam and of a PostgreSQL."""

from __future__ import annotations

import enum
import resource
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import msgspec

from kalam.bench.pg_client import (
    COPY_DONE,
    SYNC,
    PgClient,
    Refused,
    bind,
    copy_data,
    execute,
    parse,
    query,
)
from kalam.bench.rows import Row, row, scatter
from kalam.bench.task import answer, read_task, say_ready, wait_go

COPIED_BYTES = 64 << 10
SPARE_FILES = 100


class PgAsking(enum.StrEnum):
    """What is asked for."""

    READ = "read"
    COPY = "copy"
    MANY = "many"
    POINT = "point"
    PARSED = "parsed"
    SIMPLE = "simple"
    CONSTANT = "constant"
    CONNECT = "connect"


class PgTask(msgspec.Struct, kw_only=True):
    """Ask for ``count`` rows, or so often; of a table the rows are numbered from ``first``, ``each`` in a statement.

    READ: all rows by one SELECT. COPY, MANY: new rows by COPY, and by one Execute each of one INSERT. POINT: rows by
    random keys, one after the other, by a prepared statement; PARSED by one that is parsed each time, SIMPLE by a text
    with the key in it. CONSTANT: ``SELECT 1``. CONNECT: connections that stay open until the end.
    """

    url: str
    user: str
    asking: PgAsking
    count: int
    table: str = ""
    columns: str = ""
    first: int = 0
    each: int = 1
    binary: bool = False


class PgAsked(msgspec.Struct, kw_only=True):
    """How much was answered, in how long; when the first row was there, and of questions one by one the median."""

    count: int = 0
    seconds: float = 0.0
    first_ms: float = 0.0
    p50_ms: float = 0.0
    problem: str = ""


def texts_of(found: Row) -> list[bytes]:
    """A row as PostgreSQL writes its values."""
    moment = datetime.fromtimestamp(found.ts / 1_000, UTC).isoformat(" ", "milliseconds")
    values = (found.id, moment, found.user_id, found.url, found.status, found.latency, "ft"[found.ok], found.tag)
    return [str(value).encode() for value in values]


def read(task: PgTask, client: PgClient) -> Callable[[], PgAsked]:
    """All rows by one SELECT, as text or binary."""
    text = f"SELECT {task.columns} FROM {task.table}"  # noqa: S608 - our own, here and below
    asked = parse("", text) + bind("", [], binary=task.binary) + execute(described=True) + SYNC

    def ask() -> PgAsked:
        started = time.perf_counter()
        client.send(asked)
        rows, _ = client.until_ready()
        return PgAsked(count=rows, first_ms=(client.first_row_at - started) * 1e3)

    return ask


def copy(task: PgTask, client: PgClient) -> Callable[[], PgAsked]:
    """New rows as CSV."""
    statements = [list(csv_of(task.first + start, task.each)) for start in range(0, task.count, task.each)]

    def ask() -> PgAsked:
        count = 0
        for pieces in statements:
            client.send(query(f"COPY {task.table} FROM STDIN (FORMAT csv)"))
            client.until(b"G")
            for piece in pieces:
                client.send(piece)
            client.send(COPY_DONE)
            _, tag = client.until_ready()
            count += int(tag.rpartition(" ")[2])
        return PgAsked(count=count)

    return ask


def csv_of(first: int, count: int) -> Iterator[bytes]:
    """The rows from number ``first`` on as CopyData messages of CSV."""
    lines = bytearray()
    for number in range(first, first + count):
        lines += b",".join(texts_of(row(number))) + b"\n"
        if len(lines) > COPIED_BYTES:
            yield copy_data(bytes(lines))
            lines.clear()
    if lines:
        yield copy_data(bytes(lines))


def many(task: PgTask, client: PgClient) -> Callable[[], PgAsked]:
    """New rows as ``executemany`` of a driver sends them: a Bind and an Execute for each, and a Sync behind all."""
    places = ", ".join(f"${place}" for place in range(1, 9))
    text = f"INSERT INTO {task.table} VALUES ({places})"  # noqa: S608
    client.send(parse("many", text) + SYNC)
    client.until_ready()
    runs = []
    for start in range(task.first, task.first + task.count, task.each):
        asked = (
            bind("many", texts_of(row(number))) + execute(described=True) for number in range(start, start + task.each)
        )
        runs.append(b"".join(asked) + SYNC)

    def ask() -> PgAsked:
        count = 0
        for run in runs:
            client.send(run)
            count += task.each if client.until_ready()[1] == "INSERT 0 1" else 0
        return PgAsked(count=count)

    return ask


def point(task: PgTask, client: PgClient) -> Callable[[], PgAsked]:
    """Rows by random keys; as many were asked before."""
    text = f"SELECT {task.columns} FROM {task.table} WHERE id = "  # noqa: S608
    client.send(parse("point", f"{text}$1") + SYNC)
    client.until_ready()
    keys = [b"%d" % (scatter(number) % task.each) for number in range(2 * task.count)]
    parsed = parse("", f"{text}$1")
    match task.asking:
        case PgAsking.PARSED:
            questions = [parsed + bind("", [key]) + execute(described=True) + SYNC for key in keys]
        case PgAsking.SIMPLE:
            questions = [query(text + key.decode()) for key in keys]
        case _:
            questions = [bind("point", [key]) + execute(described=True) + SYNC for key in keys]
    _one_by_one(client, questions[: task.count])()
    return _one_by_one(client, questions[task.count :])


def constant(task: PgTask, client: PgClient) -> Callable[[], PgAsked]:
    """The shortest question, which pools and probes ask."""
    return _one_by_one(client, [query("SELECT 1")] * task.count)


def _one_by_one(client: PgClient, questions: list[bytes]) -> Callable[[], PgAsked]:
    def ask() -> PgAsked:
        times_s, count = [], 0
        for question in questions:
            started = time.perf_counter()
            client.send(question)
            count += client.until_ready()[0]
            times_s.append(time.perf_counter() - started)
        return PgAsked(count=count, p50_ms=sorted(times_s)[len(times_s) // 2] * 1e3)

    return ask


def connect(task: PgTask, client: PgClient) -> Callable[[], PgAsked]:
    """Connections beside this one; they stay open."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = task.count + SPARE_FILES
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))
    opened = [client]

    def ask() -> PgAsked:
        opened.extend(PgClient(task.url, task.user) for _ in range(task.count))
        return PgAsked(count=len(opened) - 1)

    return ask


ASKS = {
    PgAsking.READ: read,
    PgAsking.COPY: copy,
    PgAsking.MANY: many,
    PgAsking.POINT: point,
    PgAsking.PARSED: point,
    PgAsking.SIMPLE: point,
    PgAsking.CONSTANT: constant,
    PgAsking.CONNECT: connect,
}


def main(task: PgTask) -> None:
    """Prepare, ask, answer, and leave when the bench does not need the connections any more."""
    with PgClient(task.url, task.user) as client:
        ask = ASKS[task.asking](task, client)
        say_ready()
        wait_go()
        started = time.perf_counter()
        try:
            asked = ask()
        except Refused as exc:
            asked = PgAsked(problem=str(exc))
        asked.seconds = time.perf_counter() - started
        answer(asked)
        wait_go()


if __name__ == "__main__":
    main(read_task(PgTask))
