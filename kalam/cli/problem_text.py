"""A problem object as a person reads it: the code, the place in the SQL with a caret under it, the hint."""

from __future__ import annotations

from typing import Any, Final

EXCERPT_CHARS: Final = 100  # of a long line, around the place


def problem_text(problem: dict[str, Any], sql: str = "") -> str:
    """The lines that tell a problem; ``sql`` is the text that it is about."""
    lines = [f"error [{problem.get('code')}]: {problem.get('detail')}"]
    place = [f"{name} {problem[name]}" for name in ("statement", "line", "column") if name in problem]
    if place or "at" in problem:  # the last is a place in a file, which the command knows
        lines.append("  at " + (problem.get("at") or ", ".join(place)))
    line, column = problem.get("line"), problem.get("column")
    if isinstance(line, int) and isinstance(column, int):
        lines += _excerpt(sql, line, column)
    if problem.get("hint"):
        lines.append(f"hint: {problem['hint']}")
    return "\n".join(lines)


def _excerpt(sql: str, line: int, column: int) -> list[str]:
    lines = sql.split("\n")
    if not (1 <= line <= len(lines) and 1 <= column <= len(lines[line - 1]) + 1):
        return []
    start = max(0, column - 1 - EXCERPT_CHARS // 2)
    shown = lines[line - 1].rstrip("\r")[start : start + EXCERPT_CHARS]
    # A tab before the place stays a tab, so that the caret stands below it at any tab width.
    indent = "".join("\t" if char == "\t" else " " for char in shown[: column - 1 - start])
    margin = f"  {line} | "
    return [margin + shown, " " * (len(margin) - 2) + "| " + indent + "^"]
