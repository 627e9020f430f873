"""The errors that a user reads for what DataFusion says."""

from __future__ import annotations

import re

from kalam.errors import (
    ColumnNotFound,
    Internal,
    InvalidValue,
    KalamError,
    SyntaxFault,
    TableNotFound,
    TooLarge,
    Unsupported,
)
from kalam.query.exact.checked import MARK
from kalam.storage.log.open_files import out_of_files

_TABLE = re.compile(r"table '(?:datafusion\.)?([^']+)' not found")
_SIGNATURE = re.compile(r"Function '(\w+)' failed to match any signature")
_CAUSE = re.compile(r"^((Arrow|Cast|DataFusion|Optimizer|External|Execution) error: |Error during planning: )+")
_POSITION = re.compile(r"Line: (\d+), Column: (\d+)")
_KINDS: tuple[tuple[str, type[KalamError]], ...] = (
    ("ParserError", SyntaxFault),
    ("No field named", ColumnNotFound),
    ("not found in struct", ColumnNotFound),
    ("Ambiguous reference", ColumnNotFound),
    ("Resources exhausted", TooLarge),
    ("memory allocation failed", TooLarge),
    ("not implemented", Unsupported),
    ("not supported", Unsupported),
    ("Invalid function", Unsupported),
    ("Parquet error", Internal),
    ("Object Store error", Internal),
    ("Internal error", Internal),
    ("os error", Internal),
)
_OURS = re.compile(rf"{MARK}(.*?);")
_PANICKED = re.compile(r"panicked|JoinError|Join Error")
MEMORY_HINT = "let it read or gather less, or raise the setting query_memory_bytes"


def explain(exc: BaseException) -> KalamError:
    """The error for what DataFusion, or Python beside it, has raised."""
    if isinstance(exc, MemoryError):
        return TooLarge("the query needs more memory than it may have", hint=MEMORY_HINT)
    said = str(exc)
    if not isinstance(exc, Exception) or _PANICKED.search(said):
        return Internal("the query engine failed on this query; the server's log has the reason")
    if busy := out_of_files(exc):
        return busy
    ours = _OURS.search(said)
    if ours:
        return InvalidValue(ours[1])
    text = _CAUSE.sub("", said.split("\ncaused by\n")[-1])  # the last cause is what the user can do something about
    signature = _SIGNATURE.search(text)
    if signature:
        return InvalidValue(f"function {signature[1]} does not take arguments of these types")
    table = _TABLE.search(text)
    if table:
        return TableNotFound(f"there is no table {table[1].removeprefix('public.')}")
    kind = next((error for words, error in _KINDS if words in text), InvalidValue)
    position = _POSITION.search(text)
    fields = {"line": int(position[1]), "column": int(position[2])} if position else {}
    detail = text.strip().splitlines()[0][:2_000] if text.strip() else repr(exc)
    return kind(detail, hint=MEMORY_HINT, **fields) if kind is TooLarge else kind(detail, **fields)
