"""Steps into JSON, a batch at a time: PostgreSQL's ``->``, ``->>``, ``#>`` and ``#>>``.

A step that leads nowhere gives NULL, as does one into what has no members; a text that is no JSON is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pyarrow as pa

from kalam.query.exact.checked import MARK, OutOfRange
from kalam.query.postgresql.kept import kept
from kalam.rows.values import shorten

_DECODER, _ENCODER = msgspec.json.Decoder(), msgspec.json.Encoder()
Walk = Callable[[Any, Any], Any]
NOTHING = object()


def steps(walk: Walk, *, as_text: bool) -> Callable[[pa.Array, pa.Array], pa.Array]:
    """The function of columns that goes from each document by its key."""

    def stepped(documents: pa.Array, keys: pa.Array) -> pa.Array:
        pairs = zip(documents.to_pylist(), keys.to_pylist(), strict=True)
        return pa.array([_stepped(walk, document, key, as_text=as_text) for document, key in pairs], pa.string())

    return stepped


def _stepped(walk: Walk, document: str | None, key: Any, *, as_text: bool) -> str | None:
    if document is None or key is None:
        return None
    found = walk(decoded(document), key)
    if found is NOTHING or (as_text and found is None):
        return None
    return found if as_text and isinstance(found, str) else _ENCODER.encode(found).decode()


def decoded(text: str) -> Any:
    """The value of a JSON text."""
    try:
        return _DECODER.decode(text)
    except (msgspec.DecodeError, RecursionError):
        raise OutOfRange(f"{MARK}{shorten(text)} is no JSON;") from None


def member(value: Any, name: str) -> Any:
    """The member of an object."""
    return value.get(name, NOTHING) if isinstance(value, dict) else NOTHING


def item(value: Any, index: int) -> Any:
    """The item of an array, from its end where the index is negative."""
    return value[index] if isinstance(value, list) and -len(value) <= index < len(value) else NOTHING


def along(value: Any, path: str) -> Any:
    """What a path such as ``{a,0,b}`` leads to."""
    for step in _path(path):
        if isinstance(value, list):
            value = item(value, int(step)) if step.lstrip("-").isdecimal() else NOTHING
        else:
            value = member(value, step)
    return value


@kept
def _path(text: str) -> Sequence[str]:
    inner = text.strip()
    if not (inner.startswith("{") and inner.endswith("}")):
        raise OutOfRange(f"{MARK}a path into JSON is written '{{a,0,b}}', and not {shorten(text)};")
    return [step.strip().strip('"') for step in inner[1:-1].split(",")] if inner != "{}" else []


def canonical(documents: pa.Array) -> pa.Array:
    """JSON texts as a JSON column stores them."""
    texts = documents.to_pylist()
    return pa.array([None if text is None else _ENCODER.encode(decoded(text)).decode() for text in texts], pa.string())
