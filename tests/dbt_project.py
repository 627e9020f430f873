"""dbt, where it is installed: a project's files, and how it went with each of its nodes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DBT = shutil.which("dbt")
MISSING = "dbt is not installed (pip, in an environment of its own: dbt-postgres)"


def write_project(folder: Path, files: Mapping[str, str]) -> None:
    """Write a project's files, by their paths in it."""
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def told_by(project: Path, *command: str, into: str = "run_results") -> Any:
    """What dbt writes of a command of it."""
    words = [str(DBT), "-q", *command, "--threads=2", "--project-dir", str(project), "--profiles-dir", str(project)]
    environment = {**os.environ, "DBT_SEND_ANONYMOUS_USAGE_STATS": "false"}
    subprocess.run(words, env=environment, cwd=project, capture_output=True, timeout=300)
    return json.loads((project / "target" / f"{into}.json").read_text())


def statuses(project: Path, *command: str) -> dict[str, str]:
    """How it went with each node, by its name; for one that failed, what dbt says of it."""
    results = told_by(project, *command)["results"]
    return {
        result["unique_id"].split(".")[2]: result["message"] if result["status"] == "error" else result["status"]
        for result in results
    }
