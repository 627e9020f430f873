"""The environment of a ``kalam`` command that a test starts as a process of its own."""

from __future__ import annotations

import os
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]


def environment(**more: str) -> dict[str, str]:
    """This process's environment without the settings of a server, the checkout importable."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KALAM_") and name != "NATS_URL"}
    paths = [str(CHECKOUT), str(CHECKOUT / "bridges"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return kept | {"PYTHONPATH": os.pathsep.join(paths), "COLUMNS": "100"} | more
