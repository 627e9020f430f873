"""UPDATE and DELETE of more rows than are changed in memory: one change, of any size."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from change_feed import FeedMessage, connected, read_feed
from flush_pause import worker_process
from held_process import held
from patience import PATIENCE_S
from policy_server import policy_server
from server_process import ServerProcess, SqlFailed
from small_disk import fill as fill_disk
from small_disk import small_disk

import kalam
from kalam.schema import Column, Compression, DataType, TypeName
from kalam.storage.work.numbered_output import NumberedFile
from kalam.storage.work.output_file import SegmentsRequest

BOUND = 500
KINDS = pytest.mark.parametrize(
    ("kind", "prefix"), [("SHARED", "shared"), ("USER", "user.ann")], ids=["shared", "user"]
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server on which a statement of more than BOUND rows is a large one."""
    opened = ServerProcess(tmp_path_factory.mktemp("large") / "data").start(KALAM_STATEMENT_ROWS_MAX=str(BOUND))
    yield opened
    opened.kill()


def failure(server: ServerProcess, text: str, **options: Any) -> SqlFailed:
    with pytest.raises(SqlFailed) as failed:
        server.sql(text, **options)
    return failed.value


def fill(server: ServerProcess, table: str, rows: int, first: int = 1, user: str = "ann") -> None:
    for start in range(first, first + rows, BOUND):
        last = min(start + BOUND, first + rows) - 1
        server.sql(
            f"INSERT INTO {table} (id, v, n) SELECT value, 'v' || value, value FROM generate_series({start}, {last})",
            user=user,
        )


async def told(server: ServerProcess, wait_until: Any, subject: str, last: int) -> list[FeedMessage]:
    """The messages of a feed, once its last change is there; they follow each other without a hole."""
    found: list[FeedMessage] = []

    async def is_there() -> bool:
        found[:] = await read_feed(server.nats_url, subject)
        return bool(found) and found[-1].seq + len(found[-1].rows) - 1 >= last

    await wait_until(is_there)
    following = found[0].seq
    for message in found:
        assert message.seq == following
        following += len(message.rows)
    assert following == last + 1
    return found


async def swept(server: ServerProcess, wait_until: Any) -> None:
    """Wait until nothing lies beside the log, and look that no file does beside the segments."""

    async def is_clean() -> bool:
        return server.sql("SELECT count(*) FROM system.jobs WHERE status = 'running'") == [[0]] and not [
            *server.data_dir.glob("*/*/*/.*.tmp")
        ]

    await wait_until(is_clean)


@KINDS
async def test_rows_of_every_sort_are_changed_as_one_change(
    server: ServerProcess, wait_until: Any, kind: str, prefix: str
) -> None:
    """Hot rows, rows in several segments, some of an older schema, overridden, deleted, revived ones."""
    ns = f"any_{kind.lower()}"
    t = f"{ns}.t"

    def sql(text: str) -> list[Any]:
        return server.sql(text, user="ann")

    server.sql(f"CREATE NAMESPACE {ns}; CREATE {kind} TABLE {t} (id INT PRIMARY KEY, v TEXT, n BIGINT NOT NULL)")
    fill(server, t, 1200)
    if kind == "USER":
        fill(server, t, 3, user="bob")
    sql(f"FLUSH TABLE {t}; UPDATE {t} SET v = 'again' WHERE id = 3; DELETE FROM {t} WHERE id IN (5, 6)")
    sql(f"FLUSH TABLE {t}; INSERT INTO {t} VALUES (5, 'back', 5); ALTER TABLE {t} ADD COLUMN c INT DEFAULT 7")
    fill(server, t, 300, first=2001)
    before = len(await told(server, wait_until, f"kalam.{prefix}.{ns}.t.>", 1504))
    assert sql(f"UPDATE {t} SET v = v || '!', n = n + c WHERE id <> 1") == "1498 rows updated"
    model = {row_id: (f"v{row_id}!", row_id + 7, 7) for row_id in (*range(1, 1201), *range(2001, 2301)) if row_id != 6}
    model |= {1: ("v1", 1, 7), 3: ("again!", 10, 7), 5: ("back!", 12, 7)}

    def rows() -> dict[int, tuple[str, int, int]]:
        found = sql(f"SELECT id, v, n, c FROM {t}")
        assert len(found) == len(model)
        return {row_id: tuple(row) for row_id, *row in found}

    assert rows() == model
    assert sql(f"SELECT v, c FROM {t} WHERE id = 2300") == [["v2300!", 7]]
    assert sql(f"SELECT count(*) FROM {t}") == [[len(model)]]
    feed = (await told(server, wait_until, f"kalam.{prefix}.{ns}.t.>", 1504 + 1498))[before:]
    assert {message.op for message in feed} == {"update"}
    for message in feed:
        for row, old in zip(message.rows, message.old or (), strict=True):
            assert (row["v"], row["n"]) == (old["v"] + "!", old["n"] + 7)
    assert {row["id"] for message in feed for row in message.rows} == model.keys() - {1}
    assert sql(f"DELETE FROM {t} WHERE id % 3 <> 0") == "1000 rows deleted"
    model = {row_id: row for row_id, row in model.items() if row_id % 3 == 0}
    assert rows() == model
    assert sql(f"SELECT count(*), min(_updated) = max(_updated) FROM {t} WHERE _deleted AND id <> 6") == [[1000, True]]
    sql(f"INSERT INTO {t} VALUES (1, 'new', 1, 1)")
    assert failure(server, f"INSERT INTO {t} VALUES (3, 'x', 1, 1)", user="ann").code == "duplicate_key"
    sql(f"UPDATE {t} SET v = 'last' WHERE id = 3; DELETE FROM {t} WHERE id = 9; COMPACT TABLE {t}; CHECK TABLE {t}")
    model |= {1: ("new", 1, 1), 3: ("last", 10, 7)}
    del model[9]
    assert rows() == model
    feed = await told(server, wait_until, f"kalam.{prefix}.{ns}.t.>", 1504 + 1498 + 1000 + 3)
    deleted = [row["id"] for message in feed if message.op == "delete" for row in message.rows]
    assert len(deleted) == 2 + 1000 + 1
    if kind == "USER":
        assert server.sql(f"SELECT id, v FROM {t} ORDER BY id", user="bob") == [[1, "v1"], [2, "v2"], [3, "v3"]]
    jobs = server.sql(f"SELECT status FROM system.jobs WHERE job_type = 'change' AND namespace = '{ns}'")
    assert jobs == [["completed"]] * 2
    await swept(server, wait_until)
    server.sql(f"DROP NAMESPACE {ns} CASCADE")


