"""Functions that give rows: each is an array that SQLite's ``json_each`` runs over.

In FROM one such array is a table. In a select list all of them run side by side, as in PostgreSQL, so they are put
together into one array of tuples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from kalam.errors import Unsupported
from kalam_pg.catalogue import pg_types
from kalam_pg.catalogue.coded import RECORD, Coded, Parameters, as_type

Members = tuple[tuple[str, str], ...]
_NONE: Final = "'[]'"
RUNNING: Final = "k_run"
"""What the arrays of a select list, put together, are called."""


class Series(msgspec.Struct, frozen=True):
    """An array in SQLite's words, and the type of its elements; of records, their members."""

    array: str
    type: str
    members: Members = ()

    def element(self, read: str) -> Coded:
        """What reads an element."""
        return Coded(read, self.type, record=self.members)


Maker = Callable[[Sequence[Coded], Parameters], Series]


def _unnest(arguments: Sequence[Coded], parameters: Parameters) -> Series:
    array = as_type(arguments[0], "_text", parameters)
    return Series(array.sql, pg_types.element(array.type))


def _numbers(arguments: Sequence[Coded], parameters: Parameters) -> Series:
    ends = [as_type(each, "int4", parameters) for each in arguments]
    kind = "int8" if any(end.type == "int8" for end in ends) else "int4"
    return Series(f"k_series({', '.join(end.sql for end in ends)})", kind)


def _subscripts(arguments: Sequence[Coded], parameters: Parameters) -> Series:
    array = as_type(arguments[0], "_text", parameters)
    return Series(f"k_subscripts({array.sql}, {0 if array.type in pg_types.VECTORS else 1})", "int4")


def _expanded(arguments: Sequence[Coded], parameters: Parameters) -> Series:
    array = as_type(arguments[0], "_text", parameters)
    return Series(f"k_expanded({array.sql})", RECORD, (("x", pg_types.element(array.type)), ("n", "int4")))


def _split(arguments: Sequence[Coded], parameters: Parameters) -> Series:
    listed = ", ".join(as_type(each, "text", parameters).sql for each in arguments)
    return Series(f"k_string_to_array({listed})", "text")


def _empty(kind: str, *members: tuple[str, str]) -> Maker:
    """A function that tells of what Kalam has not."""
    return lambda arguments, parameters: Series(_NONE, kind, members)


SERIES: Final[dict[str, Maker]] = {
    "unnest": _unnest,
    "generate_series": _numbers,
    "generate_subscripts": _subscripts,
    "_pg_expandarray": _expanded,
    "string_to_table": _split,
    "json_array_elements": lambda arguments, parameters: Series(arguments[0].sql, "json"),
    "json_array_elements_text": lambda arguments, parameters: Series(arguments[0].sql, "text"),
    "jsonb_array_elements": lambda arguments, parameters: Series(arguments[0].sql, "jsonb"),
    "jsonb_array_elements_text": lambda arguments, parameters: Series(arguments[0].sql, "text"),
    "pg_get_keywords": lambda arguments, parameters: Series(
        "k_keywords()", RECORD, (("word", "text"), ("catcode", "char"), ("barelabel", "bool"), ("catdesc", "text"))
    ),
    "aclexplode": _empty(
        RECORD, ("grantor", "oid"), ("grantee", "oid"), ("privilege_type", "text"), ("is_grantable", "bool")
    ),
    "pg_options_to_table": _empty(RECORD, ("option_name", "text"), ("option_value", "text")),
    "pg_partition_ancestors": _empty("regclass"),
    "pg_partition_tree": _empty(
        RECORD, ("relid", "regclass"), ("parentrelid", "regclass"), ("isleaf", "bool"), ("level", "int4")
    ),
    "pg_listening_channels": _empty("text"),
    "pg_tablespace_databases": _empty("oid"),
    "pg_get_publication_tables": _empty(RECORD, ("relid", "oid"), ("attrs", "int2vector"), ("qual", "pg_node_tree")),
}


def series(function: str, arguments: Sequence[Coded], parameters: Parameters) -> Series:
    """A function that gives rows; raises Unsupported for what is none."""
    maker = SERIES.get(function)
    if maker is None:
        raise Unsupported(f"function {function}() gives no rows that a catalogue query could read")
    return maker(arguments, parameters)


def running(place: int) -> str:
    """What reads the element of an array of a select list."""
    return f"json_extract({RUNNING}.value, '$[{place}]')"
