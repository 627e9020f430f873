"""Prepared statements and portals, as the extended protocol has them; a simple query makes unnamed ones of its own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from kalam.sql.text.lexer import StatementText
from kalam.sql.text.recognised import is_values_insert
from kalam_pg.catalogue import CatalogueText
from kalam_pg.session.answers import Answer
from kalam_pg.session.commands import Command
from kalam_pg.values.rows import Column

_FIRST: Final = re.compile(r"(?:\s|--[^\n]*\n|/\*.*?\*/|\()*([A-Za-z]+)", re.DOTALL)
_READS: Final = frozenset({"SELECT", "WITH", "VALUES", "TABLE"})
_HARMLESS: Final = frozenset({*_READS, "SHOW", "DESCRIBE", "DESC", "EXPLAIN", "USE", "SUBSCRIBE", "CHECK"})
_RETURNING: Final = re.compile(r"\bRETURNING\b", re.IGNORECASE)
_KINDS: Final = ("TABLE", "NAMESPACE", "SCHEMA", "VIEW", "USER", "ROLE", "POLICY", "TOKEN")


class Described(msgspec.Struct, frozen=True):
    """What is known of a statement before it runs: its parameters' OIDs, and its columns, None for no rows."""

    parameters: tuple[int, ...]
    columns: tuple[Column, ...] | None


class Prepared:
    """A statement, read as far as a session reads it. ``statement`` is None for an empty text.

    ``declared`` are the OIDs that the client gave its parameters, 0 where it leaves that to the server.
    """

    def __init__(
        self,
        text: str,
        statement: StatementText | None,
        command: Command | None,
        declared: Sequence[int] = (),
    ) -> None:
        self.text, self.statement, self.command = text, statement, command
        self.declared = tuple(declared)
        self.question: CatalogueText | None = None
        self.described: Described | None = None
        found = _FIRST.match(statement.text) if statement is not None else None
        self.word = found[1].upper() if found else ""

    @property
    def reads(self) -> bool:
        """Whether it is a query, whose rows are streamed."""
        return self.word in _READS

    @property
    def writes(self) -> bool:
        """Whether it changes something."""
        return self.command is None and self.question is None and self.word not in _HARMLESS

    @property
    def inserts_rows(self) -> bool:
        """Whether it inserts a VALUES list and answers with nothing but the number of rows."""
        if self.statement is None or self.command is not None or self.word != "INSERT":
            return False
        return is_values_insert(self.statement.text) and not _RETURNING.search(self.statement.text)

    @property
    def tag(self) -> str:
        """What tells that it is carried out; the number of rows goes behind a blank."""
        match self.word:
            case "SELECT" | "WITH" | "VALUES" | "TABLE":
                return "SELECT "
            case "INSERT":
                return "INSERT 0 "
            case "UPDATE" | "DELETE" | "MERGE":
                return f"{self.word} "
            case "CREATE" | "DROP" | "ALTER":
                return self._definition_tag()
        return self.word

    def _definition_tag(self) -> str:
        assert self.statement is not None
        words = self.statement.text[:200].upper().split()[1:6]
        if "TABLE" in words[:3]:
            return f"{self.word} TABLE"
        if "VIEW" in words[:3]:
            return f"{self.word} {'MATERIALIZED ' if 'MATERIALIZED' in words else ''}VIEW"
        return f"{self.word} {words[0]}" if words and words[0] in _KINDS else self.word


class Portal:
    """A statement with its parameters, ready to run or under way."""

    def __init__(self, prepared: Prepared, parameters: Sequence[Any], formats: Sequence[int]) -> None:
        self.prepared, self.parameters, self.formats = prepared, parameters, formats
        self.answer: Answer | None = None
        self.done = False
        self.declared = self.held = False

    async def close(self) -> None:
        """It is not used any more."""
        self.done = True
        if self.answer is not None:
            await self.answer.close()
