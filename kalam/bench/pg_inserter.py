"""The process that inserts rows into a PostgreSQL, with a fixed number of messages in flight, each on a connection.

Every message is a transaction of its own: a row by a statement that is prepared, rows by COPY.
"""

from __future__ import annotations

import selectors
import time
from contextlib import ExitStack
from itertools import islice

import msgspec

from kalam.bench.inserter import Acknowledged
from kalam.bench.pg_asker import csv_of, texts_of
from kalam.bench.pg_client import COPY_DONE, SYNC, PgClient, Refused, bind, execute, parse, query
from kalam.bench.rows import row
from kalam.bench.task import answer, read_task, say_ready, wait_go


class PgInserterTask(msgspec.Struct, kw_only=True):
    """Insert ``rows`` rows from number ``first`` on into ``table``."""

    url: str
    user: str
    table: str
    first: int
    rows: int
    rows_per_message: int
    in_flight: int


def messages(task: PgInserterTask) -> list[bytes]:
    """What is sent, each with what ends its transaction."""
    numbers = range(task.first, task.first + task.rows)
    if task.rows_per_message == 1:
        return [bind("one", texts_of(row(number))) + execute() + SYNC for number in numbers]
    begin = query(f"COPY {task.table} FROM STDIN (FORMAT csv)")
    each = task.rows_per_message
    return [begin + b"".join(csv_of(first, min(each, numbers.stop - first))) + COPY_DONE for first in numbers[::each]]


def prepare(task: PgInserterTask, client: PgClient) -> None:
    """Prepare the statement for one row."""
    places = ", ".join(f"${place}" for place in range(1, 9))
    client.send(parse("one", f"INSERT INTO {task.table} VALUES ({places})") + SYNC)  # noqa: S608 - our own table
    client.until_ready()


def insert(clients: list[PgClient], left: list[bytes]) -> int:
    """Send everything, each answer lets the next message go; how many rows were stored. Raises Refused."""
    following, rows, unanswered = iter(left), 0, len(left)
    with selectors.DefaultSelector() as selector:
        for client, message in zip(clients, islice(following, len(clients)), strict=False):
            selector.register(client, selectors.EVENT_READ, client)
            client.send(message)
        while unanswered:
            for key, _ in selector.select():
                client = key.data
                rows += int(client.until_ready()[1].rpartition(" ")[2])
                unanswered -= 1
                if (another := next(following, None)) is not None:
                    client.send(another)
    return rows


def main(task: PgInserterTask) -> None:
    """Prepare, insert, answer."""
    with ExitStack() as stack:
        clients = [stack.enter_context(PgClient(task.url, task.user)) for _ in range(task.in_flight)]
        for client in clients:
            prepare(task, client)
        left = messages(task)
        say_ready()
        wait_go()
        started_ns, rows, problem = time.perf_counter_ns(), 0, ""
        try:
            rows = insert(clients, left)
        except Refused as exc:
            problem = str(exc)
        answer(Acknowledged(rows=rows, started_ns=started_ns, ended_ns=time.perf_counter_ns(), problem=problem))


if __name__ == "__main__":
    main(read_task(PgInserterTask))
