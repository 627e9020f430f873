"""Where a statement ends in what was typed or piped: at a semicolon outside quotes and comments. Pure.

The server decides what is legal; the shell only has to know when to send, and sends one statement at a time, so that a
failure names its own text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_TOKEN = re.compile(
    r"""'(?:[^']|'')*(?P<quote>'|\Z)|"(?:[^"]|"")*(?P<name>"|\Z)|--[^\n]*|/\*.*?(?P<comment>\*/|\Z)"""
    r"""|(?P<end>;)|(?P<blank>\s+)|.""",
    re.DOTALL,
)
_SOURCE = re.compile(
    r"""(?:'[^']*'|"[^"]*"|--[^\n]*|/\*.*?\*/|(?!\bFROM\b).)*\bFROM\s+(?P<table>(?:\w+|"[^"]*"))(?!\w|\s*\.)""",
    re.DOTALL | re.IGNORECASE,
)
_USE = re.compile(r"\s*USE\s+\"?([a-z_][a-z0-9_]*)\"?\s*", re.IGNORECASE)


def split(text: str) -> tuple[list[str], str]:
    """The statements of a text that are whole, without their semicolons, and what is left behind the last one."""
    statements: list[str] = []
    start, filled = 0, False
    for token in _TOKEN.finditer(text):
        if token["end"]:
            if filled:
                statements.append(text[start : token.start()].strip())
            start, filled = token.end(), False
        elif token["blank"] is None and not token[0].startswith(("--", "/*")):
            filled = True
    return statements, text[start:]


def is_empty(text: str) -> bool:
    """Whether a text holds nothing but blanks and comments."""
    return all(token["blank"] or token[0].startswith(("--", "/*")) for token in _TOKEN.finditer(text))


def is_whole(text: str) -> bool:
    """Whether what was typed can be carried out: a meta command, nothing, or statements to the last semicolon."""
    if text.lstrip().startswith("\\") or not text.strip():
        return True
    statements, rest = split(text)
    return bool(statements) and is_empty(rest)


def used_namespace(statement: str) -> str | None:
    """The namespace that a USE statement names; None for any other statement."""
    found = _USE.fullmatch(statement)
    return found[1].lower() if found else None


def in_namespace(query: str, namespace: str | None) -> str:
    """A query over one table, whose name gets the namespace in use where it has none of its own."""
    found = _SOURCE.match(query) if namespace else None
    if found is None:
        return query
    return f"{query[: found.start('table')]}{namespace}.{query[found.start('table') :]}"


def script(text: str) -> Iterator[str]:
    """The statements and the meta commands of a script, in order; a meta command begins and fills a line."""
    waiting = ""
    for line in text.splitlines(keepends=True):
        if is_empty(waiting) and line.lstrip().startswith("\\"):
            waiting = ""
            yield line.strip()
            continue
        statements, waiting = split(waiting + line)
        yield from statements
    if not is_empty(waiting):
        yield waiting.strip()
