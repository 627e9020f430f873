"""A table for the rows of a file, guessed from its first ones.

The types of Arrow and Parquet say what they are. Texts are looked at: a column has a type if every text of it is one
of its values and would come back as it was written. So 007 is a text, and so is a number with more digits than a
DOUBLE keeps. Integers are BIGINT, because the rows that were not looked at may have larger ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from kalam.rows.inference import type_of_texts, type_of_values

if TYPE_CHECKING:  # pyarrow takes a while and is needed for its formats alone
    import pyarrow as pa

ROWS_MIN: Final = 1_000
"""So many rows are looked at, if the file has them."""


def types_of_texts(columns: Mapping[str, Sequence[str | None]], *, booleans: bool = False) -> dict[str, str]:
    """The type of each column of texts, as of CSV. ``booleans``: yes, no, t, f, 1 and 0 are truth values."""
    return {
        name: type_of_texts([text for text in texts if text is not None], booleans=booleans)
        for name, texts in columns.items()
    }


def types_of_rows(rows: Sequence[bytes], *, booleans: bool = False) -> dict[str, str]:
    """The type of each member of rows of JSON, in the order in which they come."""
    decode = msgspec.json.Decoder(dict[str, Any]).decode
    values: dict[str, list[Any]] = {}
    for row in rows:
        for name, value in decode(row).items():
            found = values.setdefault(name, [])
            if value is not None:
                found.append(value)
    return {name: type_of_values(found, booleans=booleans) for name, found in values.items()}


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
