"""The text form of arrays, read: ``{1,NULL,"a b"}``, of one dimension or of arrays in arrays."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

BLANKS: Final = " \t\n\r\f\v"
"""What PostgreSQL skips around a member; Python takes other characters for blanks as well."""
_MEMBER: Final = re.compile(
    r'[ \t\n\r\f\v]*(?:"((?:[^"\\]|\\.)*)"|((?:[^,{}"\\]|\\.)+?))[ \t\n\r\f\v]*(?=[,}])', re.DOTALL
)
_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)
DEPTH_MAX: Final = 6
"""As in PostgreSQL."""


def read_array(written: str, read: Callable[[str], Any]) -> list[Any]:
    """The members, each read by ``read``, NULL as None; raises ValueError for what is no array."""
    found, end = _array(written.strip(BLANKS), 0, read, 1)
    if end != len(written.strip(BLANKS)):
        raise ValueError("there is more behind its end")
    return found


def _array(written: str, place: int, read: Callable[[str], Any], depth: int) -> tuple[list[Any], int]:
    if not written.startswith("{", place):
        raise ValueError("an array begins with {")
    if depth > DEPTH_MAX:
        raise ValueError(f"arrays have at most {DEPTH_MAX} dimensions")
    members: list[Any] = []
    place = _blank(written, place + 1)
    if written.startswith("}", place):
        return members, place + 1
    while True:
        member, place = _member(written, place, read, depth)
        members.append(member)
        place = _blank(written, place)
        if written.startswith("}", place):
            return members, place + 1
        if not written.startswith(",", place):
            raise ValueError("a member ends with , or }")
        place += 1


def _member(written: str, place: int, read: Callable[[str], Any], depth: int) -> tuple[Any, int]:
    place = _blank(written, place)
    if written.startswith("{", place):
        return _array(written, place, read, depth + 1)
    found = _MEMBER.match(written, place)
    if found is None:
        raise ValueError("a member is missing")
    quoted, bare = found[1], found[2]
    if quoted is None and bare.upper() == "NULL":
        return None, found.end()
    return read(_ESCAPE.sub(r"\1", bare if quoted is None else quoted)), found.end()


def _blank(written: str, place: int) -> int:
    while place < len(written) and written[place] in BLANKS:
        place += 1
    return place
