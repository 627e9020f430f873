"""What a client has to bring in time, how much, and how many clients there may be: told with raw sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import threading
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from server_process import ServerProcess
from starlette.responses import PlainTextResponse

from kalam.rows.door import ARROW_STREAM
from kalam.settings import Settings
from kalam_http import serve_http

BOUND = 65_536
ROWS_BOUND = 131_072


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A real server with small bounds."""
    bounds = {
        "KALAM_HTTP_REQUEST_S": "1",
        "KALAM_HTTP_STALL_S": "1",
        "KALAM_HTTP_KEEP_ALIVE_S": "1",
        "KALAM_STATEMENT_BYTES_MAX": str(BOUND),
        "KALAM_ROWS_BODY_BYTES_MAX": str(ROWS_BOUND),
    }
    server = ServerProcess(tmp_path_factory.mktemp("kalam") / "data", environment=bounds).start()
    server.sql("CREATE NAMESPACE a; CREATE TABLE a.t (k BIGINT)")
    yield server
    server.kill()


def port_of(server: ServerProcess) -> int:
    return int(server.http_url.rpartition(":")[2])


@contextmanager
def connected(server: ServerProcess) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port_of(server)), 20) as client:
        yield client


def head(server: ServerProcess, method: str, path: str, *lines: str) -> bytes:
    lines = (f"{method} {path} HTTP/1.1", f"Host: localhost:{port_of(server)}", *lines, "", "")
    return "\r\n".join(lines).encode()


def rest(client: socket.socket) -> bytes:
    """All that comes until the server closes the connection."""
    found = b""
    try:
        while piece := client.recv(65_536):
            found += piece
    except ConnectionResetError:  # what was sent after the end
        pass
    return found


def first_answer(client: socket.socket) -> bytes:
    """One answer with its body."""
    found = b""
    while b"\r\n\r\n" not in found:
        piece = client.recv(65_536)
        assert piece, found
        found += piece
    length = re.search(rb"content-length: (\d+)", found, re.IGNORECASE)
    whole = found.index(b"\r\n\r\n") + 4 + (int(length[1]) if length else 0)
    while len(found) < whole:
        found += client.recv(65_536)
    return found


def told(answer: bytes) -> tuple[int, str]:
    """The status and the code of an answer."""
    lines, _, body = answer.partition(b"\r\n\r\n")
    return int(lines.split()[1]), json.loads(body)["code"]


