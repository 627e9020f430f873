"""``kalam sql`` as a process: what it prints where, and how it ends."""

from __future__ import annotations

import array
import fcntl
import json
import os
import pty
import signal
import subprocess
import termios
import time

import pytest
from patience import PATIENCE_S

BIG = 2**60 + 1


def wait_until(condition):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def waiting_bytes(pipe):
    """How many bytes lie in a pipe and are not read yet."""
    count = array.array("i", [0])
    fcntl.ioctl(pipe.fileno(), termios.FIONREAD, count)
    return count[0]


def test_a_table_aligns_numbers_to_the_right_and_shows_null(at_server):
    done = at_server("sql", "SELECT 'ada' AS name, 1.5 AS score UNION ALL SELECT NULL, 10 ORDER BY score")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["name  score", "────  ─────", "ada     1.5", "NULL   10.0"]
    assert done.stderr == ""


def test_null_differs_from_the_text_null_and_from_an_empty_text(at_server):
    lines = at_server("sql", "SELECT NULL AS a, 'NULL' AS b, '' AS c, 'x' AS d").stdout.splitlines()
    assert lines[2] == "NULL  'NULL'     x"


def test_control_characters_of_a_value_do_not_reach_the_terminal(at_server):
    done = at_server("sql", "SELECT $1 AS a", "--param", "\x1b[31mred\nnext\ttab\x07")
    assert done.stdout.splitlines()[2:] == [r"\x1b[31mred", r"next\ttab\x07"]


def test_a_text_of_several_lines_keeps_them(at_server):
    done = at_server("sql", "SELECT $1 AS a, 1 AS b", "--param", "one\ntwo")
    assert [line.split() for line in done.stdout.splitlines()[2:]] == [["one", "1"], ["two"]]


def test_what_went_before_a_failure_is_told_in_its_order(at_server):
    done = at_server("sql", "SELECT 1 AS one; CREATE NAMESPACE before; SELECT * FROM before.nothing")
    assert done.returncode == 1
    assert done.stdout.split() == ["one", "───", "1"]
    assert done.stderr.splitlines()[:2] == [
        "namespace before created",
        "error [table_not_found]: there is no table before.nothing",
    ]


def test_wide_characters_keep_the_columns_straight(at_server):
    done = at_server("sql", "SELECT '日本' AS a, 1 AS b UNION ALL SELECT 'é', 2 ORDER BY b")
    assert done.stdout.splitlines()[2:] == ["日本  1", "é     2"]


def test_several_results_come_one_after_another(at_server):
    assert at_server("sql", "SELECT 1 AS a; SELECT 2 AS b").stdout == "a\n─\n1\n\nb\n─\n2\n"


def test_a_message_is_no_result(at_server):
    done = at_server("sql", "CREATE NAMESPACE a")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.strip()


@pytest.mark.parametrize("form", ["json", "ndjson", "csv", "table"])
def test_integers_beyond_2_53_stay_exact(at_server, form):
    assert str(BIG) in at_server("sql", f"SELECT CAST({BIG} AS BIGINT) AS n", "--format", form).stdout
    assert str(BIG) in at_server("sql", "SELECT $1 AS n", "--param", str(BIG), "--format", form).stdout


def test_json_is_the_whole_answer(at_server):
    body = json.loads(at_server("sql", "SELECT 1 AS a; SELECT 'b' AS b", "--format", "json").stdout)
    assert [result["rows"] for result in body["results"]] == [[[1]], [["b"]]]
    assert body["took_ms"] >= 0


def test_ndjson_is_one_object_a_row_and_nothing_else(at_server):
    sql = "CREATE NAMESPACE b; SELECT 1 AS a, NULL AS b UNION ALL SELECT 2, 'ü' ORDER BY a; SELECT 3 AS c"
    lines = at_server("sql", sql, "--format", "ndjson").stdout.splitlines()
    assert [json.loads(line) for line in lines] == [{"a": 1, "b": None}, {"a": 2, "b": "ü"}, {"c": 3}]


