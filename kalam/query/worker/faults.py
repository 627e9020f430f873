"""The errors that a user reads for what DataFusion says."""

from __future__ import annotations

import re
from difflib import get_close_matches

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
from kalam.sql_words import FUNCTIONS
from kalam.storage.log.open_files import out_of_files

_TABLE = re.compile(r"table '(?:datafusion\.)?([^']+)' not found")
_SIGNATURE = re.compile(r"Function '(\w+)' failed to match any signature")
_FIELD = re.compile(r"No field named (.+?)\.(?: Did you mean '(.+?)'\?)?$", re.MULTILINE)
_FIELDS = re.compile(r"^Valid fields are (.+)\.$", re.MULTILINE)
_AMBIGUOUS = re.compile(r"Ambiguous reference to unqualified field (\S+)")
_FUNCTION = re.compile(r"Invalid function '(\w+)'")
_TWICE = re.compile(r"Schema contains duplicate qualified field name (.+)\.[^.]+$")
_WIDE = "Too many columns! The subquery should only return one column"
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
COLUMNS_SHOWN_MAX = 20
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
    if unknown := _unknown_name(text):
        return unknown
    if twice := _TWICE.search(text.strip()):
        return InvalidValue(f"{twice[1]} is read twice under one name", hint="give one of them another: AS name")
    if text.startswith(_WIDE):
        hint = "(a, b) IN (SELECT …) compares as many as there are"
        return InvalidValue("a sub-query with several columns is compared with one value", hint=hint)
    kind = next((error for words, error in _KINDS if words in text), InvalidValue)
    position = _POSITION.search(text)
    fields = {"line": int(position[1]), "column": int(position[2])} if position else {}
    detail = text.strip().splitlines()[0][:2_000] if text.strip() else repr(exc)
    return kind(detail, hint=MEMORY_HINT, **fields) if kind is TooLarge else kind(detail, **fields)


def _unknown_name(text: str) -> KalamError | None:
    """The error for a column or function that is not there, or is there twice."""
    if field := _FIELD.search(text):
        near, there = field[2], _FIELDS.search(text)
        hint = f"did you mean {near.rpartition('.')[2]}?" if near else _columns_there(there[1]) if there else None
        return ColumnNotFound(f"there is no column {field[1]}", hint=hint)
    if ambiguous := _AMBIGUOUS.search(text):
        name = ambiguous[1]
        return ColumnNotFound(f"column {name} is in more than one table", hint=f"write which one: table.{name}")
    if function := _FUNCTION.search(text):
        near = get_close_matches(function[1].lower(), FUNCTIONS, 1)
        return Unsupported(f"there is no function {function[1]}", hint=f"did you mean {near[0]}?" if near else None)
    return None


def _columns_there(fields: str) -> str | None:
    """The hint of DataFusion's list of valid fields: the columns, without their tables and those of Kalam's own."""
    names = dict.fromkeys(field.rpartition(".")[2] for field in fields.split(", "))
    shown = [name for name in names if not name.strip('"').startswith("_")]
    if not shown:
        return None
    more = len(shown) - COLUMNS_SHOWN_MAX
    return "there are " + ", ".join(shown[:COLUMNS_SHOWN_MAX]) + (f" and {more} more" if more > 0 else "")
