"""CREATE TABLE … AS: columns of the result, its rows, and nothing to be seen before the last one is there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from change_feed import connected, read_feed
from patience import PATIENCE_S
from server_process import ServerProcess, SqlFailed


@pytest.fixture(scope="module")
def ns(shared_server: ServerProcess) -> Iterator[str]:
    shared_server.sql("CREATE NAMESPACE filled")
    yield "filled"
    shared_server.sql("DROP NAMESPACE filled CASCADE")


def failure(server: ServerProcess, text: str, **options: Any) -> SqlFailed:
    with pytest.raises(SqlFailed) as failed:
        server.sql(text, **options)
    return failed.value


def test_the_columns_are_those_of_the_result(shared_server: ServerProcess, ns: str) -> None:
    sql = shared_server.sql
    sql(f"CREATE TABLE {ns}.s (id INT PRIMARY KEY, d DECIMAL(6,2), v VARCHAR(4), j JSON, u UUID, b BLOB, day DATE)")
    uuid = "0189f0a0-0000-7000-8000-000000000001"
    sql(f"INSERT INTO {ns}.s VALUES (1, 1.5, 'x', '{{\"a\":1}}', '{uuid}', 'AQI=', '2026-01-31')")
    sql(f"CREATE TABLE {ns}.same AS SELECT * FROM {ns}.s")
    assert [row[:2] for row in sql(f"SHOW COLUMNS FROM {ns}.same")] == [
        ["id", "INT"],
        ["d", "DECIMAL(6,2)"],
        ["v", "VARCHAR(4)"],
        ["j", "JSON"],
        ["u", "UUID"],
        ["b", "BLOB"],
        ["day", "DATE"],
    ]
    assert [row[:7] for row in sql(f"SELECT * FROM {ns}.same")] == [
        [1, "1.50", "x", {"a": 1}, uuid, "AQI=", "2026-01-31"]
    ]
    query = f"SELECT v AS name, count(*), sum(d), NULL AS nothing, 1.5::DOUBLE + 1 AS f FROM {ns}.s GROUP BY 1"
    assert sql(f"CREATE TABLE {ns}.found AS {query}; SHOW COLUMNS FROM {ns}.found") == [
        ["name", "VARCHAR(4)", True, None, False, None],
        ["count", "BIGINT", True, None, False, None],
        ["sum", "DECIMAL(16,2)", True, None, False, None],
        ["nothing", "TEXT", True, None, False, None],
        ["f", "DOUBLE", True, None, False, None],
    ]
    sql(f"CREATE TABLE {ns}.none AS SELECT id, v FROM {ns}.s WHERE id < 0")
    assert sql(f"SELECT count(*) FROM {ns}.none") == [[0]]


def test_names_a_key_and_options_stand_before_the_query(shared_server: ServerProcess, ns: str) -> None:
    sql = shared_server.sql
    sql(
        f"CREATE TABLE {ns}.keyed (a, b, PRIMARY KEY (b, a)) WITH (subject_key = 'a', flush_policy = 'rows:7') AS "
        "SELECT value, value % 3 FROM generate_series(1, 20)"
    )
    assert sql(f"SELECT count(*) FROM {ns}.keyed WHERE b = 1 AND a = 4") == [[1]]
    [[created]] = sql(f"SHOW CREATE TABLE {ns}.keyed")
    assert "PRIMARY KEY (b, a)" in created
    assert "SUBJECT_KEY = 'a'" in created.upper().replace("'A'", "'a'")
    sql(f"CREATE TABLE {ns}.given (PRIMARY KEY (n)) AS WITH x AS (SELECT $1 + 0 AS n) SELECT n FROM x", 5)
    assert sql(f"SELECT n FROM {ns}.given") == [[5]]
    assert sql(f"CREATE TABLE IF NOT EXISTS {ns}.given AS SELECT 1 AS n; SELECT n FROM {ns}.given") == [[5]]
    assert failure(shared_server, f"CREATE TABLE {ns}.given AS SELECT 1 AS n").code == "already_exists"


def test_each_kind_is_filled(shared_server: ServerProcess, ns: str) -> None:
    sql = shared_server.sql
    sql(f"CREATE USER TABLE {ns}.mine AS SELECT CURRENT_USER() AS who", user="ann")
    assert sql(f"SELECT who FROM {ns}.mine", user="ann") == [["ann"]]
    assert sql(f"SELECT who FROM {ns}.mine", user="bob") == []
    sql(f"CREATE STREAM TABLE {ns}.ev WITH (max_buffer = 50) AS SELECT value AS n FROM generate_series(1, 60)")
    assert sql(f"SELECT count(*), max(n) FROM {ns}.ev") == [[50, 60]]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("CREATE TABLE {t} (k, PRIMARY KEY (k)) AS SELECT 1 UNION ALL SELECT 1", "duplicate_key"),
        ("CREATE TABLE {t} (PRIMARY KEY (k)) AS SELECT NULL::INT AS k", "not_null_violation"),
        ("CREATE TABLE {t} AS SELECT 10 / (value - 90000) AS x FROM generate_series(1, 90000)", "invalid_value"),
        ("CREATE STREAM TABLE {t} AS SELECT 10 / (value - 90000) AS x FROM generate_series(1, 90000)", "invalid_value"),
        ("CREATE TABLE {t} AS SELECT INTERVAL '1 day' AS x", "unsupported"),
        ('CREATE TABLE {t} AS SELECT 1 AS "Upper"', "invalid_name"),
        ("CREATE TABLE {t} AS SELECT 1 AS _x", "invalid_name"),
        ("CREATE TABLE {t} (a, b) AS SELECT 1 AS a", "invalid_value"),
        ("CREATE TABLE {t} (PRIMARY KEY (z)) AS SELECT 1 AS a", "column_not_found"),
        ("CREATE TABLE {t} (PRIMARY KEY (a)) AS SELECT 1.5::DOUBLE AS a", "unsupported"),
        ("CREATE STREAM TABLE {t} (PRIMARY KEY (a)) AS SELECT 1 AS a", "unsupported"),
        ("CREATE TABLE {t} WITH (retention = '1h') AS SELECT 1 AS a", "invalid_option"),
        ("CREATE TABLE {t} AS SELECT * FROM filled.nothing", "table_not_found"),
        ("CREATE TABLE {t} (a, PRIMARY KEY (a))", "syntax_error"),
        ("CREATE TABLE {t} AS DELETE FROM filled.s", "unsupported"),
    ],
)
def test_what_fails_leaves_no_table(shared_server: ServerProcess, ns: str, text: str, code: str) -> None:
    error = failure(shared_server, text.format(t=f"{ns}.bad"))
    assert error.code == code
    assert "unfinished" not in str(error.problem)
    assert failure(shared_server, f"SELECT * FROM {ns}.bad").code == "table_not_found"
    shared_server.sql(f"CREATE TABLE {ns}.bad (id INT); DROP TABLE {ns}.bad")
    assert not [*shared_server.data_dir.glob(f"shared/{ns}/bad*/*")]


async def test_a_large_one_is_told_from_its_first_change_once_it_is_there(
    shared_server: ServerProcess, wait_until: Any, ns: str
) -> None:
    """More rows than are held in memory together: what is hot is flushed, and the feed reads on from the log."""
    rows, server = 150_000, shared_server
    async with connected(server.nats_url) as client:
        heard = await client.subscribe(f"kalam.shared.{ns}.large.>", pending_bytes_limit=-1, pending_msgs_limit=-1)
        await client.flush()
        text = f"CREATE TABLE {ns}.large AS SELECT value AS id, repeat('x', 300) AS v FROM generate_series(1, {rows})"
        reply = await client.request("kalam.api.ann.sql", json.dumps({"sql": text}).encode(), timeout=PATIENCE_S)
        assert json.loads(reply.data)["results"][0]["row_count"] == rows
        assert server.sql(f"SELECT count(*), count(DISTINCT id) FROM {ns}.large") == [[rows, rows]]
        following, last = 1, rows + 1
        server.sql(f"INSERT INTO {ns}.large (id, v) VALUES (0, 'behind')")
        while following <= last:
            body = json.loads((await heard.next_msg(PATIENCE_S)).data)
            assert (body["op"], body["seq"]) == ("insert", following)
            following += len(body["rows"])
    assert following == last + 1
    assert len(server.sql("SELECT path FROM system.segments WHERE table_name = 'large'")) >= 1


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    server = ServerProcess(tmp_path_factory.mktemp("source") / "data").start()
    server.sql("CREATE NAMESPACE c; CREATE TABLE c.s (id INT PRIMARY KEY); INSERT INTO c.s VALUES (1), (2)")
    server.stop()
    return server.data_dir


@pytest.mark.parametrize(("point", "done"), [("fill.before_commit", False), ("fill.after_commit", True)])
async def test_one_that_is_cut_off_is_whole_or_not_there(
    source: Path, start_kalam: Callable[..., ServerProcess], wait_until: Any, point: str, done: bool
) -> None:
    server = start_kalam(start=False)
    shutil.copytree(source, server.data_dir)
    server.start(KALAM_CRASHPOINT=point)
    with pytest.raises(OSError):  # noqa: PT011 - whichever end of a connection it is
        server.sql("CREATE TABLE c.t (PRIMARY KEY (id)) AS SELECT id FROM c.s")
    server.wait_end()
    server.restart()
    assert [row[1] for row in server.sql("SHOW TABLES IN c")] == ["s", *(["t"] if done else [])]
    if not done:
        server.sql("CREATE TABLE c.t (PRIMARY KEY (id)) AS SELECT id FROM c.s")
    server.sql("INSERT INTO c.t VALUES (3); FLUSH TABLE c.t")
    assert server.sql("SELECT id FROM c.t ORDER BY id") == [[1], [2], [3]]

    async def told() -> bool:
        feed = await read_feed(server.nats_url, "kalam.shared.c.t.>")
        return [row["id"] for message in feed for row in message.rows] == [1, 2, 3]

    await wait_until(told)
    assert len([*server.data_dir.glob("shared/c/t*/*.parquet")]) == 1
