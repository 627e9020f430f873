"""A table for the rows of a file, guessed from its first ones.

The types of Arrow and Parquet say what they are. Texts are looked at: a column has a type if every text of it is one
of its values and would come back as it was written. So 007 is a text, and so is a number with more digits than a
DOUBLE keeps. Integers are BIGINT, because the rows that were not looked at may have larger ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

from kalam.cli.loading.fitting import FALSE_WORDS, TRUE_WORDS

if TYPE_CHECKING:  # pyarrow takes a while and is needed for its formats alone
    import pyarrow as pa

ROWS_MIN: Final = 1_000
"""So many rows are looked at, if the file has them."""
BIGINT_MAX: Final = (1 << 63) - 1
DIGITS_MAX: Final = 15
"""Every number of so many digits comes back from a DOUBLE as it was."""

_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*)")
_FLOAT = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,3})?")
_NOT_FINITE: Final = frozenset({"nan", "inf", "-inf", "infinity", "-infinity"})
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TIMESTAMP = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}.*")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def types_of_texts(columns: Mapping[str, Sequence[str | None]], *, booleans: bool = False) -> dict[str, str]:
    """The type of each column of texts, as of CSV. ``booleans``: yes, no, t, f, 1 and 0 are truth values."""
    return {
        name: type_of_texts([text for text in texts if text is not None], booleans=booleans)
        for name, texts in columns.items()
    }


def type_of_texts(texts: Sequence[str], *, booleans: bool = False) -> str:
    """The type that fits all of these texts."""
    words = frozenset(TRUE_WORDS + FALSE_WORDS) if booleans else frozenset({"true", "false"})
    tests: tuple[tuple[str, Callable[[str], object]], ...] = (
        ("BOOLEAN", lambda text: text.lower() in words),
        ("BIGINT", _is_integer),
        ("DOUBLE", _is_float),
        ("DATE", lambda text: _DATE.fullmatch(text) and _reads(date, text)),
        ("TIMESTAMP", lambda text: _TIMESTAMP.fullmatch(text) and _reads(datetime, text)),
        ("UUID", _UUID.fullmatch),
    )
    return next((name for name, fits in tests if texts and all(map(fits, texts))), "TEXT")


def _is_integer(text: str) -> bool:
    return bool(_INTEGER.fullmatch(text)) and -BIGINT_MAX - 1 <= int(text) <= BIGINT_MAX and text != "-0"


def _is_float(text: str) -> bool:
    if text.lower() in _NOT_FINITE:
        return True
    digits = re.sub(r"[eE].*|[^0-9]", "", text).lstrip("0")
    return bool(_FLOAT.fullmatch(text)) and len(digits) <= DIGITS_MAX


def _reads(kind: type[date | datetime], text: str) -> bool:
    try:
        kind.fromisoformat(text)
    except ValueError:
        return False
    return True


def types_of_rows(rows: Sequence[bytes], *, booleans: bool = False) -> dict[str, str]:
    """The type of each member of rows of JSON, in the order in which they come."""
    decode = msgspec.json.Decoder(dict[str, Any]).decode
    values: dict[str, list[Any]] = {}
    for row in rows:
        for name, value in decode(row).items():
            found = values.setdefault(name, [])
            if value is not None:
                found.append(value)
    return {name: _type_of_values(found, booleans=booleans) for name, found in values.items()}


def _type_of_values(values: Sequence[Any], *, booleans: bool) -> str:
    match set(map(type, values)):
        case kinds if not kinds:
            return "TEXT"
        case kinds if kinds == {bool}:
            return "BOOLEAN"
        case kinds if kinds == {int}:
            if booleans and set(values) <= {0, 1}:
                return "BOOLEAN"
            return "BIGINT" if all(-BIGINT_MAX - 1 <= value <= BIGINT_MAX for value in values) else "DECIMAL(38,0)"
        case kinds if kinds <= {int, float}:
            return "DOUBLE"
        case kinds if kinds == {str}:
            guessed = type_of_texts(values, booleans=booleans)
            return guessed if guessed not in ("BIGINT", "DOUBLE") and (booleans or guessed != "BOOLEAN") else "TEXT"
        case _:
            return "JSON"


def merged_types(guesses: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Types that fit what was guessed for several files; JSON or TEXT where they differ."""
    types: dict[str, str] = {}
    for name, kind in (pair for guess in guesses for pair in guess.items()):
        known = types.setdefault(name, kind)
        if known != kind:
            both = {known, kind}
            numbers = both <= {"SMALLINT", "INT", "BIGINT", "FLOAT", "DOUBLE"}
            types[name] = "DOUBLE" if numbers else "JSON" if "JSON" in both else "TEXT"
    return types


def types_of_schema(schema: pa.Schema) -> dict[str, str]:
    """The type of each column of Arrow or Parquet, as they are read."""
    from kalam.cli.loading.nested import JSON_FIELD

    is_json = {field.name for field in schema if dict(field.metadata or {}).items() >= JSON_FIELD.items()}
    return {field.name: "JSON" if field.name in is_json else _type_of_arrow(field.type) for field in schema}


def _type_of_arrow(kind: Any) -> str:
    import pyarrow as pa

    types = pa.types
    if types.is_decimal(kind):
        fits = 0 <= kind.scale <= kind.precision <= 38
        return f"DECIMAL({kind.precision},{kind.scale})" if fits else "TEXT"
    tests: tuple[tuple[str, Callable[[Any], bool]], ...] = (
        ("BOOLEAN", types.is_boolean),
        ("SMALLINT", lambda kind: kind in (pa.int8(), pa.uint8(), pa.int16())),
        ("INT", lambda kind: kind in (pa.uint16(), pa.int32())),
        ("DECIMAL(20,0)", types.is_uint64),
        ("BIGINT", types.is_integer),
        ("FLOAT", lambda kind: kind in (pa.float16(), pa.float32())),
        ("DOUBLE", types.is_floating),
        ("TIMESTAMP", types.is_timestamp),
        ("DATE", types.is_date),
        ("BLOB", lambda kind: types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind)),
        ("BLOB", types.is_fixed_size_binary),
    )
    return next((name for name, fits in tests if fits(kind)), "TEXT")
