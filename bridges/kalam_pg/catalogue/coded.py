"""Expressions in SQLite's words together with the types that they have in PostgreSQL, and casts between these.

In SQLite a boolean is 0 or 1, an array (``int2vector`` too) a JSON text, a time a text, and what has one of the reg*
types its OID. A literal or a parameter of which nothing is known yet becomes what stands beside it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import msgspec

from kalam.errors import InvalidValue, Unsupported
from kalam_pg.catalogue import pg_types
from kalam_pg.catalogue.arrays import array_in

UNKNOWN: Final = "unknown"
RECORD: Final = "record"
PARAMETERS_MAX: Final = 65_535
_TRUTHS: Final = {
    **dict.fromkeys(("t", "true", "yes", "on", "1", "y"), "1"),
    **dict.fromkeys(("f", "false", "no", "off", "0", "n"), "0"),
}
_INTEGER: Final = re.compile(r"\s*[+-]?\d{1,19}\s*")
_NUMBER: Final = re.compile(r"\s*[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?\s*")


class Coded(msgspec.Struct, frozen=True):
    """An expression: ``literal`` is the text of a literal, ``parameter`` the number of a parameter.

    ``record`` are the members of a composite value, as names and types.
    """

    sql: str
    type: str = UNKNOWN
    typmod: int = -1
    literal: str | None = None
    parameter: int | None = None
    record: tuple[tuple[str, str], ...] = ()


class Parameters:
    """The parameters of a query; what a client leaves open is settled by where it stands."""

    def __init__(self, declared: Sequence[int]) -> None:
        self._types: dict[int, str] = {
            number: pg_types.by_oid()[oid].name
            for number, oid in enumerate(declared, 1)
            if oid in pg_types.by_oid() and pg_types.by_oid()[oid].name != UNKNOWN
        }
        self._count = len(declared)

    def coded(self, number: int) -> Coded:
        """A parameter where it stands."""
        if not 0 < number <= PARAMETERS_MAX:
            raise InvalidValue(f"there is no parameter ${number}")
        self._count = max(self._count, number)
        return Coded(f"?{number}", self._types.get(number, UNKNOWN), parameter=number)

    def settle(self, number: int, kind: str) -> str:
        """The type of a parameter that stands where one of ``kind`` is wanted: that, unless it is known already."""
        return self._types.setdefault(number, kind)

    def types(self) -> tuple[str, ...]:
        """The types of all, in order; what nothing was told of is a text."""
        return tuple(self._types.get(number, "text") for number in range(1, self._count + 1))


def quoted(text: str) -> str:
    """A text as a literal of SQLite."""
    if "\0" in text:
        raise InvalidValue("a text cannot have the character of code 0")
    return "'" + text.replace("'", "''") + "'"


def name(text: str) -> str:
    """A name as SQLite reads it."""
    return '"' + text.replace('"', '""') + '"'


def text_of(coded: Coded) -> str:
    """What gives the text that PostgreSQL shows for a value."""
    kind = coded.type
    if kind == "bool":
        return f"CASE {coded.sql} WHEN 1 THEN 'true' WHEN 0 THEN 'false' END"
    if kind in pg_types.NAMED:
        return f"k_reg_out({quoted(kind)}, {coded.sql})"
    if pg_types.is_array(kind):
        return f"k_array_out({coded.sql}, {quoted(kind)})"
    if kind in pg_types.INTEGERS or coded.parameter is not None:
        return f"CAST({coded.sql} AS TEXT)"
    return coded.sql


def as_type(coded: Coded, kind: str, parameters: Parameters) -> Coded:
    """The value as one of another type where nothing is known of it yet; what has a type stays as it is."""
    if coded.type != UNKNOWN or kind in (UNKNOWN, "any"):
        return coded
    return cast(coded, kind, -1, parameters)


def alike(left: Coded, right: Coded, parameters: Parameters) -> tuple[Coded, Coded]:
    """Two values that are compared."""
    if left.type == UNKNOWN and right.type == UNKNOWN:
        return as_type(left, "text", parameters), as_type(right, "text", parameters)
    return as_type(left, right.type, parameters), as_type(right, left.type, parameters)


def as_texts(left: Coded, right: Coded, parameters: Parameters) -> tuple[Coded, Coded]:
    """Two values of which texts are wanted."""
    return as_type(left, "text", parameters), as_type(right, "text", parameters)


def cast(coded: Coded, kind: str, typmod: int, parameters: Parameters) -> Coded:
    """``CAST(value AS kind)``."""
    if coded.parameter is not None and coded.type == UNKNOWN:
        settled = parameters.settle(coded.parameter, kind)
        if settled in pg_types.NAMED:
            return Coded(f"k_reg({quoted(settled)}, {coded.sql})", kind, typmod)
        coded = Coded(coded.sql, settled, parameter=coded.parameter)
        if settled == kind:
            return Coded(_stored(coded.sql, kind), kind, typmod)
    if coded.literal is not None:
        return Coded(_literal(coded.literal, kind), kind, typmod, literal=coded.literal if _is_text(kind) else None)
    return Coded(_converted(coded, kind), kind, typmod, record=coded.record)


def _is_text(kind: str) -> bool:
    return kind in pg_types.TEXTS


def _stored(sql: str, kind: str) -> str:
    """A parameter's value in the form that SQLite compares rightly."""
    if kind in pg_types.INTEGERS or kind == "bool":
        return f"CAST({sql} AS INTEGER)"
    return f"CAST({sql} AS TEXT)" if _is_text(kind) else sql


