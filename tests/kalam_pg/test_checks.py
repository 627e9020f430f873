"""CHECKS.md names tests that there are."""

from __future__ import annotations

import re
from pathlib import Path

FOLDER = Path(__file__).parent


def test_every_check_of_a_client_is_in_a_test_that_there_is() -> None:
    rows = re.findall(r"^\| [^|]+ \| [^|]+ \| (`.+`) \|$", (FOLDER / "CHECKS.md").read_text(), re.MULTILINE)
    assert len(rows) > 70
    named = {name for row in rows for name in re.findall(r"`(\w+::\w+)`", row)}
    there = {
        f"{file.stem}::{name}"
        for file in FOLDER.glob("test_*.py")
        for name in re.findall(r"^(?:async )?def (test_\w+)", file.read_text(), re.MULTILINE)
    }
    assert named - there == set()
