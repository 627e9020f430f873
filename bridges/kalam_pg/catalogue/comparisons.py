"""Comparisons in SQLite's words: operators, patterns, IN, BETWEEN, and ANY and ALL of arrays and queries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sqlglot import exp

from kalam.errors import SyntaxFault, Unsupported
from kalam_pg.catalogue import pg_types
from kalam_pg.catalogue.coded import Coded, alike, as_texts, as_type, quoted, text_of
from kalam_pg.catalogue.coding import Coding, Expr
from kalam_pg.catalogue.scopes import Scope

SIGNS: Final[dict[type[Expr], str]] = {
    exp.EQ: "=",
    exp.NEQ: "<>",
    exp.LT: "<",
    exp.LTE: "<=",
    exp.GT: ">",
    exp.GTE: ">=",
    exp.NullSafeEQ: "IS",
    exp.NullSafeNEQ: "IS NOT",
}
ANY: Final = "k_any"
ROW: Final = "row"
"""The type of several values in brackets."""


class Comparisons:
    """Puts comparisons into words; what is compared is put by ``of``."""

    def __init__(self, of: Coding) -> None:
        self._of = of

    def member(self, node: Expr, scope: Scope) -> Coded:
        """``IN`` of a list or a query."""
        left = self._of.code(node.this, scope)
        query = node.args.get("query")
        if query is not None:
            inner = self._of.query(query.this if isinstance(query, exp.Subquery) else query, scope)
            left = as_type(left, inner.outputs[0].type, self._of.parameters)
            return Coded(f"({left.sql} IN ({inner.sql}))", "bool")
        if not node.expressions:
            raise SyntaxFault("IN has at least one value")
        if left.type == ROW:
            listed = ", ".join(self._of.code(each, scope).sql for each in node.expressions)
            return Coded(f"({left.sql} IN (VALUES {listed}))", "bool")
        pairs = [alike(left, self._of.code(each, scope), self._of.parameters) for each in node.expressions]
        return Coded(f"({pairs[0][0].sql} IN ({', '.join(right.sql for _, right in pairs)}))", "bool")

    def between(self, node: Expr, scope: Scope) -> Coded:
        """``BETWEEN``."""
        subject = self._of.settled(node.this, scope)
        low, high = (
            alike(subject, self._of.code(node.args[end], scope), self._of.parameters)[1] for end in ("low", "high")
        )
        return Coded(f"({subject.sql} BETWEEN {low.sql} AND {high.sql})", "bool")

    def identity(self, node: Expr, scope: Scope) -> Coded:
        """``IS`` and ``IS NOT``."""
        left, right = alike(self._of.code(node.this, scope), self._of.code(node.expression, scope), self._of.parameters)
        return Coded(f"({left.sql} IS {'NOT ' if node.args.get('negate') else ''}{right.sql})", "bool")

    def compared(self, node: Expr, scope: Scope) -> Coded:
        """``=``, ``<`` and the like."""
        return self._pair(node, scope, lambda left, right: f"{left.sql} {SIGNS[type(node)]} {right.sql}", True)

    def matched(self, function: str, flags: str, node: Expr, scope: Scope) -> Coded:
        """A pattern, by a function of ours."""
        return self._pair(
            node, scope, lambda left, right: f"{function}({text_of(left)}, {text_of(right)}, {quoted(flags)})", False
        )

    def _pair(self, node: Expr, scope: Scope, test: Callable[[Coded, Coded], str], compared: bool) -> Coded:
        """A comparison, also with ANY and ALL of an array or a query."""
        left, other = self._of.code(node.this, scope), node.expression
        quantifier = quantified(other)
        if quantifier is None:
            right = self._of.code(other, scope)
            left, right = (
                alike(left, right, self._of.parameters) if compared else as_texts(left, right, self._of.parameters)
            )
            return Coded(f"({test(left, right)})", "bool")
        every, inner = quantifier
        while isinstance(inner, exp.Paren):
            inner = inner.this
        if isinstance(inner, exp.Query):
            query = self._of.query(inner.this if isinstance(inner, exp.Subquery) else inner, scope)
            source, member = f"({query.sql}) AS {ANY}", Coded(f"{ANY}.c0", query.outputs[0].type)
        else:
            array = as_type(self._of.code(inner, scope), pg_types.array_of(left.type), self._of.parameters)
            source, member = f"json_each({array.sql}) AS {ANY}", Coded(f"{ANY}.value", pg_types.element(array.type))
        left, member = alike(left, member, self._of.parameters)
        condition = test(left, member)
        if every:
            return Coded(f"(NOT EXISTS (SELECT 1 FROM {source} WHERE NOT ({condition})))", "bool")
        if isinstance(node, exp.EQ):
            return Coded(f"({left.sql} IN (SELECT {member.sql} FROM {source}))", "bool")
        return Coded(f"(EXISTS (SELECT 1 FROM {source} WHERE {condition}))", "bool")

    def like(self, node: Expr, scope: Scope, escape: str = "\\") -> Coded:
        """``LIKE`` and ``ILIKE``; without ESCAPE a backslash is it."""

        def test(left: Coded, right: Coded) -> str:
            sides = [text_of(left), text_of(right)]
            if isinstance(node, exp.ILike):
                sides = [f"lower({side})" for side in sides]
            return f"{sides[0]} LIKE {sides[1]}" + (f" ESCAPE {quoted(escape)}" if escape else "")

        found = self._pair(node, scope, test, False)
        return Coded(f"(NOT {found.sql})", "bool") if node.args.get("negate") else found

    def escaped(self, node: Expr, scope: Scope) -> Coded:
        """The same with ESCAPE."""
        if not isinstance(node.this, (exp.Like, exp.ILike)) or not node.expression.is_string:
            raise Unsupported("ESCAPE is offered behind LIKE and ILIKE, with a literal")
        return self.like(node.this, scope, node.expression.this[:1])


def quantified(node: Expr) -> tuple[bool, Expr] | None:
    """Of ANY, SOME and ALL whether all are meant, and of what."""
    if isinstance(node, exp.Any):
        return False, node.this
    if isinstance(node, exp.All):
        return True, node.this
    if isinstance(node, exp.Anonymous) and node.name.lower() in ("some", "all") and node.expressions:
        return node.name.lower() == "all", node.expressions[0]
    return None