async def test_live_queries_and_views_begin_anew_and_a_resume_goes_through_the_feed(
    server: ServerProcess, wait_until: Any
) -> None:
    sql = server.sql
    sql("CREATE NAMESPACE anylive; CREATE TABLE anylive.t (id INT PRIMARY KEY, v TEXT, n BIGINT)")
    fill(server, "anylive.t", 700)
    sql("CREATE MATERIALIZED VIEW anylive.w AS SELECT id, n * 2 AS m FROM anylive.t WHERE n > 10")
    sql(
        "CREATE MATERIALIZED VIEW anylive.g AS "
        "SELECT n % 2 AS odd, count(*) AS c, sum(n) AS s FROM anylive.t GROUP BY 1"
    )

    async def follow() -> bool:
        return sql("SELECT sum(c) FROM anylive.g") == [[700]] and sql("SELECT count(*) FROM anylive.w") == [[690]]

    await wait_until(follow)
    async with connected(server.nats_url) as client, kalam.connect(server.nats_url) as k:
        async with k.live("SELECT * FROM anylive.t WHERE id <= 2", key="id") as live:
            changes = aiter(live)
            assert [(await anext(changes)).op for _ in range(2)] == ["snapshot"] * 2
            sql("UPDATE anylive.t SET n = n + 1000")
            async with asyncio.timeout(PATIENCE_S):
                while sorted(row["n"] for row in live.rows) != [1001, 1002]:
                    # A resync, behind which the client goes on by what the feed has by then, or by a snapshot.
                    assert (await anext(changes)).op in ("update", "reset", "snapshot")
                sql("UPDATE anylive.t SET n = 1 WHERE id = 1")
                assert (await anext(changes)).op == "update"
        expected = sql("SELECT n % 2, count(*), sum(n) FROM anylive.t GROUP BY 1 ORDER BY 1")

        async def is_so() -> bool:
            return sql("SELECT odd, c, s FROM anylive.g ORDER BY odd") == expected and sql(
                "SELECT count(*), sum(m) FROM anylive.w"
            ) == sql("SELECT count(*), sum(n * 2) FROM anylive.t WHERE n > 10")

        await wait_until(is_so)
        await told(server, wait_until, "kalam.shared.anylive.t.>", 1401)
        body = b'{"sql": "SELECT id, n FROM anylive.t WHERE id = 7", "from_seq": 700}'
        answer = json.loads((await client.request("kalam.api.ann.live", body, timeout=PATIENCE_S)).data)
        sub = await client.subscribe(answer["subject"])
        while (message := json.loads((await sub.next_msg(PATIENCE_S)).data))["type"] != "changes":
            assert message["type"] != "closed", message
        assert [(change["op"], change["row"]["n"]) for change in message["changes"]] == [("update", 1007)]


