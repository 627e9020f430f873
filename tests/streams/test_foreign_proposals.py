"""DESCRIBE STREAM: what lies in a stream of others, and a statement that reads it."""

from __future__ import annotations

import itertools
import json
from typing import Any

import msgspec
import pytest
from foreign_program import Program
from nats.js.api import StreamConfig
from server_process import ServerProcess

_numbers = itertools.count(1)


@pytest.fixture
async def name(program: Program) -> str:
    """A stream for anything behind its name."""
    name = f"D{next(_numbers)}"
    await program.broker.jetstream().add_stream(StreamConfig(name=name, subjects=[f"d.{name}.>"]))
    return name


def described(server: ServerProcess, name: str, behind: str = "", namespace: str | None = None) -> list[list[Any]]:
    return server.sql(f"DESCRIBE STREAM '{name}' {behind}", namespace=namespace)


def of(rows: list[list[Any]], section: str) -> dict[str, str]:
    return {row[1]: row[2] for row in rows if row[0] == section}


async def test_the_statement_that_is_proposed_reads_the_stream(program: Program, namespace: str, name: str) -> None:
    js, server = program.broker.jetstream(), program.server
    for number in range(30):
        row = {"temp": number + 0.5, "count": number, "machineId": f"m{number % 3}", "at": "2026-03-01T00:00:00Z"}
        row |= {"deep": {"x": [number]}, "day": "2026-03-01", "ok": True, "select": "word"}
        row |= {"seldom": 1} if number == 7 else {}
        row |= {"never": None}
        subject = f"d.{name}.L{number % 2}.m{number % 3}.telemetry"
        await js.publish(subject, json.dumps(row).encode(), headers={"trace-Id": f"t{number}"})
    await js.publish(f"d.{name}.L1.m1.alarm", msgspec.msgpack.encode({"code": 2**63}))
    rows = described(server, name, namespace=namespace)
    stream = of(rows, "stream")
    assert (stream["name"], stream["messages"], stream["subjects"]) == (name, "31", f"d.{name}.>")
    assert of(rows, "subject") == {f"d.{name}.*.*.telemetry": "30", f"d.{name}.L1.m1.alarm": "1"}
    assert of(rows, "encoding") == {f"d.{name}.*.*.telemetry": "json: 30", f"d.{name}.L1.m1.alarm": "msgpack: 1"}
    columns = of(rows, "column")
    assert {
        column: columns[column] for column in ("temp", "count", "machine_id", "at", "deep", "day", "ok", "never")
    } == {
        "temp": "DOUBLE",
        "count": "BIGINT",
        "machine_id": "TEXT FROM PATH 'machineId'",
        "at": "TIMESTAMP",
        "deep": "JSON",
        "day": "DATE",
        "ok": "BOOLEAN",
        "never": "TEXT",
    }
    assert columns["token_3"] == "TEXT FROM TOKEN 3"
    assert columns["trace_id"] == "TEXT FROM HEADER 'trace-Id'"
    assert next(row for row in rows if row[1] == "seldom")[3] == "in 1 of 30 messages"
    statements = [row[2] for row in rows if row[0] == "statement"]
    for statement in statements:
        server.sql(statement)
    first, second = f"{namespace}.{name.lower()}", f"{namespace}.{name.lower()}_2"
    assert server.sql(f"SELECT count(*), sum(count), max(machine_id), max(token_4), max(trace_id) FROM {first}") == [
        [30, 435, "m2", "m2", "t9"]
    ]
    assert server.sql(f"SELECT count(*) FROM {first} WHERE _error IS NOT NULL") == [[0]]
    assert server.sql(f"SELECT code FROM {second}") == [[str(2**63)]]


@pytest.mark.parametrize(
    ("payloads", "encoding", "column"),
    [
        ([b"hello", b"1,2"], "text: 2", "TEXT"),
        ([b"\xff\xfe"], "raw: 1", "BLOB"),
        ([b"[1]"], "text: 1", "TEXT"),
    ],
    ids=["text", "bytes", "no-map"],
)
async def test_payloads_that_are_no_maps_are_one_column(
    program: Program, namespace: str, name: str, payloads: list[bytes], encoding: str, column: str
) -> None:
    for payload in payloads:
        await program.broker.jetstream().publish(f"d.{name}.x", payload)
    rows = described(program.server, name, namespace=namespace)
    assert of(rows, "encoding") == {f"d.{name}.x": encoding}
    assert of(rows, "column") == {"payload": column}
    [statement] = [row[2] for row in rows if row[0] == "statement"]
    program.server.sql(statement)
    assert program.server.sql(f"SELECT count(*) FROM {namespace}.{name.lower()}") == [[len(payloads)]]


async def test_a_sample_is_of_the_oldest_and_the_newest(program: Program, name: str) -> None:
    js = program.broker.jetstream()
    for number in range(40):
        member = "old" if number < 5 else "new" if number >= 35 else "between"
        await js.publish(f"d.{name}.x", json.dumps({member: number}).encode())
    rows = described(program.server, name, "SAMPLE 10")
    assert of(rows, "sample") == {"messages": "10"}
    assert set(of(rows, "column")) == {"old", "new"}
    everything = described(program.server, name)
    assert of(everything, "sample") == {"messages": "40"}


async def test_an_empty_stream_proposes_nothing(program: Program, name: str) -> None:
    rows = described(program.server, name)
    assert of(rows, "sample") == {"messages": "0"}
    assert of(rows, "statement") == {}
