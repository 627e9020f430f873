"""Clients that are wrong, slow, half gone or many: each hears what is wrong, and nothing of it stays in the server."""

from __future__ import annotations

import fcntl
import random
import socket
import struct
import sys
import termios
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from pathlib import Path

import psycopg
import pytest
from pg_raw import STARTUP, Raw, code, kinds
from server_process import ServerProcess

VALID = {
    b"Q": b"SELECT 1\0",
    b"P": b"s\0SELECT $1::INT\0\0\x01\0\0\0\x17",
    b"B": b"p\0s\0\0\x01\0\x01\0\x01\0\0\0\x04\0\0\0\x05\0\x01\0\x01",
    b"D": b"Ss\0",
    b"E": b"p\0\0\0\0\x01",
    b"C": b"Pp\0",
    b"F": b"\0\0\0\x01\0\0\0\0\0\0",
}
"""A message of each kind that has a body, as it should be."""
MARKS = count(1)
LISTENS = "0A"
"""The state of a listening socket in /proc/net/tcp."""


@pytest.fixture
def raw(pg_server: ServerProcess) -> Iterator[Raw]:
    opened = Raw(pg_server)
    yield opened
    opened.close()


def heard(raw: Raw) -> list[tuple[bytes, bytes]]:
    """All that a server has said, up to its answer to a query that is asked now."""
    mark = b"mark %d" % next(MARKS)
    raw.send(b"Q", b"SELECT '%b' AS mark\0" % mark)
    found: list[tuple[bytes, bytes]] = []
    while not any(kind == b"D" and mark in body for kind, body in found):
        found += raw.until(b"Z")
    return found


@pytest.mark.parametrize("kind", list(VALID), ids=lambda kind: kind.decode())
def test_a_message_that_is_cut_or_too_long_is_refused_and_the_session_goes_on(raw: Raw, kind: bytes) -> None:
    body = VALID[kind]
    for wrong in (*(body[:size] for size in range(len(body))), body + b"\0", body + b"more"):
        for before in b"PB":
            raw.send(bytes([before]), VALID[bytes([before])])
        raw.send(kind, wrong)
        raw.send(b"S")
        found = heard(raw)
        assert kinds(found).count(b"E") == 1, (wrong, found)
        assert kinds(found).endswith(b"TDCZ")
        raw.send(b"C", b"Ss\0")
        raw.send(b"S")
        assert kinds(raw.until(b"Z")) == b"3Z"


def test_a_length_that_lies_ends_at_the_worst_the_one_session(pg_server: ServerProcess, raw: Raw) -> None:
    for kind, body in VALID.items():
        for size in (0, 3, 4, 5, len(body) + 3, len(body) + 5, 1 << 24, 1 << 31, (1 << 32) - 1):
            client = Raw(pg_server)
            client.socket.sendall(kind + struct.pack(">I", size) + body)
            with suppress(OSError):  # it may have hung up already
                client.send(b"S")
                client.socket.shutdown(socket.SHUT_WR)
            assert client.ends()
            client.close()
    assert kinds(raw.query("SELECT 1")) == b"TDCZ"


def test_messages_in_any_order_are_answered_or_refused_and_none_hurts_the_next(pg_server: ServerProcess) -> None:
    rng = random.Random(11)
    raw = Raw(pg_server)
    for _ in range(60):
        for kind in rng.choices(list(VALID), k=rng.randrange(1, 7)):
            body = bytearray(VALID[kind])
            if rng.random() < 0.5:
                body[rng.randrange(len(body))] = rng.randrange(256)
            raw.send(kind, bytes(body))
        raw.send(b"S")
        assert kinds(heard(raw)).endswith(b"TDCZ")
    raw.close()


@pytest.mark.parametrize("ending", [b"X", b""])
@pytest.mark.parametrize(
    "begun",
    [
        b"",
        b"Q" + struct.pack(">i", 200) + b"SELECT",
        b"Q" + struct.pack(">i", 44) + b"COPY half.t FROM STDIN (FORMAT csv, NULL 'x')"[:39] + b"\0",
        b"P" + struct.pack(">i", 17) + b"s\0SELECT 1\0\0\0",
        b"Q" + struct.pack(">i", 10) + b"BEGIN\0",
    ],
    ids=["nothing", "half a query", "a copy", "no sync", "a block"],
)
def test_a_session_that_is_left_half_way_leaves_nothing(
    pg_server: ServerProcess, connection: psycopg.Connection, begun: bytes, ending: bytes
) -> None:
    before = sessions(pg_server)
    client = Raw(pg_server)
    client.socket.sendall(begun)
    if ending:
        client.send(ending)
    client.close()
    wait_for(connection, lambda: sessions(pg_server) == before)


