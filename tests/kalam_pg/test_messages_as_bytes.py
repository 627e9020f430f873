"""The protocol as bytes: what comes cut, in another order, too long, unknown or never, and what is left of it."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pg_raw import Raw, code, kinds
from server_process import ServerProcess


@pytest.fixture
def raw(pg_server: ServerProcess) -> Iterator[Raw]:
    opened = Raw(pg_server)
    yield opened
    opened.close()


def test_a_query_is_answered_message_by_message(raw: Raw) -> None:
    assert kinds(raw.query("SELECT 1 AS one; ; SELECT 2 AS two")) == b"TDCTDCZ"
    assert kinds(raw.query("  -- nothing\n ; ")) == b"IZ"
    assert kinds(raw.query("SELECT 1; SELEC; SELECT 2")) == b"TDCEZ"


def test_behind_an_error_everything_is_skipped_up_to_sync(raw: Raw) -> None:
    raw.send(b"P", b"\0BEGIN nothing\0\0\0")
    raw.send(b"B", b"\0\0\0\0\0\0\0\0")
    raw.send(b"E", b"\0\0\0\0\0")
    raw.send(b"Q", b"SELECT 1\0")
    raw.send(b"S")
    assert kinds(raw.until(b"Z")) == b"EZ"
    raw.send(b"P", b"\0SELECT 1 AS a\0\0\0")
    raw.send(b"B", b"\0\0\0\0\0\0\0\0")
    raw.send(b"D", b"P\0")
    raw.send(b"E", b"\0\0\0\0\0")
    raw.send(b"S")
    assert kinds(raw.until(b"Z")) == b"12TDCZ"


def test_a_portal_is_suspended_and_goes_on(raw: Raw) -> None:
    raw.send(b"P", b"s\0SELECT value FROM generate_series(1, 5) AS g(value)\0\0\0")
    raw.send(b"B", b"p\0s\0\0\0\0\0\0\0")
    for _ in range(3):
        raw.send(b"E", b"p\0\0\0\0\x02")
    raw.send(b"C", b"Pp\0")
    raw.send(b"C", b"Ss\0")
    raw.send(b"S")
    assert kinds(raw.until(b"Z")) == b"12DDsDDsDC33Z"


@pytest.mark.parametrize(
    ("messages", "sqlstate"),
    [
        ([(b"B", b"\0none\0\0\0\0\0\0\0")], "26000"),
        ([(b"E", b"none\0\0\0\0\0")], "34000"),
        ([(b"D", b"Snone\0")], "26000"),
        ([(b"D", b"X\0")], "08P01"),
        ([(b"P", b"\0SELECT 1; SELECT 2\0\0\0")], "42601"),
        ([(b"P", b"a\0SELECT 1\0\0\0"), (b"P", b"a\0SELECT 1\0\0\0")], "42P05"),
        ([(b"P", b"\0SELECT 1")], "08P01"),
        ([(b"P", b"\0SELECT \xff\0\0\0")], "22021"),
        ([(b"P", b"\0SELECT 1\0\0\0"), (b"B", b"\0\0\0\0\0\x01\0\0\0\x01x\0\0")], "08P01"),
        ([(b"B", b"\0\0\0\x01\0\x07\0\0\0\0")], "08P01"),
        ([(b"F", b"\0\0\0\x01\0\0\0\0\0\0")], "0A000"),
    ],
)
def test_what_is_wrong_with_a_message_is_told(raw: Raw, messages: list[tuple[bytes, bytes]], sqlstate: str) -> None:
    for kind, body in messages:
        raw.send(kind, body)
    if messages[-1][0] != b"F":
        raw.send(b"S")
    assert code(raw.until(b"Z")) == sqlstate
    assert kinds(raw.query("SELECT 1")) == b"TDCZ"


@pytest.mark.parametrize(
    "data",
    [
        b"!\0\0\0\x04",
        b"Q\0\0\0\x01",
        b"Q\x7f\xff\xff\xff",
        b"P\xff\xff\xff\xff",
        b"p\0\0\0\x05x",
    ],
    ids=["unknown", "short", "long", "negative", "password"],
)
def test_what_cannot_be_read_on_from_ends_the_connection(raw: Raw, data: bytes) -> None:
    raw.socket.sendall(data)
    assert raw.ends()


@pytest.mark.parametrize(
    "data",
    [
        b"\0\0\0\x03",
        b"\x7f\xff\xff\xff",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        struct.pack(">ii", 8, 2 << 16),
        struct.pack(">i", 12) + struct.pack(">i", 196608) + b"\0\0\0\0",
        struct.pack(">i", 29) + struct.pack(">i", 196608) + b"user\0admin\0database\0k",
    ],
    ids=["short", "long", "http", "version 2", "no user", "no end"],
)
def test_what_is_no_startup_ends_the_connection(pg_server: ServerProcess, data: bytes) -> None:
    client = Raw(pg_server, greet=False)
    client.socket.sendall(data)
    assert client.ends()
    client.close()


def test_encryption_is_declined_and_a_newer_protocol_negotiated(pg_server: ServerProcess) -> None:
    client = Raw(pg_server, greet=False)
    for request in (80877104, 80877103):
        client.socket.sendall(struct.pack(">ii", 8, request))
        assert client.socket.recv(1) == b"N"
    newer = struct.pack(">i", (3 << 16) | 2) + b"user\0admin\0_pq_.more\x001\0\0"
    client.socket.sendall(struct.pack(">i", len(newer) + 4) + newer)
    told = client.until(b"Z")
    assert told[0] == (b"v", struct.pack(">ii", 0, 1) + b"_pq_.more\0")
    client.close()


def test_a_wrong_cancel_key_stops_nothing_and_is_not_answered(pg_server: ServerProcess, raw: Raw) -> None:
    pid, secret = struct.unpack(">iI", raw.key)
    raw.send(b"Q", b"SELECT count(*) FROM generate_series(1, 1000) a, generate_series(1, 1000) b\0")
    for wrong in ((pid, secret ^ 1), (pid + 1_000, secret), (0, 0)):
        other = Raw(pg_server, greet=False)
        other.socket.sendall(struct.pack(">iiiI", 16, 80877102, *wrong))
        assert other.socket.recv(1) == b""
        other.close()
    assert kinds(raw.until(b"Z")) == b"TDCZ"


def test_random_messages_never_hang_a_session_and_hurt_no_other(pg_server: ServerProcess, raw: Raw) -> None:
    rng = random.Random(7)
    for _ in range(60):
        client = Raw(pg_server)
        for _ in range(rng.randrange(1, 8)):
            kind = bytes([rng.choice(b"BCDEFHPQScdf")])
            size = rng.randrange(40)
            body = rng.choice([rng.randbytes(size), b"\0" * size, b"\0SELECT $1\0" + rng.randbytes(size), b"S\0"])
            client.send(kind, body)
        client.send(b"S")
        client.send(b"X")
        assert client.ends()
        client.close()
    assert kinds(raw.query("SELECT 1")) == b"TDCZ"


def test_messages_that_come_byte_by_byte_are_read(raw: Raw) -> None:
    for byte in b"Q" + struct.pack(">i", 13) + b"SELECT 1\0":
        raw.socket.sendall(bytes([byte]))
    assert kinds(raw.until(b"Z")) == b"TDCZ"


def test_more_messages_than_wait_are_all_answered(raw: Raw) -> None:
    one = b"B" + struct.pack(">i", 12) + b"\0\0\0\0\0\0\0\0" + b"E" + struct.pack(">i", 9) + b"\0\0\0\0\0"
    raw.send(b"P", b"\0SELECT 1 AS a\0\0\0")
    raw.socket.sendall(one * 400)
    raw.send(b"S")
    assert kinds(raw.until(b"Z")) == b"1" + b"2DC" * 400 + b"Z"


def test_connections_in_turn_leave_nothing_behind(pg_server: ServerProcess, raw: Raw) -> None:
    assert pg_server.process is not None
    files = Path(f"/proc/{pg_server.process.pid}/fd")
    before = len(list(files.iterdir()))
    for place in range(400):
        client = Raw(pg_server, greet=place % 2 == 0)
        if place % 4 == 0:
            client.send(b"X")
        client.close()
    raw.query("SELECT 1")
    deadline = 200
    while len(list(files.iterdir())) > before + 2 and deadline:
        raw.query("SELECT 1")
        deadline -= 1
    assert len(list(files.iterdir())) <= before + 2


def test_one_session_more_than_may_be_is_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("few") / "data"
    server = ServerProcess(folder, ("--pg-port=0",), {"KALAM_PG_CONNECTIONS_MAX": "2", "KALAM_PG_BLOCKS": "refuse"})
    server.start()
    try:
        url = str(server.announcement["pg_url"]).replace("//", "//admin@") + "/kalam"
        with psycopg.connect(url, autocommit=True) as one, psycopg.connect(url) as two:
            with pytest.raises(psycopg.OperationalError, match="too many clients"):
                psycopg.connect(url)
            one.execute("CREATE NAMESPACE few")
            one.execute("CREATE SHARED TABLE few.t (n BIGINT PRIMARY KEY)")
            two.execute("INSERT INTO few.t VALUES (1)")
            with pytest.raises(psycopg.errors.FeatureNotSupported, match="a block writes once"):
                two.execute("INSERT INTO few.t VALUES (2)")
            two.rollback()
        assert "kalam_pg_connections_refused_total 1.0" in server.metrics()
        while "kalam_pg_connections 0.0" not in server.metrics():
            pass
    finally:
        server.kill()


def test_a_client_that_is_gone_ends_its_query(pg_server: ServerProcess, connection: psycopg.Connection) -> None:
    slow = Raw(pg_server)
    slow.send(b"Q", b"SELECT count(*) AS gone FROM generate_series(1, 100000) a, generate_series(1, 100000) b\0")
    running: list[Any] = []
    while not running:
        running = connection.execute("SELECT sql FROM system.queries WHERE sql LIKE '%AS gone%'").fetchall()
        running = [row for row in running if "system.queries" not in row[0]]
    slow.close()
    while running:
        running = connection.execute("SELECT sql FROM system.queries WHERE sql LIKE '%AS gone%'").fetchall()
        running = [row for row in running if "system.queries" not in row[0]]
