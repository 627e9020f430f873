"""``kalam demo`` from its start to its end, and ended early."""

from __future__ import annotations

import os
import pty
import signal
import subprocess

import pytest
from patience import PATIENCE_S
from running_processes import processes_that_name

pytestmark = pytest.mark.timeout(600)


def test_every_check_holds_and_nothing_is_left_behind(kalam, temporary):
    done = kalam("demo", "--fast", env={"TMPDIR": str(temporary)})
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert "FAILED" not in done.stdout
    assert "All checks held" in done.stdout
    assert all(f"CREATE {kind} TABLE" in done.stdout for kind in ("STREAM", "SHARED", "USER"))
    assert "22km NNE of Hualian, Taiwan" in done.stdout
    assert "CREATE EPHEMERAL MATERIALIZED VIEW quakes.strongest" in done.stdout
    assert "nobody listens, so it sleeps" in done.stdout
    assert "has changed, and each was told once" in done.stdout
    assert "the view is what its SELECT says" in done.stdout
    assert "\x1b" not in done.stdout, "control characters where there is no terminal"
    assert list(temporary.iterdir()) == []
    assert processes_that_name(str(temporary)) == []


def test_with_users_who_log_in_every_check_holds_as_well(kalam, temporary):
    done = kalam("demo", "--fast", "--auth", "on", "--keep", env={"TMPDIR": str(temporary)})
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All checks held" in done.stdout
    assert "ada is not told that quakes.events exists (table_not_found)" in done.stdout
    assert "a stranger is not let in (unauthenticated)" in done.stdout
    assert "kalam user reset-password admin --data-dir" in done.stdout
    assert processes_that_name(str(temporary)) == []


def test_a_given_data_directory_stays_and_is_not_used_twice(kalam, tmp_path):
    folder = tmp_path / "data"
    done = kalam("demo", "--fast", "--data-dir", str(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(folder.rglob("*.parquet"))
    assert f"kalam serve --data-dir {folder}" in done.stdout
    again = kalam("demo", "--fast", "--data-dir", str(folder))
    assert again.returncode == 1
    assert "has a namespace 'quakes' already" in again.stderr
    assert processes_that_name(str(folder)) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_that_is_interrupted_cleans_up(start, temporary, number):
    process = start("demo", env={"TMPDIR": str(temporary)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert any(b"what the subscriber sees" in line for line in process.stdout)
    assert processes_that_name(str(temporary))
    process.send_signal(number)
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert b"Traceback" not in err
    assert list(temporary.iterdir()) == []
    assert processes_that_name(str(temporary)) == []


def test_a_data_directory_that_cannot_be_one_fails_plainly(kalam, tmp_path):
    (tmp_path / "file").write_text("no folder")
    done = kalam("demo", "--fast", "--data-dir", str(tmp_path / "file"))
    assert done.returncode == 1
    assert "error: cannot use " in done.stderr
    assert "Traceback" not in done.stderr


def test_a_terminal_sees_colours_and_the_settings_of_a_real_server_are_not_the_demos(start, temporary):
    ours, theirs = pty.openpty()
    other = {"NATS_URL": "nats://127.0.0.1:1", "KALAM_SUBJECT_PREFIX": "other", "KALAM_HTTP_HOST": "203.0.113.1"}
    env = {"TMPDIR": str(temporary), "TERM": "xterm", **other}
    process = start("demo", "--fast", "--keep", env=env, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 65_536)
        except OSError:  # the other end is closed
            break
        shown += part
    os.close(ours)
    assert process.wait(60) == 0, shown.decode()
    (kept,) = temporary.iterdir()
    assert str(kept).encode() in shown.replace(b"\r\n", b"")
    assert b"\x1b[" in shown
    assert "━".encode() in shown
