"""The shell's history keeps what was typed, and no password."""

from __future__ import annotations

from pathlib import Path

from kalam.cli.shell.prompt import History


def test_what_holds_a_password_is_kept_for_this_run_alone(tmp_path: Path) -> None:
    file = tmp_path / "history"
    history = History(str(file))
    for typed in ("SELECT 1", "ALTER USER ada PASSWORD 'hunter2hunter2'", "SELECT 2"):
        history.append_string(typed)
    assert history.get_strings() == ["SELECT 1", "ALTER USER ada PASSWORD 'hunter2hunter2'", "SELECT 2"]
    assert list(History(str(file)).load_history_strings()) == ["SELECT 2", "SELECT 1"]
    assert "hunter2" not in file.read_text()
