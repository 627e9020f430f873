"""Each message is judged by itself: whatever one raises, those that came with it are stored and answered."""

from __future__ import annotations

import asyncio
import json
import struct
from typing import Any

import msgpack  # type: ignore[import-untyped]
import pytest
from foreign_program import Program
from patience import PATIENCE_S
from server_process import ServerProcess

COLUMNS = "k BIGINT NOT NULL, at TIMESTAMP, day DATE, m DECIMAL(10,2), t TEXT, j JSON, x BLOB, u UUID"
NEIGHBOURS = 200


def msgpack_row(**raw: bytes) -> bytes:
    """A map of ``k`` and of values that are msgpack already."""
    members = b"".join(msgpack.packb(name) + value for name, value in raw.items())
    return bytes([0x80 | len(raw) + 1]) + msgpack.packb("k") + msgpack.packb(-1) + members


def timestamp(seconds: int, nanoseconds: int = 0) -> bytes:
    return b"\xc7\x0c\xff" + struct.pack(">Iq", nanoseconds, seconds)


YEAR_10000 = 253_402_300_800
ODD = {
    "a timestamp in the year 10000": msgpack_row(at=timestamp(YEAR_10000)),
    "a timestamp before the year 1": msgpack_row(at=timestamp(-62_135_596_801)),
    "a timestamp of 2^62 seconds": msgpack_row(at=timestamp(2**62)),
    "a timestamp with too many nanoseconds": msgpack_row(at=timestamp(0, 2**32 - 1)),
    "a timestamp in the year 10000 inside of JSON": msgpack_row(j=timestamp(YEAR_10000)),
    "a timestamp in the year 10000 for a BLOB": msgpack_row(x=timestamp(YEAR_10000)),
    "a date beyond its years": b'{"k": -1, "day": "10000-01-01"}',
    "an offset that leads before the year 1": b'{"k": -1, "at": "0001-01-01T00:00:00+14:00"}',
    "an offset that leads beyond the year 9999": b'{"k": -1, "at": "9999-12-31T23:59:59-14:00"}',
    "milliseconds beyond the year 9999": b'{"k": -1, "at": 253402300800000}',
    "as many milliseconds as fit": b'{"k": -1, "at": 9223372036854775807}',
    "a number of a billion digits": b'{"k": -1, "m": 1e999999999}',
    "no number": b'{"k": -1, "m": "NaN"}',
    "a lone surrogate": b'{"k": -1, "t": "\\ud800"}',
    "text that is no UTF-8": msgpack_row(t=b"\xa3\xed\xa0\x80"),
    "a column that is no UTF-8": b"\x82\xa1k\xff\xa1\xff\x01",
    "JSON that is nested deeply": b'{"k": -1, "j": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    "msgpack that is nested deeply": msgpack_row(j=b"\x91" * 50_000 + b"\x01"),
    "an extension that nobody knows": msgpack_row(j=b"\xd4\x05\x00"),
    "a map whose keys are maps": msgpack_row(j=b"\x81\x81\x01\x02\x03"),
    "an integer of a thousand digits": b'{"k": 1' + b"0" * 1_000 + b"}",
    "no UUID": b'{"k": -1, "u": "00000000-0000-0000-0000-00000000000g"}',
    "a payload that is cut off": msgpack_row(at=timestamp(0))[:-1],
}


@pytest.mark.parametrize("kind", ["SHARED", "STREAM", "USER"])
async def test_what_one_message_raises_is_its_own(program: Program, namespace: str, kind: str) -> None:
    table = f"{namespace}.t"
    program.server.sql(f"CREATE {kind} TABLE {table} ({COLUMNS})")
    good = [json.dumps({"k": number}).encode() for number in range(NEIGHBOURS)]
    packed = [msgpack.packb({"k": NEIGHBOURS + number}) for number in range(NEIGHBOURS)]
    step = len(good) // len(ODD)
    sent: list[bytes] = []
    for number, payload in enumerate(ODD.values()):
        sent += [*good[number * step : (number + 1) * step], payload, *packed[number * step : (number + 1) * step]]
    answers = await asyncio.gather(*(program.insert(table, payload) for payload in sent))
    odd = {answers[sent.index(payload)].code: note for note, payload in ODD.items()}
    assert set(odd) == {"invalid_value"}, odd
    stored = 2 * step * len(ODD)
    assert sum(answer.code is None for answer in answers) == stored
    assert program.server.sql(f"SELECT count(*), min(k) FROM {table}", user="ann") == [[stored, 0]]


async def test_an_event_of_others_that_does_not_decode_is_skipped_and_counted(program: Program, namespace: str) -> None:
    table = f"{namespace}.t"
    program.server.sql(f"CREATE STREAM TABLE {table} ({COLUMNS})")
    await program.insert(table, {"k": 1})
    jetstream = program.broker.jetstream()
    for payload in ODD.values():
        await jetstream.publish(f"kalam.stream.{table}", payload)
    await program.insert(table, {"k": 2})
    assert program.server.sql(f"SELECT k FROM {table}") == [[1], [2]]
    assert stats(program.server, table)["undecodable"] == str(len(ODD))


def stats(server: ServerProcess, table: str) -> dict[str, Any]:
    [result] = server.results(f"SHOW STATS FOR TABLE {table}")
    return {row[0]: row[1] for row in result["rows"]}


async def test_a_reply_subject_that_is_no_text_costs_its_sender_alone(program: Program, namespace: str) -> None:
    table = f"{namespace}.t"
    program.server.sql(f"CREATE TABLE {table} ({COLUMNS})")
    host, port = program.server.nats_url.removeprefix("nats://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    await reader.readline()
    writer.write(b'CONNECT {"verbose":false}\r\nSUB good 1\r\n')
    subject = f"kalam.api.ann.insert.{table}".encode()
    for reply, payload in ((b"\xff\xfe", b"{}"), (b"good", b'{"k": 1}'), (b"\xff", b'{"k": "x"}'), (b"good", b"{}")):
        writer.write(b"PUB %b %b %d\r\n%b\r\n" % (subject, reply, len(payload), payload))
    sql = b'{"sql": "SELECT 1"}'
    for reply in (b"\xff\xfe", b"good"):
        writer.write(b"PUB kalam.api.ann.sql %b %d\r\n%b\r\n" % (reply, len(sql), sql))
    await writer.drain()
    told: list[bytes] = []
    async with asyncio.timeout(PATIENCE_S):
        while len(told) < 3:
            line = await reader.readline()
            told += [line] if line.startswith((b"MSG good", b"HMSG good")) else []
    writer.close()
    assert program.server.sql(f"SELECT k FROM {table}") == [[1]]
