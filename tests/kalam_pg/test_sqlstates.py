"""Every error of Kalam has its SQLSTATE, and the manual names it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kalam.errors import AlreadyExists, InvalidValue, KalamError, SyntaxFault
from kalam_pg.errors import SQLSTATES, told

PAGE = (Path(__file__).parents[2] / "kalam" / "manual" / "postgres.md").read_text()


def codes(root: type[KalamError] = KalamError) -> Iterator[str]:
    for child in root.__subclasses__():
        if child.__module__ == KalamError.__module__:
            if "code" in vars(child):
                yield child.code
            yield from codes(child)


@pytest.mark.parametrize("code", sorted(set(codes())))
def test_an_error_has_its_sqlstate_in_the_manual(code: str) -> None:
    cells = [cell.strip() for line in PAGE.splitlines() if line.startswith("|") for cell in line.split("|")]
    place = next(place for place, cell in enumerate(cells) if f"`{code}`" in cell.split(", "))
    assert SQLSTATES[code] in cells[place + 1]


@pytest.mark.parametrize(
    ("error", "sqlstate"),
    [
        (AlreadyExists("there is a namespace lab already"), "42P06"),
        (AlreadyExists("table lab.t has a column x already"), "42701"),
        (AlreadyExists("there is a table lab.t already"), "42P07"),
        (InvalidValue("Divide by zero error"), "22012"),
    ],
    ids=["namespace", "column", "table", "division"],
)
def test_what_a_code_says_too_little_of_is_told_apart(error: KalamError, sqlstate: str) -> None:
    assert told(error).sqlstate == sqlstate


def test_a_place_is_counted_in_characters_from_the_texts_beginning() -> None:
    assert told(SyntaxFault("x", line=2, column=3), "ab\ncdef").position == 6
    assert told(SyntaxFault("x", line=9, column=1), "ab").position is None
    assert told(ValueError("secret")).detail != "secret"
