"""What is said is said in whole and right words."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from server_process import ServerProcess, SqlFailed

from kalam.cli.words import counted
from kalam.errors import InvalidOption
from kalam.names import listed
from kalam.settings import load_settings


@pytest.fixture(scope="module", autouse=True)
def _table(shared_server: ServerProcess) -> None:
    columns = ", ".join(f"c{n} DOUBLE" for n in range(22))
    shared_server.sql(f"CREATE NAMESPACE w; CREATE TABLE w.t ({columns})")


def kalam(server: ServerProcess, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kalam", *arguments, "--url", server.http_url]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60, check=False)


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
