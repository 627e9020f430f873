"""``kalam flush``, ``kalam config``, ``kalam completion``, and the flags of every command."""

from __future__ import annotations

import os
import pty
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from patience import PATIENCE_S


def test_flush_writes_a_table_and_says_what_it_wrote(at_server, create_table, kalam_server):
    table = create_table("id BIGINT PRIMARY KEY", kind="SHARED")
    kalam_server.sql(f"INSERT INTO {table} VALUES (1), (2)")
    done = at_server("flush", table)
    assert re.fullmatch(rf"{table}: 2 rows in 1 Parquet file, [\d,]+ bytes\n", done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    again = at_server("flush", table)
    assert (again.returncode, again.stdout) == (0, "")
    assert again.stderr == "nothing to flush: all rows are in Parquet files\n"


def test_flush_without_a_table_is_all_of_them(at_server, create_table, kalam_server):
    tables = [create_table("id BIGINT PRIMARY KEY", kind="SHARED") for _ in range(2)]
    for table in tables:
        kalam_server.sql(f"INSERT INTO {table} VALUES (1)")
    done = at_server("flush")
    assert {line.partition(":")[0] for line in done.stdout.splitlines()} == set(tables)
    assert re.match(r"2 tables: 2 rows in 2 Parquet files, ", done.stderr)


@pytest.mark.parametrize(
    ("name", "status", "says"),
    [("nowhere.t", 1, "error ["), ("readings", 2, "is no table"), ("a.b; DROP", 2, "is no table")],
)
def test_flush_says_what_is_wrong(at_server, name, status, says):
    done = at_server("flush", name)
    assert (done.returncode, done.stdout) == (status, "")
    assert says in done.stderr


def test_flush_of_a_stream_table_is_refused(at_server, table):
    done = at_server("flush", table)
    assert done.returncode == 1
    assert "error [unsupported]" in done.stderr


def shown_at_terminal(start, *arguments: str, env: dict[str, str] | None = None) -> tuple[int, str]:
    """The status of a command, and what it shows at a terminal of its own."""
    ours, theirs = pty.openpty()
    process = start(*arguments, env=env, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown, deadline = b"", time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            piece = os.read(ours, 10_000)
        except OSError:  # the other side is closed
            break
        shown += piece
    os.close(ours)
    return process.wait(PATIENCE_S), shown.decode()


def test_flush_shows_a_bar_at_a_terminal(start, create_table, kalam_server):
    table = create_table("id BIGINT PRIMARY KEY", kind="SHARED")
    kalam_server.sql(f"INSERT INTO {table} VALUES (1)")
    status, shown = shown_at_terminal(start, "flush", table, "--url", kalam_server.http_url)
    assert status == 0
    assert "━" in shown
    assert f"{table}: 1 row in 1 Parquet file" in shown


@pytest.mark.parametrize("arguments", [("--no-color", "sql"), ("sql", "--no-color"), ("sql",)])
def test_no_colour_where_none_is_wanted(start, kalam_server, arguments):
    env = {} if "--no-color" in arguments else {"NO_COLOR": "1"}
    command = (*arguments, "SELECT NULL AS a", "--url", kalam_server.http_url)
    status, shown = shown_at_terminal(start, *command, env=env)
    assert status == 0
    assert "\x1b[" not in shown
    assert "NULL" in shown


@pytest.mark.parametrize("arguments", [("-q", "sql"), ("--quiet", "sql"), ("sql", "-q"), ("sql", "--quiet")])
def test_quiet_leaves_results_and_errors(kalam, create_table, kalam_server, arguments):
    table = create_table("id BIGINT PRIMARY KEY", kind="SHARED")
    where = ("--url", kalam_server.http_url)
    done = kalam(*arguments, f"INSERT INTO {table} VALUES (1); SELECT id FROM {table}", "--format", "csv", *where)
    assert (done.returncode, done.stdout, done.stderr) == (0, "id\n1\n", "")
    assert "duplicate_key" in kalam(*arguments, f"INSERT INTO {table} VALUES (1)", *where).stderr


def test_a_quiet_server_logs_warnings_only(start_kalam):
    server = start_kalam(flags=("-q",))
    assert server.sql("SELECT 1") == [[1]]
    assert server.stop() == 0
    assert "ready" not in server.log_text()


def test_config_shows_where_each_setting_comes_from(kalam, tmp_path):
    config = tmp_path / "kalam.toml"
    config.write_text('http_port = 8081\nlog_level = "debug"\n')
    env = {"KALAM_LOG_LEVEL": "warning", "KALAM_NATS_URL": "nats://me:secret@one:4222,nats://token@two:4222"}
    done = kalam("config", "show", "--config", str(config), "--data-dir", "elsewhere", env=env)
    assert done.returncode == 0
    found = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()[2:]}
    assert found["data_dir"] == ["elsewhere", "--data-dir"]
    assert found["http_port"] == ["8081", str(config)]
    assert found["log_level"] == ["warning", "KALAM_LOG_LEVEL"]
    assert found["nats_url"] == ["nats://***@one:4222,nats://***@two:4222", "KALAM_NATS_URL"]
    assert found["http_host"] == ["127.0.0.1", "default"]
    assert "secret" not in done.stdout


def test_config_knows_the_variable_that_all_of_nats_knows(kalam):
    done = kalam("config", "show", env={"NATS_URL": "me:secret@one:4222"})
    assert re.search(r"^nats_url +\*\*\*@one:4222 +NATS_URL$", done.stdout, re.MULTILINE)


def test_config_check_tells_every_fault_with_what_was_meant(kalam, tmp_path):
    config = tmp_path / "kalam.toml"
    config.write_text('http_prot = 1\nbatch_rows_max = "many"\n')
    done = kalam("config", "check", "--config", str(config))
    assert done.returncode == 1
    first, second = sorted(done.stdout.splitlines())
    assert first.startswith("fail  batch_rows_max: ")
    assert second == "fail  http_prot is no setting; http_port was probably meant"
    assert kalam("config", "show", "--config", str(config)).returncode == 1


def test_config_check_knows_variables_that_are_no_setting(kalam):
    done = kalam("config", "check", env={"KALAM_HTTP_PROT": "1"})
    assert (done.returncode, done.stdout) == (
        1,
        "fail  KALAM_HTTP_PROT is no setting; KALAM_HTTP_PORT was probably meant\n",
    )


def test_config_check_of_what_is_right(kalam, tmp_path):
    done = kalam("config", "check")
    assert (done.returncode, done.stdout, done.stderr) == (0, "ok    the settings are valid\n", "")
    open_to_all = kalam("config", "check", env={"KALAM_HTTP_HOST": "0.0.0.0"})
    assert open_to_all.returncode == 1
    assert "http_host is 0.0.0.0" in open_to_all.stdout
    open_to_all = kalam("config", "check", env={"KALAM_HTTP_HOST": "0.0.0.0", "KALAM_INSECURE": "1"})
    assert open_to_all.returncode == 0
    assert open_to_all.stdout.startswith("warn  ")
    assert kalam("config", "check", "--config", str(tmp_path / "none.toml")).returncode == 2


def test_bash_completes_a_command_and_its_flags(kalam, tmp_path):
    script = tmp_path / "completion.bash"
    script.write_text(kalam("completion", "bash").stdout)
    program = tmp_path / "kalam"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m kalam "$@"\n')
    program.chmod(0o755)

    def completed(*words: str) -> set[str]:
        typed = " ".join(words)
        line = f"source {script}; COMP_WORDS=({typed}) COMP_CWORD={len(words) - 1}; _kalam_completion {program}"
        done = subprocess.run(
            ["bash", "-c", f'{line}; printf "%s\\n" "${{COMPREPLY[@]}}"'], capture_output=True, text=True
        )
        return set(done.stdout.split())

    assert completed("kalam", "fl") == {"flush"}
    assert {"--data-dir", "--url"} <= completed("kalam", "flush", "--")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_is_one_of_its_shell(kalam, tmp_path, shell):
    done = kalam("completion", shell)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"complete_{shell}" in done.stdout
    if shutil.which(shell):
        script = tmp_path / "script"
        script.write_text(done.stdout)
        assert subprocess.run([shell, "-n", script], capture_output=True).returncode == 0


def test_an_unknown_shell_is_wrong_usage(kalam):
    assert kalam("completion", "powershell").returncode == 2


def test_completion_is_installed_for_the_shell_that_asks(tmp_path: Path) -> None:
    script = f"{sys.executable} -m kalam --install-completion; exit $?"
    env = {**os.environ, "HOME": str(tmp_path)}
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    assert "complete_bash" in (tmp_path / ".bash_completions" / "kalam.sh").read_text()
