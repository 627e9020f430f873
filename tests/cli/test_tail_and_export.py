from __future__ import annotations

import asyncio
import csv
import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nats
import pyarrow.ipc
import pyarrow.parquet
import pytest
from patience import PATIENCE_S
from server_process import ServerProcess
from warm_start import run_kalam


def tail(server: ServerProcess, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "kalam", "tail", *arguments, f"--nats-url={server.nats_url}"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def next_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().rstrip("\n")


def stopped(process: subprocess.Popen[str]) -> str:
    """What it said on stderr after ^C."""
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, said
    return said


def test_tail_prints_rows_and_changes_and_a_token_to_go_on_with(shared_server: ServerProcess) -> None:
    shared_server.sql("CREATE NAMESPACE tails; CREATE SHARED TABLE tails.t (id BIGINT PRIMARY KEY, v TEXT)")
    shared_server.sql("INSERT INTO tails.t VALUES (1, 'a'), (2, 'b'), (3, 'c')")
    process = tail(shared_server, "SELECT id, v FROM tails.t", "--last", "2")
    assert [next_line(process), next_line(process)] == ['  {"id": 2, "v": "b"}', '  {"id": 3, "v": "c"}']
    shared_server.sql("UPDATE tails.t SET v = 'z' WHERE id = 1; DELETE FROM tails.t WHERE id = 2")
    assert next_line(process) == '~ {"id": 1, "v": "z"}  was {"v": "a"}'
    assert next_line(process) == '- {"id": 2, "v": "b"}'
    token = stopped(process).split()[-1]
    shared_server.sql("INSERT INTO tails.t VALUES (9, 'new')")
    process = tail(shared_server, "SELECT id, v FROM tails.t", "--token", token, "--format", "json")
    assert json.loads(next_line(process)) == {"op": "insert", "seq": 6, "row": {"id": 9, "v": "new"}}
    stopped(process)


GROUPS = "SELECT g, count(*) AS n FROM {} GROUP BY g"


@pytest.mark.parametrize("form", ["a view", "a SELECT"])
def test_tail_prints_groups_and_each_change_of_one(shared_server: ServerProcess, form: str) -> None:
    table = f"tails.of_{form[2:].lower()}"
    shared_server.sql(
        f"CREATE NAMESPACE IF NOT EXISTS tails; CREATE TABLE {table} (id BIGINT PRIMARY KEY, g TEXT NOT NULL)"
    )
    shared_server.sql(f"INSERT INTO {table} VALUES (1, 'a'), (2, 'b'), (3, 'b')")
    asked = GROUPS.format(table)
    if form == "a view":
        shared_server.sql(f"CREATE EPHEMERAL MATERIALIZED VIEW {table}s AS {asked}")
        asked = f"SELECT g, n FROM {table}s"
    process = tail(shared_server, asked, "--last", "100")
    assert {next_line(process), next_line(process)} == {'  {"g": "a", "n": 1}', '  {"g": "b", "n": 2}'}
    shared_server.sql(f"INSERT INTO {table} VALUES (4, 'a')")
    assert next_line(process) == '~ {"g": "a", "n": 2}  was {"n": 1}'
    shared_server.sql(f"DELETE FROM {table} WHERE g = 'b'")
    assert next_line(process) == '- {"g": "b", "n": 2}'
    shared_server.sql(f"INSERT INTO {table} VALUES (5, 'c')")
    assert next_line(process) == '+ {"g": "c", "n": 1}'
    token = stopped(process).split()[-1]
    shared_server.sql(f"INSERT INTO {table} VALUES (6, 'c')")
    process = tail(shared_server, asked, "--token", token)
    if form == "a SELECT":  # which ended with its last listener; a view has come further meanwhile, or sleeps
        assert next_line(process).startswith("! ")
        assert {next_line(process), next_line(process)} == {'  {"g": "a", "n": 2}', '  {"g": "c", "n": 2}'}
    else:
        assert next_line(process) in (
            '~ {"g": "c", "n": 2}  was {"n": 1}',
            "! the changes in between are not kept any more; the rows as they are now:",
        )
    stopped(process)


async def test_tail_of_a_bucket_prints_no_token_for_there_is_nothing_to_go_on_with(
    shared_server: ServerProcess,
) -> None:
    client = await nats.connect(shared_server.nats_url)
    bucket = await client.jetstream().create_key_value(bucket="tailed")
    await bucket.put("lamp", b'{"v": 1}')
    shared_server.sql("CREATE NAMESPACE kept; CREATE STREAM TABLE kept.t (v INT) OVER BUCKET 'tailed'")
    process = await asyncio.to_thread(tail, shared_server, "SELECT _key, v FROM kept.t")
    assert await asyncio.to_thread(next_line, process) == '  {"_key": "lamp", "v": 1}'
    await bucket.delete("lamp")
    assert await asyncio.to_thread(next_line, process) == '- {"_key": "lamp", "v": 1}'
    said = await asyncio.to_thread(stopped, process)
    assert "listening" in said
    assert "token" not in said
    await client.close()


def test_tail_begins_with_events_of_a_time(shared_server: ServerProcess) -> None:
    shared_server.sql("CREATE NAMESPACE since; CREATE STREAM TABLE since.t (id BIGINT); INSERT INTO since.t VALUES (1)")
    process = tail(shared_server, "since.t", "--since", "5m")
    assert next_line(process) == '+ {"id": 1}'
    shared_server.sql("INSERT INTO since.t VALUES (2)")
    assert next_line(process) == '+ {"id": 2}'
    stopped(process)


@pytest.mark.parametrize("since", ["", "5", "m", "-5m", "5 minutes", "1000000d", "1.5h"])
def test_tail_since_is_a_number_and_a_unit(since: str) -> None:
    done = run_kalam("tail", "a.b", f"--since={since}")
    assert done.returncode == 2
    assert "--since" in done.stderr


def test_tail_says_what_is_wrong(shared_server: ServerProcess) -> None:
    where = f"--nats-url={shared_server.nats_url}"
    assert run_kalam("tail", "what", where).returncode == 2
    refused = run_kalam("tail", "SELECT a + 1 FROM a.b", where)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "error [unsupported]" in refused.stderr


@pytest.fixture(scope="module")
def bounded_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server whose other bounds on rows are far below what is exported."""
    bounds = {"KALAM_LIVE_SNAPSHOT_ROWS_MAX": "1000", "KALAM_RESULT_ROWS_MAX": "1000"}
    server = ServerProcess(tmp_path_factory.mktemp("bounded") / "data", environment=bounds).start()
    server.sql("CREATE NAMESPACE exported")
    yield server
    server.kill()


def exported(server: ServerProcess, table: str, file: Path | str, *flags: str) -> subprocess.CompletedProcess[str]:
    return run_kalam("export", table, str(file), f"--url={server.http_url}", *flags)


def inserted(server: ServerProcess, table: str, file: Path) -> subprocess.CompletedProcess[str]:
    return run_kalam("insert", table, str(file), f"--nats-url={server.nats_url}")


def ids_in(file: Path, form: str) -> list[int]:
    match form:
        case "ndjson":
            return [json.loads(line)["id"] for line in file.read_text().splitlines()]
        case "csv":
            return [int(row["id"]) for row in csv.DictReader(file.open(newline=""))]
        case "parquet":
            return pyarrow.parquet.read_table(file).column("id").to_pylist()
        case _:
            return pyarrow.ipc.open_file(file).read_all().column("id").to_pylist()


@pytest.mark.parametrize("form", ["ndjson", "csv", "parquet", "arrow"])
def test_export_writes_every_row_of_one_moment(bounded_server: ServerProcess, tmp_path: Path, form: str) -> None:
    table = f"exported.{form}"
    bounded_server.sql(f"CREATE SHARED TABLE {table} (id BIGINT PRIMARY KEY, at TIMESTAMP, said TEXT)")
    bounded_server.sql(f"INSERT INTO {table} (id, said) SELECT value, 'a,\n\"b\"' FROM range(0, 20000)")
    bounded_server.sql(f"FLUSH TABLE {table}; INSERT INTO {table} (id) SELECT value FROM range(20000, 30000)")
    bounded_server.sql(f"DELETE FROM {table} WHERE id < 10")
    by_name, by_flag = tmp_path / f"rows.{form}", tmp_path / "rows"
    done = exported(bounded_server, table, by_name)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert "29,990 rows" in done.stderr
    assert sorted(ids_in(by_name, form)) == list(range(10, 30_000))
    assert exported(bounded_server, table, by_flag, "--format", form).returncode == 0
    assert sorted(ids_in(by_flag, form)) == list(range(10, 30_000))
    assert sorted(tmp_path.iterdir()) == [by_flag, by_name]


def test_what_was_exported_can_be_inserted_again(bounded_server: ServerProcess, tmp_path: Path) -> None:
    columns = "id BIGINT PRIMARY KEY, doc JSON, raw BLOB, price DECIMAL(8,2), day DATE, at TIMESTAMP, x DOUBLE"
    row = """1, '{"a": [1, null]}', 'AAE=', 1.50, '2026-01-02', '2026-01-02T03:04:05.000006Z', 'NaN'"""
    bounded_server.sql(f"CREATE SHARED TABLE exported.types ({columns}); INSERT INTO exported.types VALUES ({row})")
    bounded_server.sql("INSERT INTO exported.types (id) VALUES (2)")
    file = tmp_path / "types.ndjson"
    assert exported(bounded_server, "exported.types", file).returncode == 0
    first, second = map(json.loads, file.read_text().splitlines())
    if first["id"] == 2:
        first, second = second, first
    assert {name: first[name] for name in ("doc", "raw", "price", "day", "at", "x")} == {
        "doc": {"a": [1, None]},
        "raw": "AAE=",
        "price": "1.50",
        "day": "2026-01-02",
        "at": "2026-01-02T03:04:05.000006Z",
        "x": "NaN",
    }
    assert second["doc"] is None
    select = "SELECT id, doc, raw, price, day, at, x FROM exported.{} ORDER BY id"
    for form in ("ndjson", "csv", "parquet", "arrow"):
        file, copy = tmp_path / f"rows.{form}", f"types_{form}"
        bounded_server.sql(f"CREATE SHARED TABLE exported.{copy} ({columns})")
        assert exported(bounded_server, "exported.types", file).returncode == 0
        done = inserted(bounded_server, f"exported.{copy}", file)
        assert done.returncode == 0, done.stderr
        assert "left out of the file, because the server keeps it itself: _deleted, _updated" in done.stderr
        assert bounded_server.sql(select.format(copy)) == bounded_server.sql(select.format("types"))


def test_a_deleted_row_does_not_come_back_to_life(bounded_server: ServerProcess, tmp_path: Path) -> None:
    bounded_server.sql("CREATE SHARED TABLE exported.gone (id BIGINT PRIMARY KEY)")
    files = {
        "rows.ndjson": '{"id": 1, "_deleted": false}\n{"id": 2, "_deleted": true}\n',
        "rows.json": '[{"id": 1, "_deleted": false}, {"id": 2, "_deleted": true}]',
        "rows.csv": "id,_deleted\n1,false\n2,true\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
        done = inserted(bounded_server, "exported.gone", tmp_path / name)
        assert done.returncode == 1
        assert "is a deleted row (_deleted is true)" in done.stderr
        assert bounded_server.sql("SELECT * FROM exported.gone") == []


def test_a_key_of_the_servers_own_is_made_anew(bounded_server: ServerProcess, tmp_path: Path) -> None:
    bounded_server.sql(
        "CREATE SHARED TABLE exported.keyless (v TEXT); INSERT INTO exported.keyless VALUES ('a'), ('b')"
    )
    file = tmp_path / "rows.ndjson"
    assert exported(bounded_server, "exported.keyless", file).returncode == 0
    done = inserted(bounded_server, "exported.keyless", file)
    assert done.returncode == 0, done.stderr
    assert bounded_server.sql("SELECT v FROM exported.keyless ORDER BY v") == [["a"], ["a"], ["b"], ["b"]]


def test_export_shows_only_the_users_rows_and_writes_to_stdout(bounded_server: ServerProcess) -> None:
    bounded_server.sql("CREATE USER TABLE exported.mine (id BIGINT PRIMARY KEY)")
    for number, user in enumerate(("ada", "bob")):
        bounded_server.sql(f"INSERT INTO exported.mine VALUES ({number})", user=user)
    done = exported(bounded_server, "exported.mine", "-", "--user", "bob", "--format", "ndjson")
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == [1]
    empty = exported(bounded_server, "exported.mine", "-", "--user", "eve", "--format", "csv")
    assert (empty.returncode, empty.stdout) == (0, '"id","_updated","_deleted"\n')


def test_export_says_what_is_wrong_and_leaves_no_file(bounded_server: ServerProcess, tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    missing = exported(bounded_server, "exported.nothing", file)
    assert missing.returncode == 1
    assert "table_not_found" in missing.stderr
    assert exported(bounded_server, "exported.nothing", tmp_path / "rows.xls").returncode == 2
    assert exported(bounded_server, "nothing", file).returncode == 2
    assert run_kalam("export", "a.b", str(file), "--url=http://127.0.0.1:1").returncode == 1
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def numbers(bounded_server: ServerProcess) -> str:
    """A table of 5,000 rows whose newest are hot, keyed by ``id``."""
    bounded_server.sql("CREATE SHARED TABLE exported.numbers (v TEXT, id BIGINT PRIMARY KEY)")
    for parity in (1, 0):
        bounded_server.sql(
            f"INSERT INTO exported.numbers SELECT 'x', value FROM range(0, 5000) WHERE value % 2 = {parity}"
        )
        bounded_server.sql("FLUSH TABLE exported.numbers")
    bounded_server.sql("UPDATE exported.numbers SET v = 'hot' WHERE id < 3")
    return "exported.numbers"


def test_a_query_or_some_rows_of_a_table(bounded_server: ServerProcess, numbers: str, tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    query = f"SELECT id, v FROM {numbers} WHERE id BETWEEN 2 AND 3 ORDER BY id; -- those"
    assert exported(bounded_server, query, file).returncode == 0
    assert file.read_text() == '[\n{"id":2,"v":"hot"},\n{"id":3,"v":"x"}\n]\n'
    some = exported(bounded_server, numbers, "-", "--where", "v = 'hot' OR id = 9 -- those", "--format", "json")
    assert sorted(row["id"] for row in json.loads(some.stdout)) == [0, 1, 2, 9]
    none = exported(
        bounded_server, f"with n as (select * from {numbers}) select id from n where id < 0", "-", "--format=json"
    )
    assert (none.returncode, json.loads(none.stdout)) == (0, [])
    assert exported(bounded_server, query, "-", "--where", "id = 1", "--format", "csv").returncode == 2
    assert exported(bounded_server, "DELETE FROM a.b", tmp_path / "gone.csv").returncode == 2
    wrong = exported(bounded_server, numbers, tmp_path / "wrong.csv", "--where", "nothing = 1")
    assert (wrong.returncode, "column_not_found" in wrong.stderr) == (1, True)
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_that_is_there_is_replaced_only_if_forced(
    bounded_server: ServerProcess, numbers: str, tmp_path: Path
) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("mine")
    refused = exported(bounded_server, numbers, file)
    assert (refused.returncode, file.read_text()) == (1, "mine")
    assert "--force" in refused.stderr
    broken = exported(bounded_server, numbers, file, "--force", "--where", "nothing = 1")
    assert (broken.returncode, file.read_text()) == (1, "mine")
    assert exported(bounded_server, numbers, file, "--force", "--where", "id = 1").returncode == 0
    assert ids_in(file, "csv") == [1]
    assert exported(bounded_server, numbers, "/dev/null", "--force", "--format", "csv").returncode == 1


def test_interrupted_it_says_what_is_in_the_file(bounded_server: ServerProcess, tmp_path: Path) -> None:
    query = "SELECT a.value AS id FROM range(0, 100000) a CROSS JOIN range(0, 100000) b"
    new, old = tmp_path / "new.csv", tmp_path / "old.csv"
    old.write_text("mine")
    for file, left in ((new, "was not written"), (old, "is what it was before")):
        process = export_process(bounded_server, query, file, "--force")
        part = tmp_path / f".{file.name}.part"
        while not (part.exists() and part.stat().st_size > 100_000):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 130
        assert re.fullmatch(rf"interrupted: {re.escape(str(file))} {left}; [\d,]+ rows had come\n", said), said
    assert (list(tmp_path.iterdir()), old.read_text()) == ([old], "mine")
    output = tmp_path / "output"
    with output.open("wb") as stdout:
        process = export_process(bounded_server, query, "-", "--format", "csv", stdout=stdout.fileno())
    while output.stat().st_size < 100_000:
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    told = re.fullmatch(r"interrupted: the output has ([\d,]+) rows, which are not all\n", said)
    assert told is not None, said
    assert output.read_bytes().count(b"\n") - 1 >= int(told[1].replace(",", "")) > 0


def export_process(
    server: ServerProcess, what: str, file: Path | str, *flags: str, stdout: int = subprocess.PIPE
) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "kalam", "export", what, str(file), f"--url={server.http_url}", *flags]
    return subprocess.Popen(command, stdout=stdout, stderr=subprocess.PIPE, text=True)


def test_a_snapshot_is_sorted_parquet_without_the_servers_columns(
    bounded_server: ServerProcess, numbers: str, tmp_path: Path
) -> None:
    folder = tmp_path / "new" / "snapshot"
    done = run_kalam("export", numbers, "--snapshot", str(folder), f"--url={bounded_server.http_url}")
    assert done.returncode == 0, done.stderr
    assert "5,000 rows in 1 Parquet file" in done.stderr
    table = pyarrow.parquet.read_table(folder)
    assert table.column_names == ["v", "id"]
    assert table.column("id").to_pylist() == list(range(5_000))
    (folder / "part-00007.parquet").write_text("of an older one")
    (folder / "notes.txt").write_text("mine")
    again = ("export", numbers, "--snapshot", str(folder), f"--url={bounded_server.http_url}", "--system-columns")
    refused = run_kalam(*again)
    assert (refused.returncode, "--force" in refused.stderr) == (1, True)
    assert run_kalam(*again, "--force").returncode == 0
    assert sorted(file.name for file in folder.iterdir()) == ["notes.txt", "part-00000.parquet"]
    assert pyarrow.parquet.read_table(folder / "part-00000.parquet").column_names == ["v", "id", "_updated", "_deleted"]
    missing = run_kalam(
        "export", "exported.none", "--snapshot", str(tmp_path / "x"), f"--url={bounded_server.http_url}"
    )
    assert (missing.returncode, "table_not_found" in missing.stderr) == (1, True)
    assert sorted(tmp_path.iterdir()) == [tmp_path / "new"]
    keyless = bounded_server.sql("CREATE TABLE exported.no_key (v INT); SELECT 1")
    assert keyless
    assert (
        run_kalam(
            "export", "exported.no_key", "--snapshot", str(tmp_path / "empty"), f"--url={bounded_server.http_url}"
        ).returncode
        == 0
    )
    empty = pyarrow.parquet.read_table(tmp_path / "empty")
    assert (empty.column_names, empty.num_rows) == (["v"], 0)


def test_a_snapshot_is_sorted_by_all_columns_of_the_key_in_its_order(
    bounded_server: ServerProcess, tmp_path: Path
) -> None:
    bounded_server.sql("CREATE NAMESPACE several; CREATE TABLE several.t (a INT, b TEXT, c INT, PRIMARY KEY (c, b))")
    bounded_server.sql("INSERT INTO several.t VALUES (1, 'y', 2), (2, 'x', 2), (3, 'z', 1)")
    done = run_kalam("export", "several.t", "--snapshot", str(tmp_path / "s"), f"--url={bounded_server.http_url}")
    assert done.returncode == 0, done.stderr
    assert pyarrow.parquet.read_table(tmp_path / "s").to_pydict() == {
        "a": [3, 2, 1],
        "b": ["z", "x", "y"],
        "c": [1, 2, 2],
    }


def test_a_snapshot_goes_into_the_folder_one_is_in_and_not_where_a_file_is(
    bounded_server: ServerProcess, numbers: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "kalam", "export", numbers, f"--url={bounded_server.http_url}", "--snapshot"]
    here = tmp_path / "here"
    here.mkdir()
    done = subprocess.run([*command, "."], cwd=here, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    assert [file.name for file in here.iterdir()] == ["part-00000.parquet"]
    assert [file.name for file in tmp_path.iterdir()] == ["here"]
    (tmp_path / "file").write_text("no folder")
    refused = run_kalam("export", numbers, "--snapshot", str(tmp_path / "file"), f"--url={bounded_server.http_url}")
    assert (refused.returncode, "is no folder" in refused.stderr) == (1, True)
    assert (tmp_path / "file").read_text() == "no folder"


def test_what_is_to_be_exported_is_run_once_and_changes_nothing(bounded_server: ServerProcess, tmp_path: Path) -> None:
    """On a terminal, where a bar is shown, for which the rows of a table are counted."""
    bounded_server.sql("CREATE TABLE exported.stays (id BIGINT PRIMARY KEY); INSERT INTO exported.stays VALUES (1)")
    for what, status in (("SELECT 1 AS a) ; DROP TABLE exported.stays; SELECT (1", 1), ("exported.stays", 0)):
        ours, theirs = pty.openpty()
        command = [sys.executable, "-m", "kalam", "export", what, str(tmp_path / "rows.csv")]
        done = subprocess.run([*command, f"--url={bounded_server.http_url}"], stderr=theirs, timeout=PATIENCE_S)
        os.close(theirs)
        os.close(ours)
        assert done.returncode == status
    assert bounded_server.sql("SELECT count(*) FROM exported.stays") == [[1]]
