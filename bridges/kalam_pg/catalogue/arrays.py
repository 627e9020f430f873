"""Arrays: JSON texts in SQLite, ``{a,"b c",NULL}`` in PostgreSQL's own writing, lists in Python.

A vector (``int2vector``) is written ``1 2`` and counts from 0.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

from kalam.errors import InvalidValue, TooLarge
from kalam_pg.catalogue import pg_types

ELEMENTS_MAX: Final = 100_000
CHARACTERS_MAX: Final = 1 << 20
_BLANKS: Final = " \t\n\r\f\v"
_PART: Final = re.compile(r'[ \t\n\r\f\v]*("(?:[^"\\]|\\.)*+"|[^,{}"\\]*+)[ \t\n\r\f\v]*([,}])', re.DOTALL)
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)
_PLAIN: Final = re.compile(r"""[^\s{},"\\]+""")


def check_size(characters: int) -> None:
    """Raise TooLarge before a text of so many characters is made."""
    if characters > CHARACTERS_MAX:
        raise TooLarge(f"a text in a catalogue query has at most {CHARACTERS_MAX:,} characters")


def dumped(values: Iterable[Any]) -> str:
    """The JSON text of a list."""
    listed = list(values)
    if len(listed) > ELEMENTS_MAX:
        raise TooLarge(f"an array in a catalogue query has at most {ELEMENTS_MAX:,} elements")
    return json.dumps(listed, ensure_ascii=False, default=str)


def loaded(text: str | None) -> list[Any]:
    """The list of a JSON text; none for NULL."""
    found = json.loads(text) if text else []
    return found if isinstance(found, list) else [found]


def array_in(text: str, kind: str) -> str:
    """The JSON text of an array that is written as PostgreSQL writes it; raises InvalidValue."""
    element = pg_types.element(kind)
    if kind in pg_types.VECTORS:
        return dumped(_read_element(part, element) for part in text.split())
    stripped = text.strip(_BLANKS)
    if not stripped.startswith("{"):
        raise InvalidValue(f'malformed array literal: "{text[:64]}"', hint="an array is written {a,b}")
    if stripped == "{}":
        return "[]"
    values: list[Any] = []
    place, end = 1, ","
    while end == ",":
        found = _PART.match(stripped, place)
        if found is None:
            raise InvalidValue(f'malformed array literal: "{text[:64]}"', hint="arrays of arrays are not offered here")
        part, end, place = found[1], found[2], found.end()
        if part.startswith('"'):
            values.append(_read_element(_ESCAPED.sub(r"\1", part[1:-1]), element))
        else:
            values.append(
                None if part.strip(_BLANKS).upper() == "NULL" else _read_element(part.strip(_BLANKS), element)
            )
    return dumped(values)


def _read_element(text: str, kind: str) -> Any:
    if kind in pg_types.INTEGERS:
        try:
            return int(text)
        except ValueError:
            raise InvalidValue(f'invalid input syntax for type {kind}: "{text[:64]}"') from None
    return text


def array_out(values: Sequence[Any], kind: str) -> str:
    """An array as PostgreSQL writes it."""
    if kind in pg_types.VECTORS:
        return " ".join(str(value) for value in values)
    return "{" + ",".join(_written(value, kind) for value in values) + "}"


def _written(value: Any, kind: str) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, list):
        return array_out(value, kind)
    if kind == "_bool":
        return "t" if value else "f"
    text = str(value)
    if _PLAIN.fullmatch(text) and text.upper() != "NULL":
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


# Functions of PostgreSQL on arrays.


def string_to_array(text: str | None, separator: str | None, null: str | None = None) -> str | None:
    """``string_to_array``."""
    if text is None:
        return None
    parts = list(text) if separator is None else text.split(separator) if text and separator else [text] * bool(text)
    return dumped(None if null is not None and part == null else part for part in parts)


def array_to_string(array: str | None, separator: str | None, null: str | None = None) -> str | None:
    """``array_to_string``."""
    if array is None or separator is None:
        return None
    values = (null if value is None else value for value in loaded(array))
    return joined(separator, [_shown(value) for value in values if value is not None])


def joined(separator: str, texts: Sequence[str]) -> str:
    """Texts with a separator between; raises TooLarge."""
    check_size(sum(map(len, texts)) + len(separator) * len(texts))
    return separator.join(texts)


def _shown(value: Any) -> str:
    return ("t" if value else "f") if isinstance(value, bool) else str(value)


def element(array: str, place: int, first: int) -> Any:
    """The element of a subscript; the first has ``first``."""
    values = loaded(array)
    found = values[place - first] if 0 <= place - first < len(values) else None
    return dumped(found) if isinstance(found, (list, dict)) else found


def sliced(array: str | None, low: int | None, high: int | None, first: int | None) -> str | None:
    """The elements from one subscript to another."""
    if array is None or first is None:
        return None
    values = loaded(array)
    start = 0 if low is None else max(0, low - first)
    return dumped(values[start : len(values) if high is None else max(0, high - first + 1)])


def length(array: str, dimension: int = 1) -> int | None:
    """How many there are; NULL of none."""
    values = loaded(array)
    return len(values) if values and dimension == 1 else None


def upper(array: str, dimension: int = 1) -> int | None:
    """The last subscript."""
    return length(array, dimension)


def lower(array: str, dimension: int = 1) -> int | None:
    """The first subscript."""
    return 1 if length(array, dimension) else None


def position(array: str | None, wanted: Any) -> int | None:
    """Where a value is, from 1."""
    return next((place for place, value in enumerate(loaded(array), 1) if value == wanted), None)


def numbers(start: int, end: int, step: int = 1) -> str:
    """``generate_series`` of integers."""
    if step == 0:
        raise InvalidValue("step size cannot equal zero")
    numbers = range(start, end + (1 if step > 0 else -1), step)
    if len(numbers) > ELEMENTS_MAX:
        raise TooLarge(f"generate_series() in a catalogue query gives at most {ELEMENTS_MAX:,} numbers")
    return dumped(numbers)


def zipped(*arrays: str | None) -> str:
    """Arrays side by side."""
    lists = [loaded(array) for array in arrays]
    longest = max(map(len, lists), default=0)
    if longest * len(lists) > ELEMENTS_MAX:
        raise TooLarge(f"arrays side by side have at most {ELEMENTS_MAX:,} elements in a catalogue query")
    return dumped([values[place] if place < len(values) else None for values in lists] for place in range(longest))


def expanded(array: str) -> str:
    """The elements with their numbers."""
    return dumped({"x": value, "n": place} for place, value in enumerate(loaded(array), 1))