@pytest.fixture(scope="module")
def kept(server: ServerProcess) -> tuple[str, list[Any]]:
    """A table that nothing changes, and its rows."""
    server.sql("CREATE NAMESPACE kept; CREATE TABLE kept.t (id INT PRIMARY KEY, v TEXT, n BIGINT NOT NULL, d DATE)")
    fill(server, "kept.t", 900)
    return "kept.t", server.sql("SELECT id, v, n, _updated FROM kept.t ORDER BY id")


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("UPDATE {t} SET n = CASE WHEN id = 800 THEN NULL ELSE 1 END", "not_null_violation", "n"),
        ("UPDATE {t} SET n = 10 / (id - 900)", "invalid_value", "column n"),
        ("UPDATE {t} SET v = 'x', d = CASE WHEN id = 899 THEN v ELSE '2026-01-01' END", "invalid_value", "column d"),
        ("DELETE FROM {t} WHERE 10 / (id - 900) < 100", "invalid_value", "zero"),
        ("UPDATE {t} SET id = id + 10000", "too_large", "sets id"),
        ("UPDATE {t} SET n = 1 RETURNING id", "too_large", "RETURNING"),
        ("UPDATE {t} SET v = repeat('x', CASE WHEN id = 900 THEN 2000000 ELSE 1 END)", "too_large", "row_bytes_max"),
        ("UPDATE {t} SET nothing = 1", "column_not_found", "nothing"),
    ],
)
async def test_one_row_that_is_wrong_changes_nothing(
    server: ServerProcess, wait_until: Any, kept: tuple[str, list[Any]], text: str, code: str, said: str
) -> None:
    table, rows = kept
    error = failure(server, text.format(t=table))
    assert (error.code, said in error.problem["detail"]) == (code, True), error.problem
    assert server.sql(f"SELECT id, v, n, _updated FROM {table} ORDER BY id") == rows
    await swept(server, wait_until)


async def test_what_others_write_meanwhile_is_kept(server: ServerProcess, wait_until: Any) -> None:
    """Inserts go on, and a counter that others raise between large updates ends at the sum."""
    sql = server.sql
    sql("CREATE NAMESPACE anymany; CREATE TABLE anymany.t (id BIGINT PRIMARY KEY, v TEXT, n BIGINT)")
    fill(server, "anymany.t", 600)
    over, inserted, raised = threading.Event(), [], []

    def insert() -> None:
        number = 1_000_000
        while not over.is_set():
            sql(f"INSERT INTO anymany.t VALUES ({number}, 'i', 0)")
            inserted.append(number)
            number += 1

    def increment() -> None:
        while not over.is_set():
            sql("UPDATE anymany.t SET n = n + 1000 WHERE id = 1")
            raised.append(1)

    others = [threading.Thread(target=work) for work in (insert, increment)]
    for other in others:
        other.start()
    for _ in range(2):
        await asyncio.to_thread(sql, "UPDATE anymany.t SET n = n + 1 WHERE id <= 600")
    over.set()
    for other in others:
        other.join()
    assert inserted
    assert sql("SELECT n FROM anymany.t WHERE id = 1") == [[1 + 2 + 1000 * len(raised)]]
    assert sql("SELECT count(*), sum(n) FROM anymany.t WHERE id BETWEEN 2 AND 600") == [
        [599, sum(range(2, 601)) + 2 * 599]
    ]
    assert [row[0] for row in sql("SELECT id FROM anymany.t WHERE id >= 1000000 ORDER BY id")] == inserted
    await told(server, wait_until, "kalam.shared.anymany.t.>", 600 + len(inserted) + len(raised) + 2 * 600)
    sql("DROP NAMESPACE anymany CASCADE")


