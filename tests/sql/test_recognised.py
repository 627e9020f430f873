"""Texts that are recognised by their form: each as it is, and what is like it and is not."""

from __future__ import annotations

import pytest

from kalam.sql import parse_statement, split
from kalam.sql.text.recognised import (
    counted_as,
    has_plain_columns,
    is_negative_zero,
    is_values_insert,
    proposed_column,
    starred,
)
from kalam.sql.text.statements import Select


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("SELECT count(*) FROM a.t", "count(*)"),
        ("  select COUNT ( * ) AS N from a.t  ", "n"),
        ("SELECT count(*) FROM a.t WHERE true", None),
        ("SELECT count(*) FROM a.t, a.u", None),
        ("SELECT count(id) FROM a.t", None),
        ("SELECT DISTINCT count(*) FROM a.t", None),
        ("SELECT count(*) + 1 FROM a.t", None),
        ("SELECT count(*) FROM a.t LIMIT 0", None),
        ("SELECT count(*) FROM a.t -- all of it", "count(*)"),
        ("SELECT count(*) FROM a.t WHERE _deleted", None),
    ],
)
def test_a_query_that_counts_a_table(text: str, name: str | None) -> None:
    [only] = split(text)
    statement = parse_statement(only)
    assert isinstance(statement, Select)
    assert counted_as(statement.query) == name


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("INSERT INTO a.t VALUES (1)", True),
        ('  insert into "a"."t" (id, "b") values (1, 2)', True),
        ("INSERT INTO a.t SELECT 1", False),
        ("INSERT INTO a.t (SELECT 1)", False),
        ("WITH x AS (VALUES (1)) SELECT * FROM x", False),
    ],
)
def test_an_insert_of_a_list_of_rows(text: str, found: bool) -> None:
    assert is_values_insert(text) is found


@pytest.mark.parametrize(
    ("text", "found"), [(" * ", True), ("id, B", True), ("id, c", False), ("id + b", False), ('"id"', False)]
)
def test_a_list_of_plain_columns(text: str, found: bool) -> None:
    assert has_plain_columns(text, {"id", "b"}) is found


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("excluded.c", "c"),
        (" EXCLUDED . C ", "c"),
        ('excluded."c d"', "c d"),
        ("excluded.c + 1", None),
        ("t.c", None),
        ("c", None),
    ],
)
def test_what_the_row_had_that_was_to_be_inserted(text: str, column: str | None) -> None:
    assert proposed_column(text) == column


@pytest.mark.parametrize(
    ("text", "found"),
    [("-0.0", True), (" - .00 ", True), ("-0.", True), ("-0", False), ("0.0", False), ("-0.1", False)],
)
def test_a_zero_with_a_sign(text: str, found: bool) -> None:
    assert is_negative_zero(text) is found


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('SELECT t.*, U . *, "v".* FROM t', {"t", "u", "v"}),
        ("SELECT *, a * b FROM t", set()),
        ("SELECT 2.* 3", {"2"}),
    ],
)
def test_names_before_a_star(text: str, names: set[str]) -> None:
    assert starred(text) == names
