"""Which column a name in a file means: the one that was said, of the same name, of the same name in another case.

What is not clear stays as it is, and the server says which columns there are.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import msgspec

from kalam.cli.failure import CommandFailed
from kalam.names import NAME_PATTERN, listed

NAME_CHARACTERS_MAX: Final = 63


class NameMatch(msgspec.Struct):
    """Finds the columns of a table for the names of a file.

    ``ask_columns`` gives those of the table with their types, or None where it is not known; it is asked only if a name
    cannot be a column's as it is. ``mapped`` says which column a name means, ``chosen`` which columns are taken, None
    for all; both may say a file's name in any case. ``told`` collects what a person should know, ``made`` what
    each name would be called in a table that is made of the file.
    """

    ask_columns: Callable[[], Mapping[str, str] | None]
    mapped: Mapping[str, str] = msgspec.field(default_factory=dict)
    chosen: Sequence[str] | None = None
    told: dict[str, str] = msgspec.field(default_factory=dict)
    seen: set[str] = msgspec.field(default_factory=set)
    made: dict[str, str] = msgspec.field(default_factory=dict)

    @property
    def columns(self) -> Mapping[str, str] | None:
        """The columns of the table."""
        return self.ask_columns()

    def of(self, names: Sequence[str], *, all_named: bool = True) -> dict[str, str]:
        """The column for each name that is taken, in the order of the names.

        ``all_named`` says that these are all names that the file has; then one that was said and is not there raises
        CommandFailed, as do two names for one column.
        """
        self.seen.update(names)
        if all_named:
            self.made = column_names(names)
        found = {name: self._column(name) for name in names}
        if all_named:
            self.check_seen()
        if self.chosen is not None:
            wanted = set(map(str.lower, self.chosen))
            found = {name: to for name, to in found.items() if wanted & {name.lower(), to}}
        twice = {to for to in found.values() if list(found.values()).count(to) > 1}
        if twice:
            both = [name for name, to in found.items() if to in twice]
            raise CommandFailed(f"error: the file has several columns for {twice.pop()}: {listed(both)}")
        return found

    def check_seen(self) -> None:
        """Raise CommandFailed for a name that was said and that the file does not have."""
        there = {name.lower() for name in self.seen} | {self._column(name) for name in self.seen}
        for option, said in (("--map", self.mapped), ("--columns", self.chosen or ())):
            for name in said:
                if name.lower() not in there:
                    raise CommandFailed(
                        f"error: {option}: the file has no column {name!r}; it has {_listed(self.seen)}"
                    )

    def _column(self, name: str) -> str:
        said = next((to for given, to in self.mapped.items() if given.lower() == name.lower()), None)
        if said is not None:
            return said
        if NAME_PATTERN.fullmatch(name):
            return name
        columns = self.columns or {}
        for meant in (name.lower(), self.made.get(name), column_name(name)):
            if meant and meant in columns:
                self.told[name] = meant
                return meant
        return name


def _listed(names: Iterable[str]) -> str:
    return listed(sorted(names))


def column_name(text: str) -> str:
    """The name that a column of a table has for what a file calls ``text``; '' where nothing of it is left."""
    plain = unicodedata.normalize("NFKD", text.replace("ß", "ss")).encode("ascii", "ignore").decode().lower()
    name = re.sub(r"[^a-z0-9]+", "_", plain).strip("_")
    return (f"c_{name}" if name[:1].isdigit() else name)[:NAME_CHARACTERS_MAX]


def column_names(texts: Sequence[str]) -> dict[str, str]:
    """Names for columns that are to be made, each once."""
    names: dict[str, str] = {}
    for number, text in enumerate(texts, 1):
        name = base = column_name(text) or f"column_{number}"
        again = 2
        while name in names.values():
            name, again = f"{base[: NAME_CHARACTERS_MAX - 4]}_{again}", again + 1
        names[text] = name
    return names