def _literal(text: str, kind: str) -> str:
    if kind in pg_types.INTEGERS:
        if not _INTEGER.fullmatch(text):
            raise InvalidValue(f'invalid input syntax for type {kind}: "{text[:64]}"')
        return str(int(text))
    if kind == "bool":
        truth = _TRUTHS.get(text.strip().lower())
        if truth is None:
            raise InvalidValue(f'invalid input syntax for type boolean: "{text[:64]}"')
        return truth
    if kind in pg_types.FLOATS and _NUMBER.fullmatch(text):
        return f"({text.strip()})"
    if kind in pg_types.NAMED:
        return f"k_reg({quoted(kind)}, {quoted(text)})"
    if pg_types.is_array(kind):
        return quoted(array_in(text, kind))
    return quoted(text)


def _converted(coded: Coded, kind: str) -> str:
    sql, source = coded.sql, coded.type
    if source == kind:
        return sql
    if kind in pg_types.NAMED:
        return sql if source in pg_types.INTEGERS or source in pg_types.NAMED else f"k_reg({quoted(kind)}, {sql})"
    if _is_text(kind):
        return text_of(coded) if not _is_text(source) else sql
    if pg_types.is_array(kind):
        return sql if pg_types.is_array(source) else f"k_array_in({sql}, {quoted(kind)})"
    if kind in pg_types.INTEGERS:
        if source in pg_types.NAMED or source in pg_types.INTEGERS or source == "bool":
            return sql
        return f"CAST(round({sql}) AS INTEGER)" if source in pg_types.FLOATS else f"k_integer({sql}, {quoted(kind)})"
    if kind == "bool":
        return f"({sql} <> 0)" if source in pg_types.INTEGERS else f"k_truth({sql})"
    if kind in pg_types.FLOATS:
        return f"CAST({sql} AS REAL)"
    if kind in (
        "json",
        "jsonb",
        "timestamp",
        "timestamptz",
        "date",
        "time",
        "interval",
        "inet",
        "uuid",
        "bytea",
        "xml",
    ):
        return sql
    if kind in ("void", "regconfig", RECORD):
        raise Unsupported(f"a cast to {kind} is not offered in catalogue queries")
    return sql
