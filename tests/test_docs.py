"""The manual says what the code does: its tables are compared with the settings, the errors and the command line.

Two tables are written by this file from the code; a test that fails prints the table as it should stand in the manual.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from pydantic.fields import FieldInfo

from kalam import __version__
from kalam.access.book import Book
from kalam.access.rights import Rights
from kalam.cli.main import app
from kalam.errors import KalamError
from kalam.manual_pages import ORDER, read_pages
from kalam.query.system import SystemTables
from kalam.settings import GIB, KIB, MIB, NO_SETTINGS, Settings
from kalam.storage.log.catalogue import Catalogue
from kalam.storage.log.database import Database
from kalam.storage.log.migrate import migrate

CHECKOUT = Path(__file__).parents[1]
README = (CHECKOUT / "README.md").read_text()
MANUAL = {file.stem: file.read_text() for file in (CHECKOUT / "kalam" / "manual").glob("*.md")}
LINK = re.compile(r"\]\(([^)]+)\)")
OF_THE_SHELL = {"--help", "--install-completion", "--show-completion"}
OF_EVERY_COMMAND = {"--quiet", "--no-color"}


def marked(name: str) -> str:
    """What stands in the manual between ``<!-- name -->`` and ``<!-- /name -->``, which are there once."""
    part = re.compile(rf"<!-- {re.escape(name)} -->\n(.*?)<!-- /{re.escape(name)} -->", re.DOTALL)
    found = [text for page in MANUAL.values() for text in part.findall(page)]
    assert len(found) == 1, f"kalam/manual has {len(found)} parts between <!-- {name} --> and <!-- /{name} -->"
    return str(found[0])


def shell_commands() -> list[str]:
    """The lines of README.md that make a virtual environment and do something in it."""
    return [line for line in README.splitlines() if line.startswith("python3 -m venv ")]


# Settings


def settings_table() -> str:
    rows = [setting_row(name, field) for name, field in Settings.model_fields.items()]
    return "\n".join(["| setting | default | environment | meaning |", "|---|---|---|---|", *rows, ""])


def setting_row(name: str, field: FieldInfo) -> str:
    return f"| `{name}` | {shown_default(name, field.default)} | `KALAM_{name.upper()}` | {field.description} |"


def shown_default(name: str, default: Any) -> str:
    match default:
        case None | ():
            return "none"
        case bool():
            return f"`{str(default).lower()}`"
        case int() if "_bytes_" in name or name.endswith("_bytes"):
            return f"`{default}` ({shown_size(default)})"
        case int() | float():
            return f"`{default:.15g}`"
        case other:
            return f"`{other}`"


def shown_size(size: int) -> str:
    unit, name = next((unit, name) for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")) if size % unit == 0)
    return f"{size // unit} {name}"


def test_the_manual_has_the_settings_of_the_code() -> None:
    assert marked("settings") == settings_table(), settings_table()


def test_every_setting_says_what_it_means() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_compose_sets_only_settings_that_exist() -> None:
    named = set(re.findall(r"^ +KALAM_(\w+):", (CHECKOUT / "compose.yaml").read_text(), re.MULTILINE))
    assert named
    assert {name.lower() for name in named if f"KALAM_{name}" not in NO_SETTINGS} <= set(Settings.model_fields)


# Errors


def error_classes(root: type[KalamError] = KalamError) -> Iterator[type[KalamError]]:
    """Every class of the tree that has a code of its own."""
    for child in root.__subclasses__():
        if child.__module__ == KalamError.__module__:
            if "code" in vars(child):
                yield child
            yield from error_classes(child)


def errors_table() -> str:
    rows = [f"| {error.status} | `{error.code}` | {first_line(error)} |" for error in sorted_errors()]
    return "\n".join(["| status | code | meaning |", "|---|---|---|", *rows, ""])


def sorted_errors() -> list[type[KalamError]]:
    return sorted(error_classes(), key=lambda error: error.status)


def first_line(error: type[KalamError]) -> str:
    return (error.__doc__ or "").splitlines()[0]


def test_the_manual_has_the_errors_of_the_code() -> None:
    assert marked("errors") == errors_table(), errors_table()


def test_every_error_has_a_code_of_its_own() -> None:
    codes = [error.code for error in error_classes()]
    assert len(codes) == len(set(codes))


# Command line


def command_flags() -> dict[str, set[str]]:
    """The flags of each command of the program, by the words that call it."""
    return dict(walk_commands("kalam", typer.main.get_command(app)))


def walk_commands(name: str, command: Any) -> Iterator[tuple[str, set[str]]]:
    # typer brings a click of its own, which has no public types.
    flags = {flag for parameter in command.params for flag in parameter.opts if flag.startswith("--")}
    assert name in ("kalam config", "kalam user") or flags >= OF_EVERY_COMMAND
    yield name, flags - OF_THE_SHELL - OF_EVERY_COMMAND
    for word, child in getattr(command, "commands", {}).items():
        if not child.hidden:
            yield from walk_commands(f"{name} {word}", child)


def documented_flags() -> dict[str, set[str]]:
    rows = [row.split("|")[1:] for row in marked("commands").splitlines() if row.startswith("| `kalam")]
    return {cells[0].strip(" `"): set(re.findall(r"--[a-z0-9-]+", cells[2])) for cells in rows}


def test_the_manual_has_the_commands_and_flags_of_the_program() -> None:
    assert documented_flags() == command_flags()


# System tables

SHOWN_TYPES = {
    "string": "TEXT",
    "int64": "BIGINT",
    "double": "DOUBLE",
    "bool": "BOOLEAN",
    "timestamp[us, tz=UTC]": "TIMESTAMP",
}


def test_the_manual_has_the_system_tables_and_their_columns(tmp_path: Path) -> None:
    path = tmp_path / "kalam.db"
    migrate(path)
    database = Database(path, commit_rows_max=1)
    system = SystemTables(database, Catalogue(database), Rights(Book(database), on=False), dict)
    schemas = {name.table: system.table(name.table, "admin").schema for name in system.names()}
    database.close()
    shown = {
        name: [(f"`{field.name}`", f"`{SHOWN_TYPES[str(field.type)]}`") for field in schema]
        for name, schema in schemas.items()
    }
    assert {name: documented_columns(name) for name in shown} == shown


def documented_columns(name: str) -> list[tuple[str, ...]]:
    rows = marked(f"system.{name}").splitlines()[2:]
    return [tuple(cell.strip() for cell in row.split("|")[1:3]) for row in rows]


# The manual


def test_the_pages_of_the_manual_are_those_in_its_order() -> None:
    assert list(read_pages()) == list(ORDER)


def test_readme_lists_every_page() -> None:
    assert {f"kalam/manual/{name}.md" for name in ORDER} <= set(LINK.findall(README))


@pytest.mark.parametrize("name", ORDER)
def test_a_page_begins_with_its_only_title(name: str) -> None:
    prose = re.sub(r"^```.*?^```$", "", MANUAL[name], flags=re.DOTALL | re.MULTILINE)
    assert prose.startswith("# ")
    assert len(re.findall(r"^# ", prose, re.MULTILINE)) == 1


@pytest.mark.parametrize("name", ORDER)
def test_links_of_a_page_lead_to_pages(name: str) -> None:
    # A path out of the folder leads somewhere in the repository and nowhere in the console and in the wheel.
    inside = {link for link in LINK.findall(MANUAL[name]) if not link.startswith("https://")}
    assert inside <= {f"{page}.md" for page in ORDER}


def test_the_words_for_programs_fit_into_60_lines() -> None:
    assert len((CHECKOUT / "kalam" / "manual" / "llms.txt").read_text().splitlines()) <= 60


def test_the_speed_in_readme_is_that_of_the_manual() -> None:
    rows = set(README.partition("\n## Speed\n")[2].partition("\n## ")[0].splitlines())
    assert len({row for row in rows if row.startswith("| ")} & set(marked("bench").splitlines())) >= 10
    assert {row for row in rows if row.startswith("| ")} <= set(marked("bench").splitlines())


# The rest


def test_the_first_command_ends_in_the_demo_and_the_second_in_the_tests() -> None:
    demo, tests = shell_commands()
    assert demo.endswith("&& .venv/bin/kalam demo")
    assert tests.endswith("&& .venv/bin/python -m pytest -q")


def test_ci_takes_the_test_command_from_readme() -> None:
    done = subprocess.run([CHECKOUT / ".ci" / "run", "--print-test-command"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == shell_commands()[1]


@pytest.mark.parametrize("target", sorted({link for link in LINK.findall(README) if ":" not in link}))
def test_links_of_readme_lead_somewhere(target: str) -> None:
    assert (CHECKOUT / target).exists()


def test_the_changelog_knows_this_version() -> None:
    assert f"\n## {__version__}\n" in (CHECKOUT / "CHANGELOG.md").read_text()
