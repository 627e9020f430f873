"""Why a row is refused, as its sender reads it: row, column, what was expected and what was found.

msgspec tells of a wrong value by a sentence with a path; the value itself is looked up in the message, which costs only
where there is something to refuse. An error begins with its row, which counts from 1 in its message.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any, Final

import msgspec

from kalam.errors import ColumnNotFound, InvalidValue, KalamError, NotNullViolation
from kalam.names import listed
from kalam.rows.judged import UNREADABLE
from kalam.rows.values import shorten
from kalam.schema import DELETED, ROW_ID, STREAM_KEY, UPDATED, Column, Table

SERVER_COLUMNS: Final = frozenset({UPDATED, DELETED, ROW_ID, STREAM_KEY})

_PATH = re.compile(r"(?P<what>.*?)(?: - at `\$(?:\[(?P<row>\d+)\])?(?:\.(?P<column>[^.\[`]+))?[^`]*`)?", re.DOTALL)
_FIELD = re.compile(r"(?:unknown|required) field `(?P<field>.*)`", re.DOTALL)
_FOUND = re.compile(r"Expected `(?P<expected>.*?)`(?P<bound>.*?)(?:, got `(?P<found>.*)`)?", re.DOTALL)
_ROW = re.compile(r"^row (\d+): ")
_ITS_ROW = re.compile(r"^(?:row [\d,]+:?|it) ")
_VALUE_CHARACTERS: Final = 80


def explain(table: Table, exc: Exception, *, single: bool, payload: Any = None) -> KalamError:
    """The error that a sender reads, from what msgspec said; ``payload`` is the message, as bytes or as rows."""
    if isinstance(exc, RecursionError):
        return InvalidValue("the payload is nested too deeply")
    if not isinstance(exc, msgspec.ValidationError):
        return InvalidValue(f"the payload is malformed: {exc}")
    parts = _PATH.fullmatch(str(exc))
    what, row, name = (parts["what"], parts["row"], parts["column"]) if parts else (str(exc), None, None)
    index = 0 if single else None if row is None else int(row)
    field = _FIELD.search(what)
    if field and what.startswith("Object contains unknown"):
        return unknown_column(table, field["field"], index)
    column = table.column(field["field"] if field else name or "")
    if column is None:
        return InvalidValue(f"{_place(index)}{what[:1].lower()}{what[1:]}: send one row (a map) or an array of rows")
    if field or what.endswith(("got `null`", "got `None`")):
        return missing_value(column, index)
    found, value = _FOUND.fullmatch(what), _value_text(payload, None if single else index, column.name)
    if found and found["found"]:
        return bad_value(column, index, str(column.type), f"{found['found']} {value}".rstrip())
    expected = f"{column.type}{found['bound'] if found else ''}"
    return bad_value(column, index, expected, value or what.removeprefix("Invalid enum value "))


def _value_text(payload: Any, index: int | None, name: str) -> str:
    """The value of a column in the message, cut: a text in quotes, others as JSON; '' where it cannot be shown."""
    try:
        if not isinstance(payload, bytes):
            text = msgspec.json.encode(payload[index or 0][name])
        else:
            is_json = payload.lstrip()[:1] in (b"{", b"[")
            coder = msgspec.json if is_json else msgspec.msgpack
            row = payload if index is None else coder.decode(payload, type=list[msgspec.Raw])[index]
            value = coder.decode(row, type=dict[str, msgspec.Raw])[name]
            text = bytes(value) if is_json else msgspec.json.encode(msgspec.msgpack.decode(value))
    except (*UNREADABLE, LookupError):
        return ""
    with suppress(*UNREADABLE):
        if text[:1] == b'"':
            return shorten(msgspec.json.decode(text))
    return cut(text.decode("utf-8", "replace"))


def cut(text: str) -> str:
    """A text that is not too long to be shown."""
    return text if len(text) <= _VALUE_CHARACTERS else text[: _VALUE_CHARACTERS - 3] + "..."


def _place(index: int | None) -> str:
    return "" if index is None else f"row {index + 1}: "


def bad_value(column: Column, index: int | None, expected: str, found: str, hint: str | None = None) -> InvalidValue:
    """A value is not what its column holds; ``index`` is its row's place, from 0."""
    detail = f"{_place(index)}column {column.name} expects {expected}, found {found}"
    return InvalidValue(detail) if hint is None else InvalidValue(detail, hint=hint)


def missing_value(column: Column, index: int | None) -> NotNullViolation:
    """A column that has to have a value has none."""
    return NotNullViolation(f"{_place(index)}column {column.name} is {column.type} NOT NULL and got no value")


def unknown_column(table: Table, name: str, index: int | None) -> KalamError:
    """A name that is no column's, or one of a column that nobody may write."""
    if name in SERVER_COLUMNS:
        return InvalidValue(
            f"{_place(index)}column {name} is kept by the server and cannot be written",
            hint="leave it out: SELECT names the columns that a file should have",
        )
    columns = listed([column.name for column in table.declared_columns])
    detail = f"{_place(index)}table {table.name} has no column {name[:80]!r}; it has {columns}"
    return ColumnNotFound(detail)


def row_of(error: KalamError) -> int | None:
    """The number of the row that an error is about, if it is about one."""
    row = error.fields.get("row")
    named = _ROW.match(error.detail)
    return row if isinstance(row, int) else int(named[1]) if named else None


def moved(error: KalamError, rows_before: int) -> KalamError:
    """The error of a message as one of something longer that has so many rows before it; ``row`` says which row."""
    row = row_of(error)
    if row is not None:
        error.fields["row"] = row + rows_before
        error.detail = _ROW.sub(f"row {row + rows_before}: ", error.detail, count=1)
    return error


def without_row(error: KalamError) -> str:
    """What is told of an error where its row stands beside it."""
    return _ITS_ROW.sub("", error.detail, count=1)
