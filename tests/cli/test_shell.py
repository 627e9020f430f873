"""``kalam shell``: piped as a program uses it, and in a pseudo-terminal as a person does."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from fcntl import ioctl
from pathlib import Path

import pytest
from cli_process import environment

from kalam.cli.shell.prompt import options
from kalam.cli.shell.statements import in_namespace, is_whole, script, split, used_namespace

PATIENCE_S = 60.0
STYLES = re.compile(r"\x1b(?:\[[0-9;?]*[A-Za-z]|[=>]|\][^\x07]*\x07)")


@pytest.mark.parametrize(
    ("text", "statements", "rest"),
    [
        ("SELECT 1; SELECT 2", ["SELECT 1"], " SELECT 2"),
        ("SELECT ';' AS a, \";\" AS b; ", ["SELECT ';' AS a, \";\" AS b"], " "),
        ("SELECT 1 -- not; here\n;", ["SELECT 1 -- not; here"], ""),
        ("/* ; */ ;; SELECT 1;", ["SELECT 1"], ""),
        ("SELECT 'it''s; fine';", ["SELECT 'it''s; fine'"], ""),
        ("SELECT 'open;", [], "SELECT 'open;"),
    ],
)
def test_statements_end_at_semicolons_outside_quotes_and_comments(text, statements, rest):
    assert split(text) == (statements, rest)


@pytest.mark.parametrize("text", ["SELECT 1;", "\\dt", "", "  ", "SELECT 1; SELECT 2; -- done"])
def test_what_is_whole_is_sent(text):
    assert is_whole(text)


@pytest.mark.parametrize("text", ["SELECT 1", "SELECT ';", "SELECT 1; SELECT", "-- only a comment"])
def test_what_is_not_whole_goes_on(text):
    assert not is_whole(text)


def test_a_script_is_statements_and_meta_commands():
    text = "SELECT 1;\n\\dt\nSELECT\n  2;\n  \\x on\nSELECT 3"
    assert list(script(text)) == ["SELECT 1", "\\dt", "SELECT\n  2", "\\x on", "SELECT 3"]


@pytest.mark.parametrize(
    ("query", "sent"),
    [
        ("SELECT * FROM t", "SELECT * FROM lab.t"),
        ("select a\nfrom t where b = 'from u'", "select a\nfrom lab.t where b = 'from u'"),
        ('SELECT "from" FROM "t" WHERE x', 'SELECT "from" FROM lab."t" WHERE x'),
        ("SELECT * FROM other.t", "SELECT * FROM other.t"),
        ("SELECT * FROM other . t", "SELECT * FROM other . t"),
        ("SELECT 1", "SELECT 1"),
    ],
)
def test_a_live_query_is_asked_in_the_namespace_in_use(query, sent):
    assert in_namespace(query, "lab") == sent
    assert in_namespace(query, None) == query


def test_use_is_noticed():
    assert used_namespace(' use  "lab" ') == "lab"
    assert used_namespace("SELECT 'use lab'") is None


CATALOGUE = {
    "namespaces": [
        {
            "name": "lab",
            "tables": [{"name": "readings", "kind": "SHARED", "columns": [{"name": "celsius", "type": "DOUBLE"}]}],
        }
    ],
    "functions": ["count", "coalesce"],
    "keywords": ["SELECT", "SET"],
}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("SELECT * FROM la", [("lab.readings", "SHARED"), ("lab", "namespace")]),
        ("SELECT * FROM lab.re", [("readings", "SHARED")]),
        ("SELECT * FROM re", [("lab.readings", "SHARED")]),
        (
            "SELECT c FROM lab.readings WHERE c",
            [("celsius", "DOUBLE"), ("count", "function"), ("coalesce", "function")],
        ),
        ("SE", [("SELECT", ""), ("SET", "")]),
    ],
)
def test_completion_offers_what_fits(text, found):
    word = re.search(r"\w*$", text)[0]
    assert options(text, text[: len(text) - len(word)], word.lower(), CATALOGUE) == found


def test_piped_statements_run_to_the_first_error(at_server, create_table):
    table = create_table("id BIGINT PRIMARY KEY, t TEXT", kind="SHARED")
    inserts = f"INSERT INTO {table} VALUES (1, 'one'), (2, NULL);"
    done = at_server("shell", stdin=f"{inserts}\nSELECT * FROM {table} WHERE id = 1;\nSELECT FROM;\nSELECT 3;")
    assert done.returncode == 1
    assert "one" in done.stdout
    assert "3" not in done.stdout.split()
    assert "syntax_error" in done.stderr
    assert "^" in done.stderr


def test_meta_commands_work_in_a_pipe(at_server, create_table, tmp_path):
    table = create_table("id BIGINT PRIMARY KEY, t TEXT", kind="SHARED")
    rows = tmp_path / "rows.csv"
    rows.write_text("id,t\n1,one\n2,two\n")
    out = tmp_path / "out.ndjson"
    lines = [
        f"\\copy {table} from {rows}",
        f"\\c {table.split('.')[0]}",
        f"SELECT count(*) AS n FROM {table.split('.')[1]};",
        f"\\copy (SELECT id FROM {table} WHERE id > 1) to {out}",
        "\\l",
        "\\dt",
        f"\\d {table}",
        "\\x",
        f"SELECT t FROM {table} WHERE id = 2;",
        f"\\flush {table}",
        "\\jobs",
        "\\du",
        f"\\dp {table}",
        "\\timing",
        "\\?",
        "\\q",
        "SELECT 'never';",
    ]
    done = at_server("shell", stdin="\n".join(lines))
    assert done.returncode == 0, done.stderr
    assert "2 rows copied from" in done.stderr
    assert "1 row copied to" in done.stderr
    assert out.read_text() == '{"id":2}\n'
    assert re.search(r"^t \| two$", done.stdout, re.MULTILINE)
    assert "never" not in done.stdout


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("\\nonsense", "\\?"),
        ("\\watch soon", "seconds"),
        ("\\copy this", "\\copy"),
        ("\\i no-such-file", "no-such-file"),
    ],
)
def test_a_wrong_meta_command_says_what_is_right(at_server, line, says):
    done = at_server("shell", stdin=line)
    assert done.returncode in (1, 2)
    assert says in done.stderr


def test_a_server_that_is_not_there_is_told(kalam):
    done = kalam("shell", "--url", "http://127.0.0.1:9", stdin="SELECT 1;")
    assert done.returncode == 1
    assert "no answer" in done.stderr


def test_it_works_over_nats(kalam, kalam_server, create_table):
    table = create_table("id BIGINT PRIMARY KEY", kind="SHARED")
    text = f"INSERT INTO {table} VALUES (1);\nSELECT count(*) AS n FROM {table};\nSELECT nothing;"
    done = kalam("shell", "--nats-url", kalam_server.nats_url, stdin=text)
    assert done.stdout.split() == ["n", "─", "1"]
    assert (done.returncode, "column_not_found" in done.stderr) == (1, True)


class Terminal:
    """A shell in a pseudo-terminal of 100 columns and 30 lines."""

    def __init__(self, arguments: list[str], home: Path) -> None:
        self._mine, theirs = pty.openpty()
        ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        env = environment(TERM="xterm", XDG_STATE_HOME=str(home), PAGER="cat", HOME=str(home))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "kalam", "shell", *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=env,
            start_new_session=True,
            preexec_fn=lambda: ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - so that ^C is a signal
        )
        os.close(theirs)
        self.seen = ""

    def type(self, text: str) -> None:
        self.seen = ""
        os.write(self._mine, text.encode())

    def wait_for(self, pattern: str) -> str:
        """Read until the pattern is there."""
        deadline = time.monotonic() + PATIENCE_S
        while not re.search(pattern, self.seen):
            assert time.monotonic() < deadline, self.seen
            if select.select([self._mine], [], [], 0.1)[0]:
                data = os.read(self._mine, 65_536).decode(errors="replace")
                if "\x1b[6n" in data:  # it asks where the cursor is
                    os.write(self._mine, b"\x1b[1;1R")
                self.seen += STYLES.sub("", data)
        return self.seen

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._mine)


@pytest.fixture
def terminal(kalam_server, tmp_path) -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def start() -> Terminal:
        opened.append(Terminal(["--data-dir", str(kalam_server.data_dir)], tmp_path))
        opened[-1].wait_for("for help")
        opened[-1].wait_for("=>")
        return opened[-1]

    yield start
    for one in opened:
        one.close()


def test_a_statement_of_several_lines_is_typed_and_remembered(terminal):
    shell = terminal()
    shell.type("SELECT 41 + 1\r")
    shell.wait_for("→")
    shell.type("AS answer;\r")
    shell.wait_for(r"\(1 row\)[\s\S]*=>")  # only a prompt hears ^D
    shell.type("\x04")
    assert shell.process.wait(PATIENCE_S) == 0
    again = terminal()
    again.type("\x1b[A")
    again.wait_for("answer")


def test_a_name_is_completed(terminal, create_table):
    table = create_table("some_quite_long_name BIGINT")
    shell = terminal()
    shell.type(f"SELECT count(*) FROM {table} WHERE some_qu")
    shell.wait_for("some_qu")
    shell.type("\t")
    shell.wait_for("ite_long_name")


def test_control_c_cancels_the_statement_on_the_server_and_not_the_shell(terminal, kalam_server):
    shell = terminal()
    shell.type("SELECT count(*) FROM range(1, 1000000) a, range(1, 1000000) b WHERE a.value < b.value;\r")
    running = "SELECT sql FROM system.queries WHERE sql LIKE '%a.value < b.value%' AND sql NOT LIKE '%queries%'"
    deadline = time.monotonic() + PATIENCE_S
    while not kalam_server.sql(running):
        assert time.monotonic() < deadline, shell.seen
        time.sleep(0.05)
    os.kill(shell.process.pid, signal.SIGINT)
    shell.wait_for(r"cancelled[\s\S]*=>")
    shell.type("SELECT 'alive' AS state;\r")
    shell.wait_for("alive")


@pytest.mark.parametrize("form", ["view", "select"])
def test_groups_are_followed_and_left(terminal, kalam_server, create_table, form):
    table = create_table("id BIGINT PRIMARY KEY, g TEXT NOT NULL", kind="SHARED")
    kalam_server.sql(f"INSERT INTO {table} VALUES (1, 'a'), (2, 'a')")
    asked = f"SELECT g, count(*) AS n FROM {table} GROUP BY g"
    if form == "view":
        kalam_server.sql(f"CREATE EPHEMERAL MATERIALIZED VIEW {table}v AS {asked}")
        asked = f"SELECT g, n FROM {table}v"
    shell = terminal()
    shell.type(f"\\live {asked}\r")
    shell.wait_for(r'"g": "a", "n": 2')
    kalam_server.sql(f"INSERT INTO {table} VALUES (3, 'a')")
    shell.wait_for(r'~ \{"g": "a", "n": 3\}')
    kalam_server.sql(f"DELETE FROM {table}")
    shell.wait_for(r'- \{"g": "a", "n": 3\}')
    os.kill(shell.process.pid, signal.SIGINT)
    shell.wait_for("=>")
    shell.type(f"SUBSCRIBE TO {asked};\r")
    shell.wait_for(r"kalam\.live\.")


def test_a_live_query_is_followed_and_left(terminal, kalam_server, create_table):
    table = create_table("id BIGINT PRIMARY KEY", kind="SHARED")
    kalam_server.sql(f"INSERT INTO {table} VALUES (1)")
    shell = terminal()
    shell.type(f"\\live SELECT * FROM {table}\r")
    shell.wait_for(r'"id": 1')
    kalam_server.sql(f"INSERT INTO {table} VALUES (2)")
    shell.wait_for(r'\+ \{"id": 2')
    os.kill(shell.process.pid, signal.SIGINT)
    shell.wait_for("=>")