def test_csv_quotes_what_must_be_and_tells_null_from_an_empty_text(at_server):
    done = at_server(
        "sql", """SELECT NULL AS "a,b", '' AS e, 'x"y' AS q, 'l1\nl2' AS l, true AS t""", "--format", "csv"
    )
    assert done.stdout == '"a,b",e,q,l,t\n,"","x""y","l1\nl2",true\n'


@pytest.mark.parametrize("form", ["ndjson", "csv", "json"])
def test_a_format_for_programs_is_utf_8_in_any_locale(at_server, form):
    env = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = at_server("sql", "SELECT 'é日' AS a", "--format", form, env=env)
    assert done.returncode == 0, done.stderr
    assert "é日" in done.stdout


def test_a_table_is_readable_in_any_locale(at_server):
    env = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = at_server("sql", "SELECT 'é' AS a", env=env)
    assert (done.returncode, done.stdout) == (0, "a\n-\n?\n"), done.stderr


@pytest.mark.parametrize("arguments", [("-f", "-"), ("--file", "-")])
def test_sql_comes_from_stdin(at_server, arguments):
    assert at_server("sql", *arguments, stdin="SELECT 7 AS a").stdout == "a\n─\n7\n"


def test_sql_comes_from_a_file_with_a_byte_order_mark(at_server, tmp_path):
    file = tmp_path / "query.sql"
    file.write_bytes(b"\xef\xbb\xbfSELECT 7 AS a")
    assert at_server("sql", "-f", str(file)).stdout == "a\n─\n7\n"


def test_parameters_are_json_or_else_text(at_server):
    texts = ["7", "seven", '"8"', "NaN", "O'Brien"]
    params = [word for text in texts for word in ("--param", text)]
    done = at_server("sql", "SELECT $1 AS a, $2 AS b, $3 AS c, $4 AS d, $5 AS e", *params, "--format", "ndjson")
    assert json.loads(done.stdout) == {"a": 7, "b": "seven", "c": "8", "d": "NaN", "e": "O'Brien"}


def test_an_error_shows_code_place_caret_and_what_ran_before(at_server):
    done = at_server("sql", "SELECT 1 AS a;\n  SELEC 2")
    assert done.returncode == 1
    assert done.stdout == "a\n─\n1\n"
    lines = done.stderr.splitlines()
    assert lines[0].startswith("error [syntax_error]: ")
    assert "statement 2" in lines[1]
    assert "line 2" in lines[1]
    assert lines[2] == "  2 |   SELEC 2"
    assert lines[3].rstrip() == "    |   ^"


