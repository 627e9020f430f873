"""What is said is said in whole and right words."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from patience import PATIENCE_S
from server_process import ServerProcess, SqlFailed
from warm_start import run_kalam

from kalam.cli.words import counted
from kalam.errors import InvalidOption
from kalam.names import listed, numbered
from kalam.settings import load_settings
from kalam.tables.evictions import Evicted, text


@pytest.fixture(scope="module", autouse=True)
def _table(shared_server: ServerProcess) -> None:
    columns = ", ".join(f"c{n} DOUBLE" for n in range(22))
    shared_server.sql(f"CREATE NAMESPACE w; CREATE TABLE w.t ({columns})")


def kalam(server: ServerProcess, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return run_kalam(*arguments, "--url", server.http_url, stdin=stdin)


def test_a_number_of_rows_fits_its_words() -> None:
    assert [counted(1), counted(2_000), counted(1, "are"), counted(0, "were")] == [
        "1 row",
        "2,000 rows",
        "1 row is",
        "0 rows were",
    ]


def test_a_list_that_is_cut_says_so(shared_server: ServerProcess) -> None:
    assert listed(["a", "b"]) == "a, b"
    assert listed(["a", "b", "c"], 2) == "a, b and 1 more"
    with pytest.raises(SqlFailed, match="c19 and 2 more"):
        shared_server.sql("UPDATE w.t SET nope = 1")


def test_a_setting_in_the_file_that_is_none_is_told_with_the_one_that_was_meant(tmp_path: Path) -> None:
    config = tmp_path / "kalam.toml"
    config.write_text("http_prot = 1\n")
    with pytest.raises(InvalidOption, match="http_prot is no setting; http_port was probably meant"):
        load_settings(config)


def test_a_word_in_place_of_a_number_is_named(shared_server: ServerProcess) -> None:
    body = json.dumps({"c0": "abc"}).encode()
    url = f"{shared_server.http_url}/v1/tables/w/t/rows"
    request = urllib.request.Request(url, body, {"Content-Type": "application/x-ndjson"})
    with pytest.raises(urllib.error.HTTPError) as refused, urllib.request.urlopen(request):
        pass
    with refused.value as answer:
        detail: Any = json.load(answer)["detail"]
    assert "column c0 expects DOUBLE, found 'abc'" in detail


def test_a_flush_of_nothing_says_so(shared_server: ServerProcess) -> None:
    done = kalam(shared_server, "sql", "FLUSH TABLE w.t; COMPACT TABLE w.t")
    assert (done.stdout, done.returncode) == ("", 0)
    assert done.stderr == "nothing to flush: all rows are in Parquet files\nnothing to compact in w.t\n"


def test_sql_comes_from_standard_input_where_none_is_given(shared_server: ServerProcess) -> None:
    done = kalam(shared_server, "sql", "--format", "csv", stdin="SELECT 7 AS n")
    assert (done.stdout.split(), done.stderr) == (["n", "7"], "")


def test_the_system_tables_are_listed(shared_server: ServerProcess) -> None:
    names = [row[1] for row in shared_server.sql("SHOW TABLES IN system")]
    assert {"jobs", "segments", "stats"} <= set(names)


def test_the_page_for_people_shows_no_backticks(shared_server: ServerProcess) -> None:
    with urllib.request.urlopen(f"{shared_server.http_url}/docs") as answer:
        page = answer.read().decode()
    assert "`" not in page.partition("<h2>Types")[0]
    assert "<code>application/problem+json</code>" in page


def test_one_is_one(shared_server: ServerProcess) -> None:
    assert [numbered(count, "event") for count in (0, 1, 2)] == ["0 events", "1 event", "2 events"]
    assert text(Evicted(1, 0)) == "Evicted 1 event (ttl: 1)"
    shared_server.sql("CREATE STREAM TABLE w.one (v TEXT) WITH (MAX_BUFFER = 1, RETENTION = 1)")
    shown = {row[1]: row[2] for row in describe(shared_server, "w.one")}
    assert (shown["max_buffer"], shown["retention"]) == ("1 row", "1 second")


def describe(server: ServerProcess, table: str) -> list[list[str]]:
    """What DESCRIBE shows of a table: what it is about, a name, a value."""
    (result,) = server.results(f"DESCRIBE TABLE {table}")
    return [[str(value) for value in row] for row in result["rows"]]


def test_a_refused_denial_names_what_there_is(shared_server: ServerProcess) -> None:
    with pytest.raises(SqlFailed, match=r"DENY is not supported; what is not granted is not allowed: use REVOKE"):
        shared_server.sql("DENY SELECT ON w.t TO ann")


def interrupted(server: ServerProcess, *arguments: str) -> tuple[int, str]:
    """Status and stderr of a command that gets ^C while the server works for it."""
    command = [sys.executable, "-m", "kalam", *arguments, "--url", server.http_url]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + PATIENCE_S
    while not any(LONG in row[0] for row in server.sql("SELECT sql FROM system.queries WHERE state = 'running'")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=PATIENCE_S)
    return process.returncode, said


LONG = "SELECT count(*) AS n FROM range(1, 100000000000)"


def test_an_interrupted_query_says_what_became_of_it(shared_server: ServerProcess) -> None:
    status, said = interrupted(shared_server, "sql", LONG)
    assert status == 130
    assert said.startswith("interrupted: the connection is closed, which cancels a query")


def test_tail_says_that_it_listens_before_anything_comes(shared_server: ServerProcess) -> None:
    shared_server.sql("CREATE TABLE IF NOT EXISTS w.empty (id BIGINT PRIMARY KEY)")
    command = [sys.executable, "-m", "kalam", "tail", "w.empty", f"--nats-url={shared_server.nats_url}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert process.stderr.readline() == "listening to SELECT * FROM w.empty as admin; ^C ends it\n"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0


def test_an_interrupted_export_says_that_it_is_not_whole(shared_server: ServerProcess) -> None:
    shared_server.sql("CREATE TABLE w.many (id BIGINT PRIMARY KEY, v TEXT)")
    shared_server.sql("INSERT INTO w.many SELECT value, repeat('x', 2000) FROM range(1, 20000)")
    command = [sys.executable, "-m", "kalam", "export", "w.many", "-", "--format", "ndjson", "--url"]
    with subprocess.Popen(
        [*command, shared_server.http_url], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(1)  # nobody takes the rest, so the command is at work when it is interrupted
        process.send_signal(signal.SIGINT)
        said = process.stderr.read().decode()
        process.stdout.close()
    assert process.returncode == 130
    assert re.fullmatch(r"interrupted: the output has [\d,]+ rows, which are not all\n", said)
