"""The house style as far as a machine can see it: sizes, names, design notes, and which rule is suppressed."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]
MODULE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60
VAGUE_NAMES = {"manager", "service", "handler", "helper", "util", "utils", "common", "base"}
BARE_IGNORE = re.compile(r"#\s*type:\s*ignore(?!\[)")
BARE_NOQA = re.compile(r"#\s*(?:ruff:\s*)?noqa(?!\s*:\s*[A-Z]+[0-9]+)", re.IGNORECASE)


Check = Callable[[list[Path]], Iterator[str]]


def sources(*folders: str) -> list[Path]:
    return sorted(file for folder in folders for file in (CHECKOUT / folder).rglob("*.py"))


PRODUCT = sources("kalam", "bridges", "migrations")
EVERYTHING = [*PRODUCT, *sources("tests")]


def long_modules(files: list[Path]) -> Iterator[str]:
    for file in files:
        lines = len(file.read_text().splitlines())
        if lines > MODULE_LINES_MAX:
            yield f"{file}: {lines} lines; split it along a noun"


def long_functions(files: list[Path]) -> Iterator[str]:
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > FUNCTION_LINES_MAX:
                    yield f"{file}:{node.lineno}: {node.name} has {lines} lines"


def vague_names(files: list[Path]) -> Iterator[str]:
    for file in files:
        words = {word for part in (file.stem, file.parent.name) for word in part.strip("_").split("_")}
        if vague := words & VAGUE_NAMES:
            yield f"{file}: {', '.join(sorted(vague))} says nothing of what is inside"


def undesigned_packages(folders: list[Path]) -> Iterator[str]:
    for folder in folders:
        if any(folder.glob("*.py")) and not (folder / "DESIGN.md").is_file():
            yield f"{folder}: no DESIGN.md"


def bare_suppressions(files: list[Path]) -> Iterator[str]:
    for file in files:
        for token in tokenize.generate_tokens(io.StringIO(file.read_text()).readline):
            if token.type == tokenize.COMMENT and (BARE_IGNORE.search(token.string) or BARE_NOQA.search(token.string)):
                yield f"{file}:{token.start[0]}: {token.string} does not say which rule"


def kinds_named(files: list[Path]) -> Iterator[str]:
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "TableKind":
                yield f"{file.name}: TableKind.{node.attr}"


def packages() -> list[Path]:
    """The parts of the picture in README.md."""
    folders = [*(CHECKOUT / "kalam").iterdir(), *(CHECKOUT / "bridges").iterdir()]
    return sorted(folder for folder in folders if folder.is_dir() and folder.name != "__pycache__")


def test_no_module_is_longer_than_400_lines() -> None:
    assert "\n".join(long_modules(PRODUCT)) == ""


def test_no_function_is_longer_than_60_lines() -> None:
    assert "\n".join(long_functions(PRODUCT)) == ""


def test_no_file_or_folder_has_a_name_that_says_nothing() -> None:
    assert "\n".join(vague_names(EVERYTHING)) == ""


def test_every_package_has_its_design_note() -> None:
    assert "\n".join(undesigned_packages(packages())) == ""


def test_every_suppression_names_its_rule() -> None:
    assert "\n".join(bare_suppressions(EVERYTHING)) == ""


def test_the_kind_of_a_table_is_asked_in_one_place_above_sql() -> None:
    knowing = {CHECKOUT / "kalam" / "schema.py", CHECKOUT / "kalam" / "table_kinds.py", *sources("kalam/sql")}
    files = [file for file in PRODUCT if file not in knowing]
    assert sorted(kinds_named(files)) == [
        f"kinds.py: TableKind.{kind}" for kind in ("FOREIGN", "QUERY", "SHARED", "STREAM", "TEMPORARY", "USER", "VIEW")
    ]


@pytest.mark.parametrize(
    ("check", "name", "source"),
    [
        (long_modules, "row.py", "x = 1\n" * 401),
        (long_functions, "row.py", "async def row():\n" + "    x = 1\n" * 60),
        (vague_names, "row_utils.py", ""),
        (vague_names, "base.py", ""),
        (bare_suppressions, "row.py", "x = 1  # type: ignore"),
        (bare_suppressions, "row.py", "x = 1  # noqa"),
        (bare_suppressions, "row.py", "# ruff: noqa"),
        (kinds_named, "row.py", "is_stream = table.kind is TableKind.STREAM"),
    ],
)
def test_a_fault_is_found(tmp_path: Path, check: Check, name: str, source: str) -> None:
    file = tmp_path / name
    file.write_text(source)
    assert list(check([file])) != []


@pytest.mark.parametrize(
    "source",
    [
        "x = 1\n" * 400,
        "def row():\n" + "    x = 1\n" * 59,
        "x = '# noqa'",
        "x = 1  # type: ignore[assignment]\ny = 2  # noqa: S105",
        "# ruff: noqa: D101",
    ],
)
def test_what_keeps_the_style_passes(tmp_path: Path, source: str) -> None:
    file = tmp_path / "row.py"
    file.write_text(source)
    checks = (long_modules, long_functions, bare_suppressions)
    assert [fault for check in checks for fault in check([file])] == []


def test_a_package_without_a_design_note_is_found(tmp_path: Path) -> None:
    (tmp_path / "row.py").touch()
    assert list(undesigned_packages([tmp_path])) != []
    (tmp_path / "DESIGN.md").touch()
    assert list(undesigned_packages([tmp_path])) == []
