"""A literal or parameter beside a column is written in the column's own form, and nothing else is touched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from kalam.errors import InvalidValue
from kalam.schema import DataType, TypeName
from kalam.sql import parse_statement, split
from kalam.sql.queries.compared import with_own_forms
from kalam.sql.text.statements import Select

UUID = "01890A5D-AC96-774B-BCCE-B302099A8057"
OWN = UUID.lower()
COLUMNS = {
    "u": DataType(name=TypeName.UUID),
    "b": DataType(name=TypeName.BLOB),
    "at": DataType(name=TypeName.TIMESTAMP),
    "ok": DataType(name=TypeName.BOOLEAN),
    "j": DataType(name=TypeName.JSON),
    "f": DataType(name=TypeName.FLOAT),
    "m": DataType(name=TypeName.DECIMAL, precision=20, scale=2),
    "t": DataType(name=TypeName.TEXT),
}
OTHER = {"u": DataType(name=TypeName.TEXT), "v": DataType(name=TypeName.UUID)}
LAST = """arrow_cast(253402300799999999, 'Timestamp(Microsecond, Some("UTC"))')"""


def written(where: str, *parameters: Any, source: str = "n.t") -> tuple[str, Sequence[Any]]:
    statement = parse_statement(split(f"SELECT 1 FROM {source} WHERE {where}")[0])
    assert isinstance(statement, Select)
    tables = [OTHER if use.ref.table == "other" else COLUMNS for use in statement.query.tables]
    query, values = with_own_forms(statement.query, tables, parameters)
    for use in query.tables:
        assert query.text[use.start : use.end] == f"n.{use.ref.table}"
    return query.text.partition(" WHERE ")[2], values


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (f"u = '{UUID}'", f"u = '{OWN}'"),
        (f"'{UUID.replace('-', '')}' <> u", f"'{OWN}' <> u"),
        (f"u IN ('{UUID}', 'x') AND t = '{UUID}'", f"u IN ('{OWN}', 'x') AND t = '{UUID}'"),
        (f"NOT u NOT IN ('{UUID}')", f"NOT u NOT IN ('{OWN}')"),
        (f"t.u IS NOT DISTINCT FROM '{UUID}'", f"t.u IS NOT DISTINCT FROM '{OWN}'"),
        (f"\"u\"='{UUID}' /* u = '{UUID}' */ AND ok", f"\"u\"='{OWN}' /* u = '{UUID}' */ AND ok"),
        ("b = 'YWJj' OR b = ''", "b = X'616263' OR b = X''"),
        ("at = '9999-12-31T23:59:59.999999Z'", f"at = {LAST}"),
        ("at BETWEEN 253402300799999 AND TIMESTAMP '9999-12-31 23:59:59.999999'", None),
        ("at < CAST('9999-12-31 23:59:59.999999' AS TIMESTAMP)", f"at < {LAST}"),
        ("'9999-12-31 23:59:59.999999'::timestamp >= at", f"{LAST} >= at"),
        ("ok = 't' AND ok <> 'off'", "ok = TRUE AND ok <> FALSE"),
        ("j = '{ \"a\": 1 }'", "j = '{\"a\":1}'"),
        ("f = 0.1 AND f > -1.5", "f = arrow_cast('0.1', 'Float32') AND f > arrow_cast('-1.5', 'Float32')"),
        ("m = 123456789012345678.91", "m = CAST('123456789012345678.91' AS DECIMAL(20,2))"),
    ],
)
def test_a_literal_gets_the_form_of_the_column(where: str, expected: str | None) -> None:
    if expected is None:
        assert written(where)[0].count("arrow_cast(") == 2
    else:
        assert written(where)[0] == expected


@pytest.mark.parametrize(
    "where",
    [
        f"u = lower('{UUID}')",
        f"u || 'x' = '{UUID}'",
        f"lower(u) = '{UUID}'",
        f"u = '{UUID}' || ''",
        f"u LIKE '{UUID}'",
        f"t = '{UUID}'",
        f"u = t AND '{UUID}' = '{UUID}'",
        "at > now() - INTERVAL '1 day'",
        "at = 'yesterday'",
        "ok = 'maybe'",
        "j = '{'",
        "u = 'no uuid'",
        "f IN (1, 2)",
    ],
)
def test_everything_else_stays_the_users_own_text(where: str) -> None:
    assert written(where)[0] == where


def test_a_column_is_known_by_the_name_of_its_table() -> None:
    joined = "n.t AS a JOIN n.other o ON a.u = o.v"
    where = f"a.u = '{UUID}' AND o.u = '{UUID}' AND v = '{UUID}' AND u = '{UUID}'"
    assert written(where, source=joined)[0] == f"a.u = '{OWN}' AND o.u = '{UUID}' AND v = '{OWN}' AND u = '{UUID}'"


def test_a_name_that_the_query_makes_is_no_column() -> None:
    inner = "(SELECT upper(u) AS u, at AS at FROM n.t) x"
    where = f"x.u = '{UUID}' AND x.at = '9999-12-31T23:59:59.999999Z'"
    assert written(where, source=inner)[0] == f"x.u = '{UUID}' AND x.at = {LAST}"


def test_a_parameter_gets_the_form_where_it_is_compared_and_keeps_its_value_elsewhere() -> None:
    text, values = written("u = $1 AND t = $1 AND b = $2 AND f IN ($3)", UUID, "YWJj", 0.1)
    assert text == "u = $4 AND t = $1 AND b = X'616263' AND f IN (arrow_cast('0.1', 'Float32'))"
    assert values == [UUID, "YWJj", 0.1, OWN]


def test_a_bound_text_never_becomes_text_of_the_query() -> None:
    text, values = written("j = $1", '{ "a": "\' OR 1 = 1 --" }')
    assert (text, values[1]) == ("j = $2", '{"a":"\' OR 1 = 1 --"}')


def test_a_text_that_is_no_base64_is_refused_beside_a_blob() -> None:
    with pytest.raises(InvalidValue, match="and 'a!' is neither"):
        written("b = 'a!'")
