"""Functions of PostgreSQL that need nothing but their arguments, for SQLite.

Each is registered as ``k_<name>``. Unless it says otherwise a function gives NULL where an argument is NULL.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from kalam.errors import InvalidValue, TooLarge
from kalam_pg.catalogue import arrays, pg_types
from kalam_pg.catalogue import text_functions as texts
from kalam_pg.catalogue.arrays import ELEMENTS_MAX, array_in, array_out, check_size, dumped, loaded
from kalam_pg.catalogue.text_functions import RESERVED

_SIZES: Final = ("bytes", "kB", "MB", "GB", "TB", "PB")


# Numbers and times.


def _integer(value: Any, kind: str) -> int:
    try:
        return int(str(value).strip())
    except ValueError:
        raise InvalidValue(f'invalid input syntax for type {kind}: "{str(value)[:64]}"') from None


def _truth(value: Any) -> int:
    if str(value).strip().lower() in ("t", "true", "yes", "on", "1", "y"):
        return 1
    if str(value).strip().lower() in ("f", "false", "no", "off", "0", "n"):
        return 0
    raise InvalidValue(f'invalid input syntax for type boolean: "{str(value)[:64]}"')


def size_pretty(size: float) -> str:
    """What ``pg_size_pretty`` gives."""
    for place, unit in enumerate(_SIZES):
        if abs(size) < 10 * 1024 or place == len(_SIZES) - 1:
            return f"{int(size + 0.5)} {unit}"
        size = size / 1024
    raise AssertionError(size)


def _extract(part: str, moment: str | float) -> float | None:
    if isinstance(moment, (int, float)):
        return float(moment)
    found = datetime.fromisoformat(moment)
    if part == "epoch":
        return found.timestamp()
    value = getattr(found, part, None)
    if not isinstance(value, int):
        raise InvalidValue(f"a catalogue query cannot extract {part[:32]!r} of a time")
    return float(value)


def now() -> str:
    """The time, as texts of times are kept."""
    return datetime.now(UTC).isoformat(" ")


def _built(*values: Any) -> str:
    """``json_build_object`` of names and values."""
    return json.dumps(dict(zip(map(str, values[::2]), values[1::2], strict=False)))


def _greatest(*values: Any) -> Any:
    return max((value for value in values if value is not None), default=None)


def _least(*values: Any) -> Any:
    return min((value for value in values if value is not None), default=None)


def _keywords() -> str:
    return dumped({"word": word, "catcode": "R", "barelabel": 1, "catdesc": "reserved"} for word in sorted(RESERVED))


STRICT: Final[Mapping[str, Callable[..., Any]]] = {
    "quote_ident": texts.quote_ident,
    "quote_literal": texts.quote_literal,
    "parse_ident": lambda text, strict=1: dumped(texts.name_parts(text)),
    "lpad": lambda text, size, fill=" ": texts.padded(text, size, fill, True),
    "rpad": lambda text, size, fill=" ": texts.padded(text, size, fill, False),
    "left": texts.left,
    "right": texts.right,
    "repeat": texts.repeated,
    "split_part": texts.split_part,
    "translate": texts.translated,
    "btrim": lambda text, characters=" ": text.strip(characters),
    "ltrim": lambda text, characters=" ": text.lstrip(characters),
    "rtrim": lambda text, characters=" ": text.rstrip(characters),
    "initcap": lambda text: re.sub(r"\w+", lambda found: found[0].capitalize(), text),
    "reverse": lambda text: text[::-1],
    "strpos": lambda text, part: text.find(part) + 1,
    "starts_with": lambda text, part: int(text.startswith(part)),
    "md5": lambda text: hashlib.md5(text.encode(), usedforsecurity=False).hexdigest(),
    "ascii": lambda text: ord(text[0]) if text else 0,
    "chr": chr,
    "octet_length": lambda text: len(str(text).encode()),
    "to_hex": lambda number: f"{number:x}",
    "matches": texts.matches,
    "similar": texts.similar,
    "regexp_replace": texts.replaced,
    "regexp_match": texts.matched,
    "regexp_split_to_array": texts.split,
    "substring": texts.substring,
    "array_in": array_in,
    "array_out": lambda text, kind: array_out(loaded(text), kind),
    "element": arrays.element,
    "array_length": arrays.length,
    "array_upper": arrays.upper,
    "array_lower": arrays.lower,
    "array_ndims": lambda array: 1 if loaded(array) else None,
    "cardinality": lambda array: len(loaded(array)),
    "overlap": lambda one, other: int(not set(loaded(one)).isdisjoint(loaded(other))),
    "contains": lambda one, other: int(set(loaded(one)).issuperset(loaded(other))),
    "contained": lambda one, other: int(set(loaded(one)).issubset(loaded(other))),
    "series": arrays.numbers,
    "subscripts": lambda array, first: dumped(range(first, first + len(loaded(array)))),
    "expanded": arrays.expanded,
    "integer": _integer,
    "truth": _truth,
    "extract": _extract,
    "pg_size_pretty": size_pretty,
    "to_timestamp": lambda seconds: datetime.fromtimestamp(seconds, UTC).isoformat(" "),
    "date_part": _extract,
    "floor": lambda number: int(number // 1),
    "ceil": lambda number: -int(-number // 1),
    "ceiling": lambda number: -int(-number // 1),
    "mod": lambda number, by: number % by if by else None,
    "pg_encoding_to_char": lambda number: {6: "UTF8", 0: "SQL_ASCII"}.get(number, ""),
    "pg_char_to_encoding": lambda name: 6 if name.upper().replace("-", "") == "UTF8" else -1,
    "age": lambda *values: 1,
    "pg_column_size": lambda value: len(str(value).encode()),
}
"""Functions that give NULL where an argument is NULL."""

LENIENT: Final[Mapping[str, Callable[..., Any]]] = {
    "format": texts.formatted,
    "format_type": pg_types.formatted,
    "concat": texts.joined,
    "concat_ws": texts.joined_by,
    "quote_nullable": lambda text: "NULL" if text is None else texts.quote_literal(text),
    "string_to_array": arrays.string_to_array,
    "array_to_string": arrays.array_to_string,
    "array_position": arrays.position,
    "array_append": lambda array, value: dumped([*loaded(array), value]),
    "array_prepend": lambda value, array: dumped([value, *loaded(array)]),
    "array_remove": lambda array, value: dumped(each for each in loaded(array) if each != value),
    "array_cat": lambda one, other: dumped([*loaded(one), *loaded(other)]),
    "slice": arrays.sliced,
    "zip": arrays.zipped,
    "keywords": _keywords,
    "greatest": _greatest,
    "least": _least,
    "json_build_object": _built,
    "jsonb_build_object": _built,
    "json_build_array": lambda *values: json.dumps(values),
    "jsonb_build_array": lambda *values: json.dumps(values),
    "to_json": json.dumps,
    "to_jsonb": json.dumps,
    "current_date": lambda: now()[:10],
    **dict.fromkeys(
        ("now", "current_timestamp", "transaction_timestamp", "statement_timestamp", "clock_timestamp"), now
    ),
}
"""Functions that see what is NULL."""


class Collected:
    """The aggregate behind ``array_agg``, ``string_agg`` and ``json_agg``, with an order of its own."""

    def __init__(self) -> None:
        self._shape, self._directions = "AJ", ""
        self._separator: str | None = None
        self._found: list[tuple[Any, tuple[Any, ...]]] = []
        self._characters = 0

    def step(self, shape: str, directions: str, separator: str | None, value: Any, *keys: Any) -> None:
        """Take a row's value and its keys."""
        self._shape, self._directions = shape, directions
        self._separator = separator
        if len(self._found) >= ELEMENTS_MAX:
            raise TooLarge(f"an array in a catalogue query has at most {ELEMENTS_MAX:,} elements")
        self._characters += sum(len(each) for each in (value, separator, *keys) if isinstance(each, (str, bytes)))
        check_size(self._characters)
        self._found.append((value, keys))

    def finalize(self) -> str | None:
        """The array or text; NULL where there was no row."""
        found = self._found
        for place, each in reversed(list(enumerate(filter(None, self._directions.split(","))))):
            down, first = each[0] == "d", each[1] == "f"
            last = [row for row in found if row[1][place] is None]
            known = [row for row in found if row[1][place] is not None]
            known.sort(key=lambda row, at=place: row[1][at], reverse=down)  # type: ignore[misc]
            found = [*last, *known] if first else [*known, *last]
        values = [value for value, _ in found]
        if self._shape[0] == "D":
            values = list(dict.fromkeys(values))
            if not self._directions:
                values.sort(key=lambda value: (value is None, value))
        if self._shape[1] == "S":
            texts = [str(value) for value in values if value is not None]
            return (self._separator or "").join(texts) if texts else None
        return dumped(values) if values else None
