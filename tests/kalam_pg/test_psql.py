"""psql as people use it: its backslash commands, \\copy, cancelling, variables."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from subprocess import PIPE

import psycopg
import pytest
from patience import PATIENCE_S

PSQL = shutil.which("psql")
if PSQL is None and not os.environ.get("CI"):
    pytest.skip("psql is not installed (Debian: postgresql-client)", allow_module_level=True)


@pytest.fixture(scope="module", autouse=True)
def tables(pg_url: str) -> None:
    with psycopg.connect(pg_url, autocommit=True) as connection:
        connection.execute("CREATE NAMESPACE psq")
        connection.execute("CREATE SHARED TABLE psq.people (id BIGINT PRIMARY KEY, name TEXT NOT NULL, born DATE)")
        connection.execute("INSERT INTO psq.people VALUES (1, 'Ada', '1815-12-10'), (2, 'Carl', NULL)")


def psql(pg_url: str, text: str, *flags: str) -> str:
    run = subprocess.run(
        [str(PSQL), "-X", "-v", "ON_ERROR_STOP=1", *flags, pg_url],
        input=text,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_rows_are_shown(pg_url: str) -> None:
    assert psql(pg_url, "SELECT id, name, born FROM psq.people ORDER BY id", "-At") == "1|Ada|1815-12-10\n2|Carl|\n"


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        (r"\d psq.people", "people_pkey"),
        (r"\d+ psq.people", "not null"),
        (r"\dt psq.*", "people"),
        (r"\dt+ psq.*", "people"),
        (r"\dn", "psq"),
        (r"\dn+", "psq"),
        (r"\du", "admin"),
        (r"\l", "kalam"),
        (r"\di psq.*", "people_pkey"),
        (r"\df", "List of functions"),
        (r"\dv", ""),
        (r"\ds", ""),
        (r"\dT", ""),
        (r"\dx", ""),
        (r"\dp psq.*", "people"),
        (r"\conninfo", "kalam"),
        (r"\encoding", "UTF8"),
    ],
)
def test_a_backslash_command_shows_what_there_is(pg_url: str, command: str, shown: str) -> None:
    assert shown in psql(pg_url, command)


def test_a_result_is_described_without_running(pg_url: str) -> None:
    shown = psql(pg_url, "SELECT id, name, born FROM psq.people \\gdesc\n", "-At")
    assert shown == "id|bigint\nname|text\nborn|date\n"


def test_show_tables_shows_those_of_all_namespaces_where_the_search_path_has_none(pg_url: str) -> None:
    assert "psq|people|SHARED|" in psql(pg_url, "SHOW TABLES", "-At")
    assert "people" not in psql(pg_url, "SET search_path TO system; SHOW TABLES", "-At")


def test_variables_and_several_statements(pg_url: str) -> None:
    text = "SELECT max(id) AS highest FROM psq.people \\gset\nSELECT :highest + 1; SELECT 'two'\n"
    assert psql(pg_url, text, "-At") == "3\ntwo\n"


def test_copy_brings_a_file_in_and_out(pg_url: str, tmp_path: Path) -> None:
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text('id,name,born\n10,"a, b",2000-01-02\n11,c,\n')
    text = (
        f"\\copy psq.people FROM '{source}' CSV HEADER\n"
        f"\\copy (SELECT * FROM psq.people WHERE id > 9 ORDER BY id) TO '{target}' CSV HEADER\n"
        "DELETE FROM psq.people WHERE id > 9;\n"
    )
    assert psql(pg_url, text) == "COPY 2\nCOPY 2\nDELETE 2\n"
    assert target.read_text().startswith("id,name,born")
    assert '10,"a, b",2000-01-02' in target.read_text()


def test_rows_are_shown_upright_with_times_and_fetched_in_parts(pg_url: str) -> None:
    shown = psql(pg_url, "\\x\n\\timing\nSELECT id, name FROM psq.people WHERE id = 1;\n")
    assert re.search(r"-\[ RECORD 1 \]-*\nid   \| 1\nname \| Ada\n\nTime: [\d.]+ ms", shown)
    parts = "\\set FETCH_COUNT 100\nSELECT value FROM generate_series(1, 1000) ORDER BY value;\n"
    assert psql(pg_url, parts, "-At").split() == [str(number) for number in range(1, 1001)]


def test_control_c_ends_a_query_and_a_watch(pg_url: str, connection: psycopg.Connection) -> None:
    slow = "SELECT count(*) FROM generate_series(1, 3000000) AS a, generate_series(1, 3000000) AS slowly"
    program = [str(PSQL), "-X", "-At", pg_url]
    with subprocess.Popen([*program, "-c", slow], stdout=PIPE, stderr=PIPE, text=True) as run:
        runs = "SELECT count(*) FROM system.queries WHERE sql LIKE '%AS slow' || 'ly'"
        until = time.monotonic() + PATIENCE_S
        while connection.execute(runs).fetchone() != (1,):
            assert time.monotonic() < until
        run.send_signal(signal.SIGINT)
        _, told = run.communicate(timeout=PATIENCE_S)
        assert "cancel" in told.lower()
    with subprocess.Popen(program, stdin=PIPE, stdout=PIPE, text=True) as run:
        assert run.stdin is not None
        assert run.stdout is not None
        run.stdin.write("SELECT max(id) FROM psq.people \\watch 0.05\n")
        run.stdin.flush()
        seen = [run.stdout.readline() for _ in range(6)]
        run.send_signal(signal.SIGINT)
        run.communicate(timeout=PATIENCE_S)
        assert seen.count("2\n") >= 2


def test_the_place_of_an_error_is_pointed_at(pg_url: str) -> None:
    run = subprocess.run(
        [str(PSQL), "-X", pg_url, "-c", "SELECT nothing_here FROM psq.people"],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert "nothing_here" in run.stderr
    assert run.returncode == 1
