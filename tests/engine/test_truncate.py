"""TRUNCATE: every row goes at once, as one change that has a number and no rows."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from change_feed import connected, read_feed
from patience import PATIENCE_S
from server_process import ServerProcess, SqlFailed

import kalam

KINDS = pytest.mark.parametrize(
    ("kind", "prefix"), [("SHARED", "shared"), ("USER", "user.ann")], ids=["shared", "user"]
)


def code_of(server: ServerProcess, text: str) -> str:
    with pytest.raises(SqlFailed) as failed:
        server.sql(text)
    return str(failed.value.code)


def fill(server: ServerProcess, table: str, user: str = "ann") -> None:
    """Rows in segments of both sorts, hot ones, and such that hide others: eight changes, of which six are told of."""
    server.sql(f"INSERT INTO {table} VALUES (1, 'a'), (2, 'b'), (3, 'c')", user=user)
    server.sql(f"FLUSH TABLE {table}")
    server.sql(f"DELETE FROM {table} WHERE id = 1", user=user)
    server.sql(f"UPDATE {table} SET v = 'x' WHERE id = 2", user=user)
    server.sql(f"FLUSH TABLE {table}")
    server.sql(f"INSERT INTO {table} VALUES (1, 'd')", user=user)


async def told(server: ServerProcess, wait_until: Any, subject: str, last: int) -> list[tuple[str, int, int]]:
    """Operation, number and rows of each message of a feed, once the last change is there."""
    found: list[tuple[str, int, int]] = []

    async def is_there() -> bool:
        feed = await read_feed(server.nats_url, subject)
        found[:] = [(message.op, message.seq, len(message.rows)) for message in feed]
        return bool(found) and found[-1][1] + max(found[-1][2], 1) - 1 == last

    await wait_until(is_there)
    return found


@KINDS
async def test_every_row_goes_as_one_change_and_numbers_go_on(
    shared_server: ServerProcess, wait_until: Any, kind: str, prefix: str
) -> None:
    server, ns = shared_server, f"emptied_{kind.lower()}"
    t, sql = f"{ns}.t", shared_server.sql
    sql(f"CREATE NAMESPACE {ns}; CREATE {kind} TABLE {t} (id INT PRIMARY KEY, v TEXT)")
    fill(server, t)
    if kind == "USER":
        fill(server, t, "bob")
    assert sql(f"SELECT v FROM {t} WHERE id = 3", user="ann") == [["c"]]
    sql(f"TRUNCATE TABLE {t}")
    for user in ("ann", "bob"):
        assert sql(f"SELECT * FROM {t}", user=user) == sql(f"SELECT * FROM {t} WHERE _deleted", user=user) == []
        assert sql(f"SELECT count(*) FROM {t}", user=user) == [[0]]
        assert sql(f"SELECT v FROM {t} WHERE id = 3", user=user) == []
    assert sql(f"SELECT count(*) FROM system.segments WHERE namespace = '{ns}'") == [[0]]
    sql(f"INSERT INTO {t} VALUES (3, 'new'), (4, 'new')", user="ann")
    sql(f"FLUSH TABLE {t}; COMPACT TABLE {t}")
    assert sql(f"SELECT id, v FROM {t} ORDER BY id", user="ann") == [[3, "new"], [4, "new"]]
    sql(f"TRUNCATE {t}")
    sql(f"INSERT INTO {t} VALUES (3, 'last')", user="ann")
    feed = await told(server, wait_until, f"kalam.{prefix}.{ns}.t.>", 11)
    assert feed == [
        ("insert", 1, 3),
        ("delete", 4, 1),
        ("update", 5, 1),
        ("insert", 6, 1),
        ("truncate", 7, 0),
        ("insert", 8, 2),
        ("truncate", 10, 0),
        ("insert", 11, 1),
    ]
    sql(f"DROP NAMESPACE {ns} CASCADE")


async def test_live_queries_are_told_to_begin_anew_and_no_resume_crosses_it(shared_server: ServerProcess) -> None:
    server = shared_server
    server.sql("CREATE NAMESPACE anew; CREATE TABLE anew.t (id INT PRIMARY KEY, v TEXT)")
    fill(server, "anew.t")
    async with (
        connected(server.nats_url) as client,
        kalam.connect(server.nats_url) as k,
        k.live("SELECT * FROM anew.t", key="id") as live,
    ):
        changes = aiter(live)
        assert [(await anext(changes)).op for _ in range(3)] == ["snapshot"] * 3
        reply = await client.request("kalam.api.ann.live", b'{"sql": "SELECT * FROM anew.t"}', timeout=PATIENCE_S)
        plain = await client.subscribe(json.loads(reply.data)["subject"])
        while (message := json.loads((await plain.next_msg(PATIENCE_S)).data))["type"] != "ready":
            pass
        server.sql("TRUNCATE anew.t; INSERT INTO anew.t VALUES (9, 'new')")
        while (message := json.loads((await plain.next_msg(PATIENCE_S)).data))["type"] == "heartbeat":
            pass
        assert message == {"type": "resync", "seq": 7}
        message = json.loads((await plain.next_msg(PATIENCE_S)).data)
        assert [(change["op"], change["seq"]) for change in message["changes"]] == [("insert", 8)]
        async with asyncio.timeout(PATIENCE_S):
            assert [(await anext(changes)).op for _ in range(2)] == ["reset", "snapshot"]
        assert [row["id"] for row in live.rows] == [9]
        for flushed in (False, True):  # what is asked for lies in the log, and then in the feed alone
            body = b'{"sql": "SELECT * FROM anew.t", "from_seq": 3}'
            answer = json.loads((await client.request("kalam.api.ann.live", body, timeout=PATIENCE_S)).data)
            code = answer.get("code")
            if code is None:
                sub = await client.subscribe(answer["subject"])
                while (message := json.loads((await sub.next_msg(PATIENCE_S)).data))["type"] != "closed":
                    pass
                code = message["reason"].partition(":")[0]
            assert code == "cursor_expired", flushed
            server.sql("FLUSH TABLE anew.t")
    server.sql("DROP TABLE anew.t CASCADE; DROP NAMESPACE anew")


def test_a_stream_is_purged_and_its_numbers_go_on(shared_server: ServerProcess) -> None:
    sql = shared_server.sql
    sql("CREATE NAMESPACE purged; CREATE STREAM TABLE purged.ev (id INT)")
    sql("INSERT INTO purged.ev VALUES (1), (2); SELECT * FROM purged.ev; TRUNCATE purged.ev")
    assert sql("SELECT * FROM purged.ev") == []
    sql("INSERT INTO purged.ev VALUES (3)")
    assert [[key.split(":")[1], number] for key, number in sql("SELECT _key, id FROM purged.ev")] == [["3", 3]]
    stats = dict(sql("SHOW STATS FOR TABLE purged.ev"))
    assert (stats["deleted"], stats["evicted"]) == ("2", "0")
    sql("DROP NAMESPACE purged CASCADE")


def test_writes_meanwhile_are_before_or_behind_it(shared_server: ServerProcess) -> None:
    """Whoever sees a row that was inserted behind a TRUNCATE sees none from before."""
    sql = shared_server.sql
    sql("CREATE NAMESPACE busy; CREATE TABLE busy.t (id BIGINT PRIMARY KEY, round INT)")
    for number in range(5):
        sql("INSERT INTO busy.t SELECT value, $1 FROM generate_series(1, 200)", number)
        if number % 2:
            sql("FLUSH TABLE busy.t")
        sql("TRUNCATE busy.t; INSERT INTO busy.t SELECT value, $1 FROM generate_series(1, 100)", number + 100)
        assert sql("SELECT count(*), min(round) FROM busy.t") == [[100, number + 100]]
        sql("DELETE FROM busy.t WHERE id > 50; UPDATE busy.t SET round = round + 1; TRUNCATE busy.t")
    assert sql("SELECT count(*) FROM busy.t") == [[0]]
    sql("DROP NAMESPACE busy CASCADE")


def test_what_cannot_be_emptied_says_so(shared_server: ServerProcess) -> None:
    assert code_of(shared_server, "TRUNCATE nowhere.t") == "namespace_not_found"
    assert code_of(shared_server, "TRUNCATE a.t, a.u") == "unsupported"
    assert code_of(shared_server, "TRUNCATE a.t CASCADE") == "unsupported"


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with rows of every sort."""
    server = ServerProcess(tmp_path_factory.mktemp("emptied") / "data").start()
    server.sql("CREATE NAMESPACE c; CREATE TABLE c.t (id INT PRIMARY KEY, v TEXT)")
    fill(server, "c.t")
    server.stop()
    return server.data_dir


@pytest.mark.parametrize("point", ["truncate.before_commit", "truncate.after_commit", "outbox.before_publish"])
async def test_one_that_is_cut_off_is_done_or_not_begun(
    filled: Path, start_kalam: Callable[..., ServerProcess], wait_until: Any, point: str
) -> None:
    server = start_kalam(start=False)
    shutil.copytree(filled, server.data_dir)
    server.start(KALAM_CRASHPOINT=point)
    with suppress(OSError):  # the feed is told behind the answer
        server.sql("TRUNCATE c.t")
    server.wait_end()
    server.restart()
    done = point != "truncate.before_commit"
    assert server.sql("SELECT id, v FROM c.t ORDER BY id") == ([] if done else [[1, "d"], [2, "x"], [3, "c"]])
    server.sql("INSERT INTO c.t VALUES (4, 'more')")
    feed = await told(server, wait_until, "kalam.shared.c.t.>", server_seq := 8 if done else 7)
    assert feed[4:] == ([("truncate", 7, 0)] if done else []) + [("insert", server_seq, 1)]
    kept = {path for [path] in server.sql("SELECT path FROM system.segments")}
    assert len(kept) == (0 if done else 3)
