"""Paths into a payload: ``a.b[0]``, and ``["a.b"]`` for a name with points."""

from __future__ import annotations

import re

_STEP = re.compile(r"""\.?([^.\[\]"\\]+)|\[(\d{1,9})\]|\["([^"\\]*)"\]""")


def steps_of(path: str) -> tuple[str | int, ...] | None:
    """The names and places that a path leads along, a name first; None for what is no path."""
    steps: list[str | int] = []
    position = 0
    while position < len(path):
        match = _STEP.match(path, position)
        if match is None or (match[0].startswith(".") and not steps) or (match[0][0] not in ".[" and steps):
            return None
        steps.append(int(match[2]) if match[2] is not None else match[1] or match[3] or "")
        position = match.end()
    return tuple(steps) if steps and isinstance(steps[0], str) else None


def path_to(name: str) -> str:
    """The path to a member of this name."""
    return name if re.fullmatch(r"[^.\[\]\"\\]+", name) else f'["{name}"]'