@pytest.mark.parametrize("form", ["json", "ndjson", "csv"])
def test_an_error_leaves_only_results_on_stdout(at_server, form):
    done = at_server("sql", "SELECT 1 AS a; SELEC 2", "--format", form)
    assert done.returncode == 1
    assert "error" not in done.stdout
    assert "1" in done.stdout
    assert at_server("sql", "SELEC 2", "--format", form).stdout == ""


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("SELECT 1", "-f", "-"),
        ("SELECT 1", "--format", "xml"),
        ("SELECT 1", "--user", "a.b"),
        ("SELECT 1", "--nonsense"),
        ("SELECT 1", "SELECT 2"),
        ("SELECT 1", "--url", "127.0.0.1:8080"),
        ("SELECT 1", "--url", "ftp://127.0.0.1"),
        ("SELECT 1", "--url", "http://127.0.0.1:port"),
    ],
)
def test_wrong_usage_ends_with_2_and_says_why(kalam, arguments):
    done = kalam("sql", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "rror" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("content", [b"SELECT '\xff'", b"\x00\x9f"])
def test_sql_that_is_no_utf_8_fails_plainly(at_server, content):
    done = at_server("sql", "-f", "-", stdin=content)
    assert (done.returncode, done.stdout) == (1, "")
    assert "not UTF-8" in done.stderr


def test_a_missing_file_fails_plainly(kalam):
    done = kalam("sql", "-f", "no-such-file.sql")
    assert done.returncode == 1
    assert "no-such-file.sql: No such file" in done.stderr


def test_no_server_is_told_with_what_to_do(kalam, unused_tcp_port):
    done = kalam("sql", "SELECT 1", "--url", f"http://127.0.0.1:{unused_tcp_port}")
    assert (done.returncode, done.stdout) == (1, "")
    assert "Connection refused" in done.stderr
    assert "kalam serve" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_data_directory_without_a_server_is_named(kalam, tmp_path):
    done = kalam("sql", "SELECT 1", "--data-dir", str(tmp_path))
    assert done.returncode == 1
    assert f"no server has announced itself in {tmp_path}" in done.stderr


def test_something_else_that_listens_is_not_taken_for_a_server(kalam, nats_server):
    done = kalam("sql", "SELECT 1", "--url", nats_server.url.replace("nats:", "http:"))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


def test_the_url_comes_from_the_environment_or_from_the_default_data_directory(kalam, kalam_server, tmp_path):
    assert kalam("sql", "SELECT 1 AS a", env={"KALAM_URL": kalam_server.http_url}).returncode == 0
    (tmp_path / "empty" / "kalam-data").symlink_to(kalam_server.data_dir)
    assert kalam("sql", "SELECT 1 AS a").returncode == 0


def test_a_reader_that_leaves_early_ends_the_command_quietly(start, kalam_server, tmp_path):
    file = tmp_path / "long.sql"
    file.write_text("SELECT * FROM (VALUES " + ",".join(["('some text to fill the pipe')"] * 20_000) + ")")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = start("sql", "-f", str(file), "--url", kalam_server.http_url, **pipes)
    assert process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(60) in (0, 1)


def test_a_terminal_gets_a_bold_header_and_dim_nulls(start, kalam_server):
    ours, theirs = pty.openpty()
    process = start("sql", "SELECT NULL AS a", "--url", kalam_server.http_url, stdout=theirs, stderr=theirs)
    os.close(theirs)
    assert process.wait(60) == 0
    shown = os.read(ours, 10_000).decode()
    os.close(ours)
    assert "\x1b[1ma\x1b[0m" in shown
    assert "\x1b[2mNULL\x1b[0m" in shown


def test_a_terminal_gets_a_plan_whole(start, kalam_server):
    ours, theirs = pty.openpty()
    text = "EXPLAIN SELECT count(*) FROM generate_series(1, 10) WHERE value > 3"
    process = start("sql", text, "--url", kalam_server.http_url, stdout=theirs, stderr=theirs)
    os.close(theirs)
    assert process.wait(60) == 0
    lines = [line.rstrip() for line in os.read(ours, 20_000).decode().splitlines()]
    os.close(ours)
    assert lines.index("\x1b[1mlogical_plan\x1b[0m") < lines.index("\x1b[1mphysical_plan\x1b[0m")
    assert any(line.startswith("    Aggregate: ") for line in lines)
    assert not any("…" in line for line in lines)


def test_an_interrupt_ends_without_a_traceback(start, kalam_server):
    process = start("sql", "-f", "-", "--url", kalam_server.http_url, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdin.write(b"SELECT")
    process.stdin.flush()
    wait_until(lambda: not waiting_bytes(process.stdin))  # it reads when the pipe is empty
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert b"Traceback" not in err


def test_an_interrupt_ends_the_query_on_the_server(start, kalam_server):
    ours, theirs = pty.openpty()
    text = "SELECT count(*) FROM range(1, 1000000) a JOIN range(1, 1000000) b ON a.value + b.value > 5"
    process = start("sql", text, "--url", kalam_server.http_url, stdout=theirs, stderr=theirs)
    os.close(theirs)

    def running() -> bool:
        return any(row[3] == text and row[7] == "running" for row in kalam_server.sql("SHOW QUERIES"))

    wait_until(running)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert b"Traceback" not in os.read(ours, 10_000)
    os.close(ours)
    wait_until(lambda: not any(row[3] == text for row in kalam_server.sql("SHOW QUERIES")))