def test_whoever_sends_half_a_startup_keeps_nobody_from_coming(pg_server: ServerProcess) -> None:
    whole = struct.pack(">i", len(STARTUP) + 4) + STARTUP
    halves = [Raw(pg_server, greet=False) for _ in range(50)]
    for place, half in enumerate(halves):
        half.socket.sendall(whole[: place % len(whole)])
    with psycopg.connect(url(pg_server), autocommit=True) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    late = halves[40]
    late.socket.sendall(whole[40 % len(whole) :])
    assert kinds(late.until(b"Z")).endswith(b"Z")
    for half in halves:
        half.close()


def test_many_connections_one_after_another_leave_no_file_thread_or_memory(
    pg_server: ServerProcess, connection: psycopg.Connection
) -> None:
    ways: list[Callable[[], None]] = [
        lambda: Raw(pg_server).close(),
        lambda: Raw(pg_server, greet=False).close(),
        lambda: _left(pg_server, b"P", b"s\0SELECT 1\0\0\0"),
        lambda: _left(pg_server, b"!", b""),
        lambda: _left(pg_server, b"Q", b"SELECT 1 FROM\0"),
        lambda: _cancel(pg_server),
    ]
    for place in range(300):
        ways[place % len(ways)]()
    before = sessions(pg_server)
    wait_for(connection, lambda: sessions(pg_server) == 1.0)
    files, threads, memory = used(pg_server)
    for place in range(1_200):
        ways[place % len(ways)]()
    wait_for(connection, lambda: sessions(pg_server) == 1.0 and used(pg_server)[0] <= files + 2)
    after = used(pg_server)
    assert before >= 1.0
    assert after[1] <= threads + 4
    assert after[2] - memory < 16 << 20  # 14 kB for each would be a leak that is seen


def test_a_server_that_ends_says_so_to_whoever_waits_for_an_answer(tmp_path_factory: pytest.TempPathFactory) -> None:
    server = ServerProcess(tmp_path_factory.mktemp("ending") / "data", flags=("--pg-port=0",)).start()
    try:
        asked = {
            "rows": b"SELECT a.value FROM generate_series(1, 100000) a, generate_series(1, 100000) b\0",
            "one": b"SELECT count(*) FROM generate_series(1, 100000) a, generate_series(1, 100000) b\0",
        }
        clients = {name: Raw(server) for name in (*asked, "idle")}
        for name, text in asked.items():
            clients[name].send(b"Q", text)
        with psycopg.connect(url(server), autocommit=True) as watching:
            running = "SELECT count(*) FROM system.queries WHERE sql LIKE '%FROM generate_series%'"
            wait_for(watching, lambda: (watching.execute(running).fetchone() or (0,))[0] >= len(asked) + 1)
        with ThreadPoolExecutor() as readers:  # who does not read is not waited for long
            heard = {name: readers.submit(client.until, b"E") for name, client in clients.items()}
            assert server.stop() == 0
            assert {name: kinds(told.result())[-1:] for name, told in heard.items()} == dict.fromkeys(clients, b"E")
        assert {code(told.result()) for told in heard.values()} == {"57P01"}
        for client in clients.values():
            client.close()
    finally:
        server.kill()