@contextmanager
def held_change(server: ServerProcess, text: str) -> Iterator[Future[Any]]:
    """Begin a large change and hold its process as soon as it is there; it goes on at the end of the block."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(server.sql, text)
        deadline, pid = time.monotonic() + PATIENCE_S, 0
        while not pid:
            assert not future.done(), future.result()
            assert time.monotonic() < deadline, "the change has no process"
            with suppress(AssertionError):
                pid = worker_process(server, "change_worker")
        with held(pid):
            yield future


@pytest.mark.parametrize("how", ["job", "query", "drop", "truncate", "stop", "kill"])
async def test_one_that_is_ended_in_its_midst_changes_nothing(
    server: ServerProcess, start_kalam: Callable[..., ServerProcess], wait_until: Any, how: str
) -> None:
    if how in ("stop", "kill"):
        server = start_kalam(KALAM_STATEMENT_ROWS_MAX=str(BOUND))
    sql, t = server.sql, f"ended_{how}.t"
    sql(f"CREATE NAMESPACE ended_{how}; CREATE TABLE {t} (id INT PRIMARY KEY, v TEXT, n BIGINT)")
    sql(f"CREATE TABLE {t}2 (id INT PRIMARY KEY)")
    fill(server, t, 600)
    rows = [[600, sum(range(1, 601))]]
    with held_change(server, f"UPDATE {t} SET n = n + 1") as future:
        sql(f"INSERT INTO {t}2 VALUES (1); UPDATE {t}2 SET id = 2; FLUSH TABLE {t}2")
        sql(f"INSERT INTO {t} VALUES (1000, 'new', 0)")  # neither it nor who reads waits
        assert sql(f"SELECT count(*), sum(n) FROM {t} WHERE id < 1000") == rows
        assert sql(f"SELECT n FROM {t} WHERE id = 600") == [[600]]
        match how:
            case "job":
                [[job]] = sql("SELECT job_id FROM system.jobs WHERE job_type = 'change' AND status = 'running'")
                sql(f"KILL JOB '{job}'")
            case "query":
                [[query]] = sql("SELECT query_id FROM system.queries WHERE sql LIKE 'UPDATE%'")
                sql(f"KILL QUERY '{query}'")
            case "drop":
                sql(f"DROP TABLE {t}")
            case "truncate":
                sql(f"TRUNCATE {t}")
            case "stop":
                assert server.stop() == 0
            case "kill":
                server.kill()
        with pytest.raises((SqlFailed, OSError)) as failed:
            future.result(PATIENCE_S)
    if how == "kill":
        assert isinstance(failed.value, OSError)
    else:
        assert isinstance(failed.value, SqlFailed)
        told_as = ("internal", 503) if how == "stop" else ("cancelled", 409)
        assert (failed.value.code, failed.value.status) == told_as, failed.value.problem
    if how in ("stop", "kill"):
        server.restart()
    if how == "drop":
        assert failure(server, f"SELECT 1 FROM {t}").code == "table_not_found"
    elif how == "truncate":
        assert sql(f"SELECT count(*) FROM {t}") == [[0]]
    else:
        assert sql(f"SELECT count(*), sum(n) FROM {t} WHERE id < 1000") == rows
        assert sql(f"UPDATE {t} SET n = n + 1") == "601 rows updated"
        assert sql(f"SELECT sum(n) FROM {t}") == [[rows[0][1] + 601]]
        await told(server, wait_until, f"kalam.shared.{t}.>", 601 + 601)
    await swept(server, wait_until)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with a table that a large statement can change."""
    made = ServerProcess(tmp_path_factory.mktemp("cutoff") / "data").start()
    made.sql("CREATE NAMESPACE c; CREATE TABLE c.t (id INT PRIMARY KEY, v TEXT, n BIGINT)")
    fill(made, "c.t", 900)
    made.stop()
    return made.data_dir


@pytest.mark.parametrize(
    ("point", "done"),
    [("change.before_commit", False), ("change.after_commit", True), ("outbox.before_publish", True)],
)
async def test_one_that_is_cut_off_by_a_crash_is_whole_or_not_there(
    filled: Path, start_kalam: Callable[..., ServerProcess], wait_until: Any, point: str, done: bool
) -> None:
    server = start_kalam(start=False, KALAM_STATEMENT_ROWS_MAX=str(BOUND))
    shutil.copytree(filled, server.data_dir)
    server.start(KALAM_CRASHPOINT=point)
    with suppress(OSError):  # the feed is told behind the answer
        server.sql("DELETE FROM c.t WHERE id > 300")
    server.wait_end()
    server.restart()
    assert server.sql("SELECT count(*), max(id) FROM c.t") == ([[300, 300]] if done else [[900, 900]])
    assert server.sql("SELECT count(*) FROM c.t WHERE _deleted") == [[600 if done else 0]]
    server.sql("INSERT INTO c.t VALUES (1001, 'more', 1)")
    feed = await told(server, wait_until, "kalam.shared.c.t.>", 901 + (600 if done else 0))
    assert sum(len(message.rows) for message in feed if message.op == "delete") == (600 if done else 0)
    made = [
        file for file in server.data_dir.glob("shared/c/t*/*.parquet") if "-l1-" in file.name or "-c1-" in file.name
    ]
    assert len(made) == (2 if done else 0)
    await swept(server, wait_until)


