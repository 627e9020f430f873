"""``kalam backup`` and ``kalam restore`` as processes."""

from __future__ import annotations

import pytest
from server_process import ServerProcess


def test_a_running_server_is_backed_up_and_restored(at_server, kalam, kalam_server, create_table, tmp_path):
    table = create_table("id BIGINT PRIMARY KEY", kind="SHARED")
    kalam_server.sql(f"INSERT INTO {table} VALUES (1), (2); FLUSH TABLE {table}; INSERT INTO {table} VALUES (3)")
    folder, target = tmp_path / "backup", tmp_path / "restored"
    done = at_server("backup", str(folder))
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert done.stderr.startswith(f"{folder}: the database and ")
    done = kalam("restore", str(folder), "--data-dir", str(target))
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert f"kalam serve --data-dir {target}" in done.stderr
    restored = ServerProcess(target).start()
    try:
        assert restored.sql(f"SELECT id FROM {table} ORDER BY id") == [[1], [2], [3]]
    finally:
        restored.kill()


@pytest.mark.parametrize("command", ["backup", "restore"])
def test_a_target_that_is_not_empty_is_refused(at_server, kalam, tmp_path, command):
    full = tmp_path / "full"
    full.mkdir()
    (full / "letter.txt").touch()
    if command == "restore":
        assert at_server("backup", str(tmp_path / "backup")).returncode == 0
        done = kalam("restore", str(tmp_path / "backup"), "--data-dir", str(full))
    else:
        done = at_server("backup", str(full))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error [already_exists]: ")
    assert [path.name for path in full.iterdir()] == ["letter.txt"]


def test_what_is_not_there_is_named_without_a_traceback(kalam, tmp_path):
    for arguments in (("backup", "b", "--data-dir", "nowhere"), ("restore", "nowhere", "--data-dir", "r")):
        done = kalam(*arguments)
        assert (done.returncode, done.stdout) == (1, "")
        assert "nowhere" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_folder_that_cannot_be_made_is_named(at_server, tmp_path):
    (tmp_path / "file").touch()
    done = at_server("backup", str(tmp_path / "file" / "backup"))
    assert done.returncode == 1
    assert "Not a directory" in done.stderr
    assert "Traceback" not in done.stderr