def test_whoever_takes_nothing_of_an_answer_is_given_up_and_keeps_nobody_waiting(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    server = ServerProcess(
        tmp_path_factory.mktemp("stalled") / "data", ("--pg-port=0",), {"KALAM_HTTP_STALL_S": "0.5"}
    ).start()
    try:
        slow = [Raw(server) for _ in range(3)]
        for client in slow:
            client.send(b"Q", b"SELECT a.value FROM generate_series(1, 5000) a, generate_series(1, 5000) b\0")
        with psycopg.connect(url(server), autocommit=True) as connection:
            wait_for(connection, lambda: sessions(server) == 1.0)
            assert connection.execute("SELECT count(*) FROM system.queries").fetchone() == (1,)
        for client in slow:
            client.close()
    finally:
        server.kill()


def test_whoever_reads_slowly_hears_that_the_server_ends(tmp_path_factory: pytest.TempPathFactory) -> None:
    server = ServerProcess(tmp_path_factory.mktemp("slowly") / "data", flags=("--pg-port=0",)).start()
    try:
        client = Raw(server)
        client.send(b"Q", b"SELECT a.value FROM generate_series(1, 100000) a, generate_series(1, 100000) b\0")
        with psycopg.connect(url(server), autocommit=True) as watching:
            wait_for(watching, lambda: stands_still(client, watching))
        with ThreadPoolExecutor() as readers:
            heard = readers.submit(read_slowly, client)
            assert server.stop() == 0
            assert b"C57P01\0" in heard.result()
        client.close()
    finally:
        server.kill()


def test_whoever_leaves_and_takes_nothing_of_the_answers_leaves_no_connection(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("leaving") / "data"
    server = ServerProcess(folder, ("--pg-port=0",), {"KALAM_HTTP_STALL_S": "0.5"}).start()
    try:
        server.sql("CREATE NAMESPACE ns; CREATE TABLE ns.t (id INT PRIMARY KEY, v TEXT)")
        server.sql("INSERT INTO ns.t VALUES (1, $1)", "x" * 15_000)
        asked, clients = message(b"Q", b"SELECT v FROM ns.t WHERE id = 1\0"), []
        for answers in range(12, 400, 12):  # of one the system takes all but the end, and the server holds that
            clients.append(Raw(server))
            clients[-1].socket.sendall(asked * answers + message(b"X", b""))
        with psycopg.connect(url(server), autocommit=True) as connection:
            wait_for(connection, lambda: sessions(server) == 1.0)
            wait_for(connection, lambda: held(server) == 1)
        for client in clients:
            client.close()
    finally:
        server.kill()


@pytest.mark.parametrize("form", ["simple", "extended"])
def test_whoever_asks_for_row_after_row_and_takes_none_fills_no_memory(
    raw: Raw, pg_server: ServerProcess, form: str
) -> None:
    many, size, ns = 300, 900_000, f"untaken_{form}"
    text = f"SELECT v FROM {ns}.t WHERE id = 1\0".encode()
    with psycopg.connect(url(pg_server), autocommit=True) as connection:
        connection.execute(f"CREATE NAMESPACE {ns}")
        connection.execute(f"CREATE TABLE {ns}.t (id INT PRIMARY KEY, v TEXT)")
        connection.execute(f"INSERT INTO {ns}.t VALUES (1, %s)", ("x" * size,))
        raw.send(b"P", b"s\0" + text + b"\0\0")
        raw.send(b"S")
        raw.until(b"Z")
        asked = message(b"Q", text)
        if form == "extended":
            asked = message(b"B", b"\0s\0\0\0\0\0\0\0") + message(b"E", b"\0\0\0\0\0")
        raw.socket.sendall(asked + message(b"S", b""))
        raw.until(b"Z")
        if form == "simple":
            raw.until(b"Z")
        _, _, memory = used(pg_server)
        raw.socket.sendall(asked * many + message(b"S", b""))
        for _ in range(50):  # by then the server has seen all of it
            connection.execute("SELECT 1")
        assert used(pg_server)[2] - memory < 64 << 20  # all of the rows together have 270 MB
        found = raw.until(b"Z")
        for _ in range(many if form == "simple" else 0):
            found += raw.until(b"Z")
        assert [len(body) for kind, body in found if kind == b"D"] == [size + 6] * many
        connection.execute(f"DROP NAMESPACE {ns} CASCADE")


def message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack(">i", len(body) + 4) + body


def url(server: ServerProcess) -> str:
    return str(server.announcement["pg_url"]).replace("//", "//admin@") + "/kalam"


def sessions(server: ServerProcess) -> float:
    """The sessions that the server counts."""
    lines = server.metrics().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("kalam_pg_connections "))


def used(server: ServerProcess) -> tuple[int, int, int]:
    """Files, threads, and bytes of memory of a server's process."""
    assert server.process is not None
    process = Path(f"/proc/{server.process.pid}")
    pages = int((process / "statm").read_text().split()[1])
    return len(list((process / "fd").iterdir())), len(list((process / "task").iterdir())), pages * 4_096


def held(server: ServerProcess) -> int:
    """How many connections of the door are still the server's, and not of the system alone, which sends their rest."""
    port = int(str(server.announcement["pg_url"]).rpartition(":")[2])
    entries = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(at[1].endswith(f":{port:04X}") and at[3] != LISTENS and at[9] != "0" for at in entries)


def stands_still(client: Raw, watching: psycopg.Connection) -> bool:
    """Whether no more comes, as nothing is taken."""

    def come() -> int:
        return int.from_bytes(fcntl.ioctl(client.socket, termios.FIONREAD, bytes(4)), sys.byteorder)

    before = come()
    for _ in range(20):
        watching.execute("SELECT 1")
    return 0 < before == come()


def read_slowly(client: Raw) -> bytes:
    """Read to the end; the last bytes."""
    last = b""
    while data := client.socket.recv(65_536):
        last = (last + data)[-1_000:]
        time.sleep(0.05)
    return last


def wait_for(connection: psycopg.Connection, come: Callable[[], bool]) -> None:
    """Ask the server for something else until it is so; the test's own time limit ends it."""
    while not come():
        connection.execute("SELECT 1")


def _left(server: ServerProcess, kind: bytes, body: bytes) -> None:
    client = Raw(server)
    client.send(kind, body)
    client.close()


def _cancel(server: ServerProcess) -> None:
    client = Raw(server, greet=False)
    client.socket.sendall(struct.pack(">iiiI", 16, 80877102, 1, 7))
    assert client.socket.recv(1) == b""
    client.close()