async def test_a_full_disk_refuses_it_and_nothing_is_changed(tmp_path: Path, wait_until: Any) -> None:
    with small_disk(tmp_path / "disk", 96) as disk:
        small = ServerProcess(disk / "data", environment={"KALAM_STATEMENT_ROWS_MAX": str(BOUND)})
        try:
            await asyncio.to_thread(small.start)
            small.sql("CREATE NAMESPACE full; CREATE TABLE full.t (id INT PRIMARY KEY, v TEXT, n BIGINT)")
            fill(small, "full.t", 600)
            small.sql("FLUSH TABLE full.t")
            fill_disk(disk / "ballast", leave=6 << 20)
            large = "UPDATE full.t SET v = repeat(md5(v), 600), n = n + 1"  # 11 MB
            assert failure(small, large).code == "storage_full"
            assert small.sql("SELECT count(*), sum(n) FROM full.t") == [[600, sum(range(1, 601))]]
            (disk / "ballast").unlink()
            assert small.sql(large) == "600 rows updated"
            assert small.sql("SELECT count(*), sum(n), sum(length(v)) FROM full.t") == [
                [600, sum(range(2, 602)), 600 * 32 * 600]
            ]
            await swept(small, wait_until)
        finally:
            small.kill()


async def test_policies_say_which_rows_and_what_becomes_of_them(tmp_path: Path) -> None:
    async with policy_server(tmp_path, statement_rows_max=BOUND) as guarded:
        await guarded.users("ada")
        await guarded.result(
            "admin", "CREATE NAMESPACE app; CREATE TABLE app.t (id INT PRIMARY KEY, owner TEXT, n BIGINT)"
        )
        await guarded.result("admin", "GRANT ALL ON TABLE app.t TO ada")
        for start in range(1, 1801, 450):
            await guarded.result(
                "admin",
                "INSERT INTO app.t SELECT value, CASE WHEN value % 3 = 0 THEN 'ben' ELSE 'ada' END, value "
                f"FROM generate_series({start}, {start + 449})",
            )
        await guarded.policy("app.t", "owner = CURRENT_USER()", check="owner = CURRENT_USER() AND n < 5000")
        await guarded.secure("app.t")
        assert (await guarded.result("ada", "UPDATE app.t SET n = n + 1000"))["row_count"] == 1200
        assert await guarded.code("ada", "UPDATE app.t SET n = n + 2500") == "permission_denied"
        assert await guarded.code("ada", "UPDATE app.t SET owner = 'ben'") == "permission_denied"
        assert (await guarded.result("ada", "DELETE FROM app.t WHERE n % 2 = 0"))["row_count"] == 600
        await guarded.secure("app.t", on=False)
        found = await guarded.rows("admin", "SELECT owner, count(*), sum(n) FROM app.t GROUP BY 1 ORDER BY 1")
        ada = [number + 1000 for number in range(1, 1801) if number % 3 and number % 2]
        ben = range(3, 1801, 3)
        assert found == [["ada", len(ada), sum(ada)], ["ben", len(ben), sum(ben)]]


@pytest.mark.parametrize("compression", list(Compression))
def test_rows_get_their_numbers_last(tmp_path: Path, compression: Compression) -> None:
    """In several row groups and pages; everything else in the file stays as it was written."""
    rows, first_seq = 130_001, 1 << 40
    keys = pa.array(range(rows), pa.int64())
    data = pa.table({"id": keys, "v": pa.array([f"v{number % 97}" for number in range(rows)])})
    data = data.append_column("_updated", pa.array([1] * rows, pa.timestamp("us", "UTC")))
    columns = (
        Column(column_id=1, name="id", type=DataType(name=TypeName.BIGINT)),
        Column(column_id=2, name="v", type=DataType(name=TypeName.TEXT)),
    )
    request = SegmentsRequest(
        database="",
        table_id=1,
        schema_version=1,
        copy_id=1,
        columns=columns,
        history={1: columns},
        key=("id",),
        folder=str(tmp_path),
        name="d-1-1",
        compression=compression,
        segment_rows_max=1_000_000,
        forget_deleted_us=0,
    )
    file = NumberedFile(request, data, 0, deleted=False)
    written = file.finish(first_seq)
    found = pq.read_table(tmp_path / written.temporary)
    assert found.select(data.column_names).equals(data)
    assert found.column("_seq").to_pylist() == list(range(first_seq, first_seq + rows))
    assert (written.min_seq, written.max_seq, written.row_count) == (first_seq, first_seq + rows - 1, rows)
    assert zlib.crc32((tmp_path / written.temporary).read_bytes()) == written.checksum