@contextmanager
def dripping(clients: Iterable[socket.socket]) -> Iterator[None]:
    """Sends a byte on each now and then."""
    over, left = threading.Event(), list(clients)

    def drip() -> None:
        while not over.wait(0.1):
            for client in list(left):
                try:
                    client.sendall(b"\x01")
                except OSError:
                    left.remove(client)

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def ends_of(server: ServerProcess, begun: Iterable[bytes], *, drips: bool) -> list[bytes]:
    """What requests that are begun, and never whole, are told in the end."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connected(server)) for _ in begun]
        for client, half in zip(clients, begun, strict=True):
            client.sendall(half)
        if drips:
            stack.enter_context(dripping(clients))
        return [rest(client) for client in clients]


# Time


@pytest.mark.parametrize("drips", [False, True])
def test_a_head_that_does_not_end_is_given_up(server: ServerProcess, drips: bool) -> None:
    begun = [b"GET /livez HT", b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Long: "]
    assert [told(end) for end in ends_of(server, begun, drips=drips)] == [(408, "timeout")] * 2


def test_a_connection_that_says_nothing_is_closed(server: ServerProcess) -> None:
    with connected(server) as client:
        assert rest(client) == b""


@pytest.mark.parametrize("drips", [False, True])
def test_a_body_that_makes_no_progress_is_given_up(server: ServerProcess, drips: bool) -> None:
    begun = [
        head(server, "POST", path, f"Content-Type: {media_type}", length)
        + (b"3E8\r\n" if "chunked" in length else b"")
        + piece
        for length in ("Content-Length: 1000", "Transfer-Encoding: chunked")
        for path, media_type, piece in (
            ("/v1/sql", "application/json", b'{"'),
            ("/v1/tables/a/t/rows", "application/x-ndjson", b'{"'),
            ("/v1/tables/a/t/rows", "text/csv", b"k\n1"),
            ("/v1/tables/a/t/rows", ARROW_STREAM, b"\xff\xff\xff\xff"),
        )
    ]
    ends = ends_of(server, begun, drips=drips)
    assert [told(end) for end in ends] == [(408, "timeout")] * 8
    assert [b'"stored":"unknown"' in end for end in ends] == [False, True, True, True] * 2


def test_a_second_request_of_a_connection_is_bounded_like_its_first(server: ServerProcess) -> None:
    with connected(server) as client:
        client.sendall(head(server, "GET", "/livez"))
        assert first_answer(client).endswith(b"ok\n")
        client.sendall(b"GET /liv")
        assert told(rest(client)) == (408, "timeout")


def test_a_body_that_comes_slowly_and_goes_on_is_taken(server: ServerProcess) -> None:
    body = json.dumps({"sql": "SELECT 7" + " " * 8_000}).encode()
    pieces = [body[i : i + 2_000] for i in range(0, len(body), 2_000)]
    with connected(server) as client:
        client.sendall(
            head(server, "POST", "/v1/sql", "Content-Type: application/json", f"Content-Length: {len(body)}")
        )
        for piece in pieces:
            threading.Event().wait(0.5)  # slow is what is tried: in all it takes longer than the bound
            client.sendall(piece)
        assert b'"rows":[[7]]' in first_answer(client)


def test_a_connection_that_is_idle_after_its_answer_is_closed(server: ServerProcess) -> None:
    with connected(server) as client:
        client.sendall(head(server, "GET", "/livez"))
        assert rest(client).endswith(b"ok\n")


def test_many_half_requests_are_gone_and_others_are_served(server: ServerProcess) -> None:
    clients = [socket.create_connection(("127.0.0.1", port_of(server)), 20) for _ in range(600)]
    try:
        for number, client in enumerate(clients):
            half = head(server, "POST", "/v1/sql", "Content-Type: application/json", "Content-Length: 9")
            client.sendall(half if number % 2 else half[:-2])
        assert server.sql("SELECT 1") == [[1]]
        assert {told(rest(client)) for client in clients} == {(408, "timeout")}
    finally:
        for client in clients:
            client.close()


@pytest.mark.parametrize("path", ["/v1/sql", "/v1/live?sql=SELECT+*+FROM+a.t"])
def test_a_client_that_takes_nothing_of_its_answer_is_cut_off(server: ServerProcess, path: str) -> None:
    body = json.dumps({"sql": "SELECT repeat('x', 1000) AS x FROM generate_series(1, 30000)"}).encode()
    before = counted(server, "answer")
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        client.connect(("127.0.0.1", port_of(server)))
        if path == "/v1/sql":
            client.sendall(
                head(server, "POST", path, "Content-Type: application/json", f"Content-Length: {len(body)}") + body
            )
        else:
            client.sendall(head(server, "GET", path))
            for _ in range(12):
                server.sql("INSERT INTO a.t SELECT value FROM generate_series(1, 20000)")
        while counted(server, "answer") == before:
            threading.Event().wait(0.1)
    assert "a client that takes nothing of its answer is cut off" in server.log_text()
    assert "ASGI" not in server.log_text()


def counted(server: ServerProcess, what: str) -> float:
    found = re.search(rf'kalam_http_connections_given_up_total{{what="{what}"}} (\S+)', server.metrics())
    return float(found[1]) if found else 0.0


# Size


def routes(server: ServerProcess) -> list[tuple[str, str]]:
    with urllib.request.urlopen(f"{server.http_url}/openapi.json") as answer:
        paths = json.load(answer)["paths"]
    found = [(method.upper(), re.sub(r"{\w+}", "x", path)) for path, methods in paths.items() for method in methods]
    return [*found, ("POST", "/nowhere"), ("PUT", "/v1/sql"), ("HEAD", "/livez")]


@pytest.mark.parametrize("expect", [False, True])
def test_a_length_beyond_the_bound_is_refused_before_the_body_comes_on_every_route(
    server: ServerProcess, expect: bool
) -> None:
    found = routes(server)
    assert len(found) >= 10
    for method, path in found:
        bound = ROWS_BOUND if path.startswith("/v1/tables/") else BOUND
        lines = [f"Content-Length: {bound + 1}", *(["Expect: 100-continue"] if expect else [])]
        with connected(server) as client:
            client.sendall(head(server, method, path, *lines))
            answer = first_answer(client) if method != "HEAD" else client.recv(65_536)
            assert answer.startswith(b"HTTP/1.1 413 "), (method, path, answer)
            if method != "HEAD":
                assert told(answer) == (413, "too_large")


def test_a_client_that_is_refused_while_it_waits_to_be_asked_reads_the_end(server: ServerProcess) -> None:
    with connected(server) as client:
        client.sendall(head(server, "POST", "/v1/sql", "Content-Length: 999999999", "Expect: 100-continue"))
        assert told(rest(client)) == (413, "too_large")


def test_a_client_that_waits_to_be_asked_is_asked(server: ServerProcess) -> None:
    with connected(server) as client:
        lines = ("Content-Type: application/json", "Content-Length: 19", "Expect: 100-continue")
        client.sendall(head(server, "POST", "/v1/sql", *lines))
        assert client.recv(65_536).startswith(b"HTTP/1.1 100 ")
        client.sendall(b'{"sql": "SELECT 7"}')
        assert b'"rows":[[7]]' in first_answer(client)


@pytest.mark.parametrize(
    ("method", "path", "media_type"),
    [
        ("POST", "/v1/sql", "application/json"),
        ("POST", "/v1/tables/a/t/rows", "application/x-ndjson"),
        ("POST", "/v1/tables/a/t/rows", "text/csv"),
        ("POST", "/v1/tables/a/t/rows", ARROW_STREAM),
    ],
)
def test_a_body_in_pieces_is_refused_once_it_is_too_long(
    server: ServerProcess, method: str, path: str, media_type: str
) -> None:
    fields = {ARROW_STREAM: b"\xff\xff\xff\xff\x00\x00\x10\x00", "text/csv": b"k\n"}
    with connected(server) as client:
        client.sendall(head(server, method, path, f"Content-Type: {media_type}", "Transfer-Encoding: chunked"))
        for piece in (fields.get(media_type, b"\n"), *([b" " * 16_384] * 8), b" "):
            client.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
        assert told(first_answer(client)) == (413, "too_large")


def test_a_body_that_nobody_asked_for_does_not_keep_its_connection(server: ServerProcess) -> None:
    with connected(server) as client:
        client.sendall(head(server, "GET", "/livez", "Transfer-Encoding: chunked") + b"ffffff\r\n")
        assert first_answer(client).endswith(b"ok\n")
        with dripping([client]):
            rest(client)


def test_what_is_sent_after_a_refusal_is_dropped_and_then_the_connection(server: ServerProcess) -> None:
    with connected(server) as client:
        client.sendall(head(server, "POST", "/v1/sql", "Content-Length: 9999999"))
        client.sendall(b" " * 4_000_000)
        assert told(first_answer(client)) == (413, "too_large")
        with dripping([client]):
            rest(client)


@pytest.mark.parametrize(
    "lines",
    [
        (f"Content-Length: {'9' * 30}",),
        ("Content-Length: -1",),
        ("Content-Length: 1", "Content-Length: 2"),
        ("Transfer-Encoding: gzip",),
        (f"X-Long: {'x' * 20_000}",),
    ],
)
def test_a_head_that_is_not_http_is_told_as_every_error(server: ServerProcess, lines: tuple[str, ...]) -> None:
    with connected(server) as client:
        client.sendall(head(server, "POST", "/v1/sql", *lines))
        assert told(rest(client))[0] in (400, 413)


def test_a_piece_that_is_not_http_ends_its_request(server: ServerProcess) -> None:
    with connected(server) as client:
        lines = ("Content-Type: application/json", "Transfer-Encoding: chunked")
        client.sendall(head(server, "POST", "/v1/sql", *lines) + b"zz\r\n")
        assert told(rest(client)) == (400, "invalid_value")
    assert "Fatal error" not in server.log_text()


# Number


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await PlainTextResponse("hello")(scope, receive, send)


async def opened(port: int, source: str = "127.0.0.1") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
    writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    return reader, writer


async def status_of(reader: asyncio.StreamReader) -> bytes:
    return (await reader.readuntil(b"\r\n")).split()[1]


@pytest.mark.parametrize(
    ("bounds", "sources"),
    [
        ({"http_connections_max": 3}, ["127.0.0.1", "127.0.0.2", "127.0.0.1", "127.0.0.3"]),
        ({"http_connections_per_address_max": 2}, ["127.0.0.1", "127.0.0.2", "127.0.0.1", "127.0.0.1"]),
    ],
)
async def test_one_connection_too_many_is_refused_until_another_is_closed(
    bounds: dict[str, int], sources: list[str], wait_until: Callable[[Callable[[], Any]], Any]
) -> None:
    async with serve_http(hello, Settings(http_port=0, **bounds)) as listening:
        port = int(listening.url.rpartition(":")[2])
        clients = [await opened(port, source) for source in sources[:-1]]
        assert [await status_of(reader) for reader, _ in clients] == [b"200", b"200", b"200"]
        refused, writer = await opened(port, sources[-1])
        answer = await refused.read()
        assert told(answer) == (429, "too_busy")
        assert next(iter(bounds)).encode() in answer
        clients[0][1].close()

        async def is_served() -> bool:
            reader, writer = await opened(port, sources[-1])
            clients.append((reader, writer))
            return await status_of(reader) == b"200"

        await wait_until(is_served)
        for _, writer in clients:
            writer.close()


def test_the_connections_are_counted(server: ServerProcess) -> None:
    with connected(server) as client:
        client.sendall(head(server, "GET", "/livez"))
        first_answer(client)
        text = server.metrics()
    assert re.search(r"^kalam_http_connections [1-9]", text, re.MULTILINE)
    assert "kalam_http_connections_refused_total 0.0" in text
