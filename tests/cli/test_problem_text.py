from __future__ import annotations

from kalam.cli.problem_text import problem_text

PROBLEM = {"code": "syntax_error", "detail": "unexpected x"}


def lines(sql: str, line: int, column: int) -> list[str]:
    return problem_text(PROBLEM | {"line": line, "column": column}, sql).splitlines()[2:]


def test_a_caret_stands_under_the_place():
    assert lines("SELECT x\nFROM  y", 2, 7) == ["  2 | FROM  y", "    |       ^"]


def test_tabs_before_the_place_stay_tabs():
    assert lines("\tSELECT\tx", 1, 9) == ["  1 | \tSELECT\tx", "    | \t      \t^"]


def test_a_place_after_the_last_character_is_shown():
    assert lines("SELECT", 1, 7) == ["  1 | SELECT", "    |       ^"]


def test_a_long_line_is_cut_around_the_place():
    excerpt, caret = lines("x" * 5_000 + "!" + "x" * 5_000, 1, 5_001)
    assert len(excerpt) <= 110
    assert excerpt[caret.index("^")] == "!"


def test_a_place_outside_the_text_is_named_and_not_drawn():
    assert lines("SELECT", 9, 1) == []
    assert lines("SELECT", 1, 99) == []
    assert "line 9" in problem_text(PROBLEM | {"line": 9, "column": 1}, "SELECT")


def test_the_hint_comes_last():
    assert problem_text(PROBLEM | {"hint": "try y"}).splitlines()[-1] == "hint: try y"
