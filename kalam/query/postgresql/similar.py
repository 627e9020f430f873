"""``SIMILAR TO``: PostgreSQL's patterns (https://www.postgresql.org/docs/15/functions-matching.html), read by Arrow.

A pattern is put into a regular expression once, as PostgreSQL does it: ``%`` and ``_`` are any text and any character,
the whole text has to match, and what follows the escape character stands for itself. What the two kinds of regular
expressions mean differently is refused: classes with names, which go by a locale, and escapes of letters and digits.
"""

from __future__ import annotations

from itertools import groupby

import pyarrow as pa
import pyarrow.compute as pc

from kalam.query.exact.checked import MARK, OutOfRange
from kalam.query.postgresql.kept import kept
from kalam.rows.values import shorten

_WORDS = {"%": ".*", "_": ".", "(": "(?:", ".": r"\.", "^": r"\^", "$": r"\$", "\\": r"\\"}
_NAMED = ("[:", "[.", "[=")


def similar(texts: pa.Array, patterns: pa.Array, escapes: pa.Array) -> pa.Array:
    """Which texts are as their patterns say; NULL where one of the three is."""
    whole = pc.is_valid(texts).to_pylist()
    asked = list(zip(patterns.to_pylist(), escapes.to_pylist(), strict=True))
    found: list[pa.Array] = []
    for (pattern, escape), run in groupby(range(len(asked)), key=asked.__getitem__):
        places = list(run)
        part = texts.slice(places[0], len(places))
        if pattern is None or escape is None or not any(whole[places[0] : places[-1] + 1]):
            found.append(pa.nulls(len(places), pa.bool_()))
        else:
            found.append(_matches(part, pattern, escape))
    return pa.concat_arrays(found) if found else pa.array([], pa.bool_())


def _matches(texts: pa.Array, pattern: str, escape: str) -> pa.Array:
    try:
        return pc.match_substring_regex(texts, expression_of(pattern, escape))
    except pa.ArrowInvalid:
        raise OutOfRange(f"{MARK}{shorten(pattern)} is no pattern of SIMILAR TO;") from None


@kept
def expression_of(pattern: str, escape: str) -> str:
    """The regular expression of a pattern; raises OutOfRange."""
    if len(escape) > 1:
        raise OutOfRange(f"{MARK}the ESCAPE of SIMILAR TO is one character, or none;")
    written, escaped, in_class = "", False, False
    for place, char in enumerate(pattern):
        if escaped:
            if char.isalnum() or char == '"':
                raise OutOfRange(f"{MARK}the escape of {char} in SIMILAR TO is not supported;")
            written += "\\" + char
            escaped = False
        elif char == escape:
            escaped = True
        elif pattern.startswith(_NAMED, place) and in_class:
            raise OutOfRange(f"{MARK}classes with names in SIMILAR TO are not supported;")
        elif in_class:
            written += "\\\\" if char == "\\" else "\\[" if char == "[" else char
            in_class = char != "]"
        else:
            written += _WORDS.get(char, char)
            in_class = char == "["
    if escaped:
        raise OutOfRange(f"{MARK}the pattern of SIMILAR TO ends in its escape character;")
    return rf"(?s)\A(?:{written})\z"
