"""What the parts of the compiler ask of one another: a query or an expression in, SQLite's words with types out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec
from sqlglot import exp

from kalam_pg.catalogue.coded import Coded, Parameters
from kalam_pg.catalogue.scopes import Output, Scope

Expr = exp.Expr


class Query(msgspec.Struct, frozen=True):
    """A query in SQLite's words, and the columns that it gives."""

    sql: str
    outputs: tuple[Output, ...]


class Coding(Protocol):
    """Whoever puts expressions, and the queries in them, into words."""

    @property
    def parameters(self) -> Parameters:
        """The statement's."""
        ...

    def query(self, node: Expr, scope: Scope) -> Query:
        """A query, in a scope around it."""
        ...

    def code(self, node: Expr, scope: Scope) -> Coded:
        """An expression; raises Unsupported for what is not offered."""
        ...

    def settled(self, node: Expr, scope: Scope) -> Coded:
        """An expression of which the type is known: a text where nothing says otherwise."""
        ...

    def truth(self, node: Expr, scope: Scope) -> str:
        """A condition."""
        ...

    def of_one_type(self, values: Sequence[Coded]) -> tuple[list[Coded], str]:
        """Values of which one is to be the result, and the type that all have then."""
        ...
