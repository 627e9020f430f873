"""Functions of PostgreSQL on texts, and names and literals as SQL writes them.

Patterns are matched by Arrow's RE2, whose time is bounded by the length of the text, whatever pattern somebody sends.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from kalam.errors import InvalidValue
from kalam_pg.catalogue import arrays
from kalam_pg.catalogue.arrays import CHARACTERS_MAX, check_size, dumped, loaded

_PLAIN_NAME: Final = re.compile(r"[a-z_][a-z0-9_$]*")
_NAME_PART: Final = re.compile(r'\s*(?:"((?:[^"]|"")+)"|([^\W\d][\w$]*))\s*(\.|$)')
_FORMAT: Final = re.compile(r"%(?:(\d+)\$)?([sIL%])")
_RESERVED: Final = (
    "all analyse analyze and any array as asc asymmetric authorization binary both case cast check "
    "collate collation column concurrently constraint create cross current_catalog current_date "
    "current_role current_schema current_time current_timestamp current_user default deferrable desc "
    "distinct do else end except false fetch for foreign freeze from full grant group having ilike in "
    "initially inner intersect into is isnull join lateral leading left like limit localtime "
    "localtimestamp natural not notnull null offset on only or order outer overlaps placing primary "
    "references returning right select session_user similar some symmetric table tablesample then to "
    "trailing true union unique user using variadic verbose when where window with"
)
RESERVED: Final = frozenset(_RESERVED.split())
"""The words that are names only in quotes."""


# Texts.


def quote_ident(text: str) -> str:
    """A name as it is written in SQL."""
    if _PLAIN_NAME.fullmatch(text) and text not in RESERVED:
        return text
    doubled = text.replace('"', '""')
    return f'"{doubled}"'


def quote_literal(text: str) -> str:
    """A text as it is written in SQL."""
    doubled = str(text).replace("'", "''")
    if "\\" in doubled:
        escaped = doubled.replace("\\", "\\\\")
        return f"E'{escaped}'"
    return f"'{doubled}'"


def name_parts(text: str) -> list[str]:
    """The parts of a name that may be qualified; raises InvalidValue."""
    parts, place = [], 0
    while True:
        found = _NAME_PART.match(text, place)
        if found is None:
            raise InvalidValue(f'string is not a valid identifier: "{text[:64]}"')
        parts.append(found[1].replace('""', '"') if found[1] is not None else found[2].lower())
        if found[3] == "":
            return parts
        place = found.end()


def formatted(pattern: str | None, *values: Any) -> str | None:
    """What ``format`` gives."""
    if pattern is None:
        return None
    check_size(len(pattern) + pattern.count("%") * max((2 * len(str(value)) for value in values), default=0))
    following = iter(range(len(values)))

    def written(found: re.Match[str]) -> str:
        if found[2] == "%":
            return "%"
        place = int(found[1]) - 1 if found[1] else next(following, -1)
        if not 0 <= place < len(values):
            raise InvalidValue("too few arguments for format()")
        value = values[place]
        if found[2] == "s":
            return "" if value is None else str(value)
        if found[2] == "L":
            return "NULL" if value is None else quote_literal(value)
        if value is None:
            raise InvalidValue("null values cannot be formatted as an SQL identifier")
        return quote_ident(str(value))

    return _FORMAT.sub(written, pattern)


def padded(text: str, length: int, fill: str, left: bool) -> str:
    """A text of just so many characters."""
    length = max(0, min(length, CHARACTERS_MAX))
    missing = length - len(text)
    if missing <= 0 or not fill:
        return text[:length]
    filled = (fill * (missing // len(fill) + 1))[:missing]
    return filled + text if left else text + filled


def repeated(text: str, times: int) -> str:
    """A text so many times."""
    check_size(len(text) * times)
    return text * max(0, times)


def left(text: str, count: int) -> str:
    """The first characters; with a negative count all but the last."""
    return text[:count]


def right(text: str, count: int) -> str:
    """The last characters; with a negative count all but the first."""
    return text[-count:] if count > 0 else text[-count:] if count else ""


def split_part(text: str, separator: str, place: int) -> str:
    """A part of a text, from 1, or from the end where negative."""
    parts = text.split(separator) if separator else [text]
    return parts[place - 1] if 0 < place <= len(parts) else parts[place] if -len(parts) <= place < 0 else ""


def translated(text: str, old: str, new: str) -> str:
    """A text with characters put in the place of others."""
    return text.translate({ord(each): new[place] if place < len(new) else None for place, each in enumerate(old)})


# Patterns.


def _pattern(pattern: str, flags: str) -> str:
    prefix = "(?i)" if "i" in flags or pattern.startswith("***:") else ""
    return prefix + re.sub(r"\\[mM<>yY]", r"\\b", pattern)


def _re2(work: Callable[[], Any], pattern: str) -> Any:
    try:
        return work()
    except pa.ArrowInvalid:
        raise InvalidValue(f"invalid regular expression: {pattern[:64]}") from None


def matches(text: str, pattern: str, flags: str) -> int:
    """Whether a pattern is found."""
    read = _pattern(pattern, flags)
    return int(_re2(lambda: pc.match_substring_regex(pa.scalar(str(text)), read).as_py(), pattern))


def similar(text: str, pattern: str, flags: str) -> int:
    """``SIMILAR TO``, of which the wildcards and alternatives are read."""
    read = re.sub(r"[.^$\\]", lambda found: "\\" + found[0], pattern).replace("%", ".*").replace("_", ".")
    return matches(text, f"^(?:{read})$", flags)


def replaced(text: str, pattern: str, new: str, flags: str = "") -> str:
    """``regexp_replace``."""
    check_size((len(text) + 1) * (len(new) + 1) if "g" in flags else len(text) + len(new))
    read, count = _pattern(pattern, flags), -1 if "g" in flags else 1
    written = re.sub(r"\\&", r"\\0", new)
    found: str = _re2(
        lambda: pc.replace_substring_regex(
            pa.scalar(text), pattern=read, replacement=written, max_replacements=count
        ).as_py(),
        pattern,
    )
    return found


def matched(text: str, pattern: str, flags: str = "") -> str | None:
    """``regexp_match``: the groups, or the whole."""
    grouped = pattern if re.search(r"\((?!\?)", pattern) else f"({pattern})"
    named, places = [], 0
    for part in re.split(r"(\\.|\((?!\?))", grouped):
        named.append(f"(?P<g{places}>" if part == "(" else part)
        places += part == "("
    read = _pattern("".join(named), flags)
    found = _re2(lambda: pc.extract_regex(pa.scalar(text), pattern=read).as_py(), pattern)
    return None if found is None else dumped(found.values())


def substring(text: str, pattern: str) -> str | None:
    """The first group of a pattern, or all that it matches."""
    found = matched(text, pattern)
    return loaded(found)[0] if found is not None else None


def split(text: str, pattern: str, flags: str = "") -> str:
    """``regexp_split_to_array``."""
    read = _pattern(pattern, flags)
    return dumped(_re2(lambda: pc.split_pattern_regex(pa.scalar(text), pattern=read).as_py(), pattern))


def joined(*values: Any) -> str:
    """``concat``."""
    return arrays.joined("", [str(value) for value in values if value is not None])


def joined_by(separator: str | None, *values: Any) -> str | None:
    """``concat_ws``."""
    if separator is None:
        return None
    return arrays.joined(separator, [str(value) for value in values if value is not None])
