"""ALTER TABLE … RENAME TO: rows, rights and numbers stay, changes go on under the new name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from change_feed import connected, read_feed
from patience import PATIENCE_S
from server_process import ServerProcess, SqlFailed

KINDS = pytest.mark.parametrize(
    ("kind", "prefix"), [("SHARED", "shared"), ("USER", "user.ann")], ids=["shared", "user"]
)


def code_of(server: ServerProcess, text: str) -> str:
    with pytest.raises(SqlFailed) as failed:
        server.sql(text, user="ann")
    return str(failed.value.code)


async def seqs(server: ServerProcess, wait_until: Any, subject: str, last: int) -> list[int]:
    """The numbers of the changes that the feed holds under a subject, once the last one is there."""
    found: list[int] = []

    async def is_there() -> bool:
        feed = await read_feed(server.nats_url, subject)
        found[:] = [message.seq + place for message in feed for place in range(len(message.rows))]
        return bool(found) and found[-1] == last

    await wait_until(is_there)
    return found


@KINDS
async def test_rows_stay_and_changes_go_on_under_the_new_name(
    shared_server: ServerProcess, wait_until: Any, kind: str, prefix: str
) -> None:
    server, ns = shared_server, f"renames_{kind.lower()}"
    server.sql(f"CREATE NAMESPACE {ns}; CREATE {kind} TABLE {ns}.a (id INT PRIMARY KEY, v TEXT)")
    server.sql(f"INSERT INTO {ns}.a VALUES (1, 'cold')", user="ann")
    server.sql(f"FLUSH TABLE {ns}.a; ALTER TABLE {ns}.a SET (flush_policy = 'rows:1000')")
    server.sql(f"INSERT INTO {ns}.a VALUES (2, 'hot')", user="ann")
    await seqs(server, wait_until, f"kalam.{prefix}.{ns}.a.>", 2)

    server.sql(f"ALTER TABLE {ns}.a RENAME TO b")
    assert await read_feed(server.nats_url, f"kalam.{prefix}.{ns}.a.>") == []
    assert server.sql(f"SELECT id, v FROM {ns}.b ORDER BY id", user="ann") == [[1, "cold"], [2, "hot"]]
    assert code_of(server, f"SELECT * FROM {ns}.a") == "table_not_found"
    server.sql(f"UPDATE {ns}.b SET v = 'new' WHERE id < 3", user="ann")
    assert await seqs(server, wait_until, f"kalam.{prefix}.{ns}.b.>", 4) == [3, 4]

    # A table of the former name is another one, with a folder and a feed of its own.
    server.sql(f"CREATE {kind} TABLE {ns}.a (id INT PRIMARY KEY)")
    server.sql(f"INSERT INTO {ns}.a VALUES (9)", user="ann")
    assert await seqs(server, wait_until, f"kalam.{prefix}.{ns}.a.>", 1) == [1]
    server.sql(f"FLUSH ALL TABLES IN {ns}; DROP TABLE {ns}.a")
    server.sql(f"COMPACT TABLE {ns}.b")
    assert server.sql(f"SELECT id, v FROM {ns}.b ORDER BY id", user="ann") == [[1, "new"], [2, "new"]]
    server.sql(f"ALTER TABLE {ns}.b RENAME TO a; CREATE {kind} TABLE {ns}.b (id INT PRIMARY KEY)")
    assert code_of(server, f"ALTER TABLE {ns}.b RENAME TO a") == "already_exists"
    server.sql(f"INSERT INTO {ns}.a VALUES (3, 'x')", user="ann")
    assert await seqs(server, wait_until, f"kalam.{prefix}.{ns}.a.>", 5) == [5]
    server.sql(f"DROP NAMESPACE {ns} CASCADE")
    assert not [*server.data_dir.glob(f"*/{ns}/**/*.parquet")]


async def test_who_listens_is_told_and_live_queries_end(shared_server: ServerProcess) -> None:
    server = shared_server
    server.sql("CREATE NAMESPACE told; CREATE TABLE told.a (id INT PRIMARY KEY); INSERT INTO told.a VALUES (1)")
    async with connected(server.nats_url) as client:
        notices = await client.subscribe("kalam.event.table.renamed")
        reply = await client.request("kalam.api.ann.live", b'{"sql": "SELECT * FROM told.a"}', timeout=PATIENCE_S)
        live = await client.subscribe(json.loads(reply.data)["subject"])
        await client.flush()
        server.sql("ALTER TABLE told.a RENAME TO b")
        notice = json.loads((await notices.next_msg(PATIENCE_S)).data)
        assert notice == {"namespace": "told", "table": "a", "to": "b", "kind": "SHARED"}
        while (message := json.loads((await live.next_msg(PATIENCE_S)).data))["type"] != "closed":
            pass
        assert message["reason"] == "the table is called told.b now"
    server.sql("DROP NAMESPACE told CASCADE")


def test_streams_keep_their_names(shared_server: ServerProcess) -> None:
    shared_server.sql("CREATE NAMESPACE kept; CREATE STREAM TABLE kept.ev (id INT)")
    assert code_of(shared_server, "ALTER TABLE kept.ev RENAME TO other") == "unsupported"
    shared_server.sql("DROP NAMESPACE kept CASCADE")


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with a table of cold and hot rows."""
    server = ServerProcess(tmp_path_factory.mktemp("renamed") / "data").start()
    server.sql("CREATE NAMESPACE c; CREATE TABLE c.a (id INT PRIMARY KEY); INSERT INTO c.a VALUES (1); FLUSH TABLE c.a")
    server.sql("INSERT INTO c.a VALUES (2)")
    server.stop()
    return server.data_dir


@pytest.mark.parametrize(("point", "name"), [("rename.before_commit", "a"), ("rename.after_commit", "b")])
async def test_a_rename_that_is_cut_off_is_done_or_not_begun(
    filled: Path, start_kalam: Callable[..., ServerProcess], wait_until: Any, point: str, name: str
) -> None:
    server = start_kalam(start=False)
    shutil.copytree(filled, server.data_dir)
    server.start(KALAM_CRASHPOINT=point)
    with pytest.raises(OSError):  # noqa: PT011 - whichever end of a connection it is
        server.sql("ALTER TABLE c.a RENAME TO b")
    server.wait_end()
    server.restart()
    assert server.sql("SHOW TABLES IN c")[0][:2] == ["c", name]
    assert server.sql(f"SELECT id FROM c.{name} ORDER BY id") == [[1], [2]]
    server.sql(f"INSERT INTO c.{name} VALUES (3)")
    assert (await seqs(server, wait_until, f"kalam.shared.c.{name}.>", 3))[-1] == 3
    other = "b" if name == "a" else "a"
    assert await read_feed(server.nats_url, f"kalam.shared.c.{other}.>") == []
