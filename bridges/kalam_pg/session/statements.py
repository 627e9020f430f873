"""Prepared statements and portals, as the extended protocol has them; a simple query makes unnamed ones of its own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Final

import msgspec
import pyarrow as pa

from kalam.sql.text.lexer import StatementText
from kalam.sql.text.recognised import is_values_insert
from kalam_pg.catalogue import CatalogueText
from kalam_pg.session.answers import Answer
from kalam_pg.session.commands import Command
from kalam_pg.values.few_rows import Write
from kalam_pg.values.rows import Column

_FIRST: Final = re.compile(r"(?:\s|--[^\n]*\n|/\*.*?\*/|\()*([A-Za-z]+)", re.DOTALL)
_READS: Final = frozenset({"SELECT", "WITH", "VALUES", "TABLE"})
_HARMLESS: Final = frozenset({*_READS, "SHOW", "DESCRIBE", "DESC", "EXPLAIN", "USE", "SUBSCRIBE", "CHECK"})
_RETURNING: Final = re.compile(r"\bRETURNING\b", re.IGNORECASE)
_KINDS: Final = ("TABLE", "NAMESPACE", "SCHEMA", "VIEW", "USER", "ROLE", "POLICY", "TOKEN")


FORMATS_KEPT: Final = 8


class Described(msgspec.Struct, frozen=True):
    """What is known of a statement before it runs: its parameters' OIDs, and its columns, None for no rows."""

    parameters: tuple[int, ...]
    columns: tuple[Column, ...] | None


class RowShape(msgspec.Struct, frozen=True):
    """How a row that is read by its key was written last: of these fields, asked for in these formats.

    ``writes`` is None where Arrow's kernels have to write it; ``described`` is its RowDescription message.
    """

    fields: pa.Schema
    formats: tuple[int, ...]
    columns: tuple[Column, ...]
    writes: tuple[Write, ...] | None
    described: bytes


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
        *,
        word: str | None = None,
    ) -> None:
        self.text, self.statement, self.command = text, statement, command
        self.declared = tuple(declared)
        self.question: CatalogueText | None = None
        self.described: Described | None = None
        self.standing: object = None
        """``Session.lasting`` when it was described."""
        self.row_shape: RowShape | None = None
        self.like: Prepared | None = None
        self.values: tuple[str | int, ...] = ()
        """The literal for a key in the text, where ``like`` is the query with a parameter in its place."""
        self.lent: Prepared | None = None
        """What is known of each query that differs from this one in a literal for the key."""
        self.told_whole: bytes | None = None
        """What the statement is described by."""
        self.told: dict[tuple[int, ...], bytes] = {}
        """What a portal of it is described by, for the formats that were asked for."""
        self.word = _first_word(statement) if word is None else word

    def tell(self, formats: tuple[int, ...], described: bytes) -> None:
        """Keep by what a portal was described, if that is known once and for all."""
        if self.command is None and self.described is not None and len(self.told) < FORMATS_KEPT:
            self.told[formats] = described

    def with_literal(self, text: str, value: str | int) -> Prepared:
        """The query with a literal in place of its one parameter, which its text ends in."""
        assert self.statement is not None
        literal = str(value) if isinstance(value, int) else "'" + value.replace("'", "''") + "'"
        statement = StatementText(self.statement.text.removesuffix("$1") + literal)
        found = Prepared(text, statement, None, word=self.word)
        found.like, found.values = self, (value,)
        if self.lent is not None:
            lent = self.lent
            found.standing, found.described = lent.standing, lent.described
            found.told, found.told_whole = lent.told, lent.told_whole
        return found

    def lend(self) -> None:
        """Have what is known of this query be known of all that differ from it in the literal for the key."""
        if self.like is not None and self.described is not None and self.like.row_shape is not None:
            self.like.lent = self

    def oids(self, count: int) -> Sequence[int] | None:
        """The types of so many parameters; None where the engine has to be asked."""
        if not count or (len(self.declared) >= count and all(self.declared)):
            return self.declared if count else ()
        return None if self.described is None else self.described.parameters

    @property
    def reads(self) -> bool:
        """Whether it is a query, whose rows are streamed."""
        return self.word in _READS

    @property
    def writes(self) -> bool:
        """Whether it changes something."""
        return self.command is None and self.question is None and self.word not in _HARMLESS

    @cached_property
    def inserts_rows(self) -> bool:
        """Whether it inserts a VALUES list and answers with nothing but the number of rows."""
        if self.statement is None or self.command is not None or self.word != "INSERT":
            return False
        return is_values_insert(self.statement.text) and not _RETURNING.search(self.statement.text)

    @cached_property
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


def _first_word(statement: StatementText | None) -> str:
    found = _FIRST.match(statement.text) if statement is not None else None
    return found[1].upper() if found else ""


class Portal:
    """A statement with its parameters, ready to run or under way."""

    def __init__(self, prepared: Prepared, parameters: Sequence[Any], formats: tuple[int, ...]) -> None:
        self.prepared, self.parameters, self.formats = prepared, parameters, formats
        self.answer: Answer | None = None
        self.done = False
        self.declared = self.held = False

    async def close(self) -> None:
        """It is not used any more."""
        self.done = True
        if self.answer is not None:
            await self.answer.close()
