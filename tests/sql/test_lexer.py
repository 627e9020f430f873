from __future__ import annotations

import pytest

from kalam.errors import SyntaxFault
from kalam.sql import parse_statement, split
from kalam.sql.text.lexer import fold


def texts(request: str) -> list[str]:
    return [statement.text for statement in split(request)]


@pytest.mark.parametrize(
    ("request_text", "statements"),
    [
        ("SELECT 1", ["SELECT 1"]),
        ("SELECT 1;", ["SELECT 1"]),
        ("; ;SELECT 1;;SELECT 2;", ["SELECT 1", "SELECT 2"]),
        ("SELECT ';'; SELECT 2", ["SELECT ';'", "SELECT 2"]),
        ("SELECT 'it''s;'; SELECT 2", ["SELECT 'it''s;'", "SELECT 2"]),
        ("SELECT E'a\\';b'; SELECT 2", ["SELECT E'a\\';b'", "SELECT 2"]),
        ("SELECT 'a\\'; SELECT 2", ["SELECT 'a\\'", "SELECT 2"]),
        ('SELECT "a;""b"; SELECT 2', ['SELECT "a;""b"', "SELECT 2"]),
        ("SELECT $$a;b$$; SELECT 2", ["SELECT $$a;b$$", "SELECT 2"]),
        ("SELECT $q$a;$$;b$q$; SELECT 2", ["SELECT $q$a;$$;b$q$", "SELECT 2"]),
        ("SELECT $1; SELECT $2", ["SELECT $1", "SELECT $2"]),
        ("SELECT a$b; SELECT c$b", ["SELECT a$b", "SELECT c$b"]),
        ("SELECT 1 -- a;b\n; SELECT 2", ["SELECT 1 -- a;b", "SELECT 2"]),
        ("SELECT 1 -- a\r;b\n; SELECT 2", ["SELECT 1 -- a\r;b", "SELECT 2"]),
        ("/* a; /* b; */ c; */ SELECT 1; SELECT 2", ["SELECT 1", "SELECT 2"]),
        ("SELECT 1 - -2 / 3; SELECT 2", ["SELECT 1 - -2 / 3", "SELECT 2"]),
        ("SELECT 1; -- nothing more", ["SELECT 1"]),
    ],
)
def test_semicolons_separate_only_outside_of_strings_names_and_comments(
    request_text: str, statements: list[str]
) -> None:
    assert texts(request_text) == statements


@pytest.mark.parametrize("nothing", ["", "  \n", ";", ";;\n;", "-- only a comment", "/* only */ ; /* comments */"])
def test_a_text_without_a_statement_is_a_syntax_error(nothing: str) -> None:
    with pytest.raises(SyntaxFault, match="no statement"):
        split(nothing)


def test_a_statement_knows_where_it_stands() -> None:
    request = "SELECT 1;\n\n  -- two\n  SELECT 2; SELECT 3"
    first, second, third = split(request)
    assert (first.offset, first.line, first.column) == (0, 1, 1)
    assert (second.offset, second.line, second.column) == (request.index("SELECT 2"), 4, 3)
    assert (third.line, third.column) == (4, 13)
    assert all(request.startswith(statement.text, statement.offset) for statement in (first, second, third))


def test_a_string_without_end_does_not_hide_the_statements_before_it() -> None:
    first, second = split("SELECT 1; SELECT 'a; SELECT 3")
    parse_statement(first)
    with pytest.raises(SyntaxFault, match="string that begins here does not end") as caught:
        parse_statement(second)
    assert (caught.value.fields["line"], caught.value.fields["column"]) == (1, 18)


@pytest.mark.parametrize(
    ("text", "what"), [("SELECT 'a", "string"), ('SELECT "a', "quoted name"), ("SELECT 1 /* a /* b */", "comment")]
)
def test_what_does_not_end_is_named(text: str, what: str) -> None:
    with pytest.raises(SyntaxFault, match=f"the {what} that begins here"):
        parse_statement(text)


def test_errors_tell_line_and_column_in_the_whole_request() -> None:
    second = split("SELECT 1;\nSHOW\n   NONSENSE")[1]
    with pytest.raises(Exception, match="SHOW takes") as caught:
        parse_statement(second)
    assert (caught.value.fields["line"], caught.value.fields["column"]) == (3, 4)  # type: ignore[attr-defined]


def test_half_a_surrogate_pair_is_refused() -> None:
    with pytest.raises(SyntaxFault, match="Unicode"):
        parse_statement("SELECT 'a\ud800'")


def test_only_ascii_letters_fold() -> None:
    assert fold("ABC_xyz") == "abc_xyz"
    assert fold("\N{KELVIN SIGN}É") == "\N{KELVIN SIGN}É"
