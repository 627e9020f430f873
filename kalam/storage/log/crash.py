"""Named places at which a test can cut the process off, as a power cut would.

What is armed stands in the environment, or in a file that the environment names, by which a test arms a point of a
server that runs already.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

CRASHPOINT = "KALAM_CRASHPOINT"


@cache
def _may_be_armed() -> bool:
    """Whoever arms points has a process started with them; nobody else pays for looking."""
    return CRASHPOINT in os.environ


def crash_point(name: str) -> None:
    """End the process at once, without any clean-up, if the environment arms this point; else do nothing.

    ``<name>`` arms the next time that the point is passed, ``<name>:<n>`` the n-th; ``@<path>`` whatever name is in the
    file then.
    """
    if not _may_be_armed():
        return
    value = os.environ.get(CRASHPOINT, "")
    armed, _, times = (Path(value[1:]).read_text() if value.startswith("@") else value).partition(":")
    if armed != name:
        return
    if int(times or 1) <= 1:
        os._exit(137)
    os.environ[CRASHPOINT] = f"{name}:{int(times) - 1}"
