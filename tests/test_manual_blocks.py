"""Every block of code of README.md and of the manual is run, page by page, in the order in which a reader comes to it.

One server is there for all pages. It has the settings and flags of every ``kalam serve`` that they tell; of what they
say only addresses are changed. The namespaces of one page are gone before the next begins, so a page stands for itself.
"""

from __future__ import annotations

import re
import socket
from collections import Counter
from collections.abc import Iterator
from http.client import HTTPConnection

import pytest
from guarded_server import PASSWORD, TEAM, GuardedServer, free_port
from lake_readers import duckdb_connection
from manual_blocks import Block, every_block, missing_line, read_blocks, serve_lines
from manual_reader import NoNode, Reader
from patience import PATIENCE_S
from server_process import ServerProcess

from kalam.settings import NO_SETTINGS, Settings

LEFT_OUT = {
    ("security", "text"): (1, "the forms of the statements"),
    ("policies", "text"): (1, "the forms of the statements"),
    ("README", "sh"): (2, "the two commands: CI runs the second, which is this, and tests/test_wheel.py runs the demo"),
    ("README", ""): (2, "drawings"),
    ("sql", "text"): (1, "the grammar of CREATE TABLE"),
    ("files", "text"): (1, "an error, which would end the block"),
    ("protocol", "text"): (1, "the form of an answer"),
    ("http", "toml"): (1, "needs a certificate; tests/contract/test_tls.py has one"),
    ("http", "nginx"): (1, "needs nginx and a certificate"),
    ("http", "caddy"): (1, "needs Caddy and a name in the DNS"),
    ("http", "yaml"): (1, "needs Kubernetes; its settings are looked at below"),
}
"""How many blocks of a page are not run, and why."""
EVERY_BLOCK = every_block()
ORIGIN = "https://the.page.example"


def is_left_out(block: Block) -> bool:
    if block.language == "sh":
        return block.text.startswith("python3 -m venv ")
    if block.language == "text":
        return not block.marks & {"output", "heard"}
    return block.language not in ("sql", "python", "js", "conf")


def pages_with_code() -> list[str]:
    return list(dict.fromkeys(block.page for block in EVERY_BLOCK if not is_left_out(block)))


def test_what_is_not_run_is_counted_and_has_a_reason() -> None:
    left_out = Counter((block.page, block.language) for block in EVERY_BLOCK if is_left_out(block))
    assert left_out == {place: count for place, (count, _) in LEFT_OUT.items()}


def test_the_settings_in_the_blocks_exist() -> None:
    named = {name for block in EVERY_BLOCK for name in re.findall(r"\bKALAM_\w+", block.text)} - NO_SETTINGS
    assert named
    assert {name.removeprefix("KALAM_").lower() for name in named} <= set(Settings.model_fields)


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    folder = tmp_path_factory.mktemp("manual")
    environment, flags = serve_lines()
    environment["KALAM_NATS_WS_ORIGINS"] += ", http://other.example"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        flags[flags.index("--nats-ws-port") + 1] = str(free.getsockname()[1])
    flags[flags.index("--pg-port") + 1] = "0"
    server = ServerProcess(folder / "kalam-data", flags, environment)
    reader = Reader(folder, server)
    reader.prepare()
    duckdb_connection()  # whose extensions are installed then
    try:
        server.start()
        yield reader
    finally:
        server.kill()


@pytest.fixture(scope="module")
def colleague(reader: Reader, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """Somebody at a server whose users log in, with a home of their own, where passwords lie in files."""
    folder = tmp_path_factory.mktemp("team")
    server = GuardedServer.started(folder / "kalam-data", f"--nats-ws-port={free_port()}")
    try:
        colleague = Reader(folder, server, {"HOME": str(folder), "XDG_CONFIG_HOME": ""})
        colleague.prepare()
        colleague.node_home = reader
        (folder / ".config" / "nats" / "context").mkdir(parents=True)
        for user in ("admin", *TEAM):
            (folder / f"{user}.txt").write_text(f"{PASSWORD}\n")
        yield colleague
    finally:
        server.kill()


@pytest.fixture
def newcomer(reader: Reader) -> Iterator[Reader]:
    yield reader
    reader.forget()


@pytest.mark.parametrize("page", pages_with_code())
def test_every_block_of_a_page_does_what_it_says(newcomer: Reader, page: str, request: pytest.FixtureRequest) -> None:
    blocks = [block for block in read_blocks(page) if not is_left_out(block)]
    no_node = None
    printed = ""
    for place, block in enumerate(blocks):
        try:
            reader = request.getfixturevalue("colleague") if block.of_users else newcomer
            printed = follow(reader, block, printed, blocks[place + 1 :])
        except NoNode as exc:
            no_node = str(exc)
    if no_node is not None:
        pytest.skip(f"all but the JavaScript was run: {no_node}")


def follow(reader: Reader, block: Block, printed: str, later: list[Block]) -> str:
    """Do what a block says; what it printed, or what the one before it did."""
    match block:
        case Block(language="text", marks=marks) if "heard" in marks:
            reader.hear(block.text.splitlines())
        case Block(language="text"):
            assert missing_line(block.text.splitlines(), printed) is None, f"{block.place} differs:\n{printed}"
        case Block(listens=True):
            heard = heard_of(later)
            reader.listen(block, heard[:1])
            if not heard:
                reader.hear(block.arrows)
        case _:
            printed = reader.run(block)
            assert missing_line(block.arrows, printed) is None, f"{block.place} prints\n{printed}"
    return printed


def heard_of(later: list[Block]) -> list[str]:
    """What a listening block prints, where that is told further down, before another one listens."""
    block = next((block for block in later if block.marks & {"listens", "heard"}), None)
    return block.text.splitlines() if block is not None and "heard" in block.marks else []


@pytest.mark.parametrize(("origin", "status"), [(ORIGIN, 101), ("https://another.example", 403)])
def test_a_page_of_a_named_origin_may_open_a_web_socket(reader: Reader, origin: str, status: int) -> None:
    connection = HTTPConnection(
        str(reader.server.announcement["nats_ws_url"]).removeprefix("ws://"), timeout=PATIENCE_S
    )
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
    connection.request("GET", "/", headers={**upgrade, "Sec-WebSocket-Key": "x" * 22 + "==", "Origin": origin})
    assert connection.getresponse().status == status
    connection.close()
