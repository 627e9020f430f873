"""The prompt: completion from the catalogue, colours, statements of several lines, a history for each server."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.filters import has_completions
from prompt_toolkit.history import FileHistory
from prompt_toolkit.key_binding import KeyBindings
from prompt_toolkit.key_binding.key_processor import KeyPressEvent
from prompt_toolkit.lexers import PygmentsLexer
from pygments.lexers.sql import PostgresLexer

from kalam.cli.shell.meta import COMMANDS
from kalam.cli.shell.statements import is_whole

OPTIONS_MAX: Final = 100
_MENTION: Final = re.compile(r"\b(?:from|join|into|update|table)\s+([a-z_]\w*)\.([a-z_]\w*)", re.IGNORECASE)
_OWNER: Final = re.compile(r"([A-Za-z_]\w*)\.$")


def history_file(name: str) -> Path:
    """The file that remembers what was typed to the server ``name``: its URL or its data directory."""
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    folder = state / "kalam"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder / f"history-{hashlib.sha256(name.encode()).hexdigest()[:12]}"


class CatalogueCompleter(Completer):
    """Offers what begins with the word before the cursor: columns of the tables that are mentioned, tables, words."""

    def __init__(self, catalogue: Callable[[], dict[str, Any]]) -> None:
        self._catalogue = catalogue

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """The completions at the cursor."""
        before = document.text_before_cursor
        if before.lstrip().startswith("\\") and " " not in before.strip():
            word = before.strip()[1:]
            return [
                Completion(name, -len(word), display_meta=m.does) for name, m in COMMANDS.items() if _is(name, word)
            ]
        word = re.search(r"\w*$", before)[0]  # type: ignore[index]  # an empty match is one
        found = options(document.text, before[: len(before) - len(word)], word.lower(), self._catalogue())
        return [Completion(text, -len(word), display_meta=kind) for text, kind in found]


class History(FileHistory):
    """What was typed, without the statements that hold a password."""

    def store_string(self, string: str) -> None:
        """Keep what was typed."""
        from kalam.sql.text.passwords import without_passwords  # with all of kalam.sql, which the prompt comes before

        if without_passwords(string) == string:
            super().store_string(string)


def _is(name: str, word: str) -> bool:
    return name.startswith(word)


def options(text: str, before: str, word: str, catalogue: dict[str, Any]) -> list[tuple[str, str]]:
    """What can stand for ``word`` behind ``before`` in ``text``: names and what they are, the likeliest first. Pure."""
    spaces = {space["name"]: space["tables"] for space in catalogue["namespaces"]}
    mentioned = [
        table
        for space, name in _MENTION.findall(text)
        for table in spaces.get(space.lower(), ())
        if table["name"] == name.lower()
    ]
    owner = _OWNER.search(before)
    if owner is not None:
        own = [table for table in mentioned if table["name"] == owner[1].lower()]
        found = [*_columns(own), *((t["name"], t["kind"]) for t in spaces.get(owner[1].lower(), ()))]
    else:
        found = [*_columns(mentioned), *_everything(spaces, catalogue)]
    fitting = dict.fromkeys((name, kind) for name, kind in found if _begins(name, word))
    return list(fitting)[:OPTIONS_MAX]


def _columns(tables: Iterable[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    return ((column["name"], column["type"]) for table in tables for column in table["columns"])


def _everything(spaces: dict[str, Any], catalogue: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield from ((f"{space}.{table['name']}", table["kind"]) for space, tables in spaces.items() for table in tables)
    yield from ((space, "namespace") for space in spaces)
    yield from ((name, "function") for name in catalogue["functions"])
    yield from ((name, "") for name in catalogue["keywords"])


def _begins(name: str, word: str) -> bool:
    """Whether a name, or the table in a full name, begins with the word."""
    lower = name.lower()
    return lower.startswith(word) or ("." in lower and lower.partition(".")[2].startswith(word))


def make_prompt(name: str, catalogue: Callable[[], dict[str, Any]]) -> PromptSession[str]:
    """The prompt of a shell on the server ``name``."""
    keys = KeyBindings()

    @keys.add("enter", filter=~has_completions)
    def _(event: KeyPressEvent) -> None:
        if is_whole(event.current_buffer.text):
            event.current_buffer.validate_and_handle()
        else:
            event.current_buffer.insert_text("\n")

    return PromptSession(
        history=History(str(history_file(name))),
        completer=CatalogueCompleter(catalogue),
        complete_while_typing=False,
        lexer=PygmentsLexer(PostgresLexer),
        multiline=True,
        key_bindings=keys,
        prompt_continuation=lambda width, *_: "→ ".rjust(width),
        enable_history_search=True,
    )
