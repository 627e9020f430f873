"""Names of the columns of a select list.

Two columns may have one name in SQL, which DataFusion refuses: there each expression without a name, or with one that
another has too, gets one of its own for DataFusion, and the result gets back the names that it would have had. And
DataFusion calls an expression by its plan (``avg(lab.readings.celsius)``, ``Int64(1)``), where people who read a result
expect PostgreSQL's names. The texts of the expressions are cut at token positions, as everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
from msgspec.structs import replace
from sqlglot import exp

from kalam.rows.column_types import TYPES
from kalam.schema import TypeName
from kalam.sql.text.dialect import parse_query
from kalam.sql.text.edits import Edits
from kalam.sql.text.lexer import Kind, StatementText, Token, read_token, read_tokens
from kalam.sql.text.statements import QueryText

PLAN_COLUMNS = ("plan_type", "plan")
"""What an EXPLAIN answers with, whatever it explains."""
_CLAUSES = "FROM WHERE GROUP HAVING WINDOW QUALIFY ORDER LIMIT OFFSET FETCH UNION INTERSECT EXCEPT FOR"
_BEHIND_LIST = frozenset(_CLAUSES.split())
_BEFORE_RELATION = frozenset({"FROM", "JOIN", "LATERAL", "AS", "MATERIALIZED"})


def with_distinct_names(query: QueryText) -> tuple[QueryText, list[str]] | None:
    """The query with a name for each column, and the names that its result is to have; None where that is no help."""
    statement = StatementText(query.text)
    begin = _behind_explain(statement)
    tree = parse_query(statement, begin, len(query.text))
    if not isinstance(tree, exp.Select) or any(node.is_star for node in tree.expressions):
        return None
    places = list(list_places(statement))
    if len(places) != len(tree.expressions):
        return None
    names = (
        list(PLAN_COLUMNS)
        if begin
        else [_name(node, query.text[start:end]) for node, (start, end) in zip(tree.expressions, places, strict=True)]
    )
    named = [_said_name(node) for node in tree.expressions]
    twice = {name for name in named if name and named.count(name) > 1}
    given = {_said_name(node) for node in tree.expressions if isinstance(node, exp.Alias)} & twice
    if given & _ordered_by(tree):
        return None  # which of them is meant is not told
    edits = Edits(query.text)
    for number, (node, (start, end)) in enumerate(zip(tree.expressions, places, strict=True)):
        if not isinstance(node, exp.Alias):
            edits.enclose((start, end), behind=f' AS "_column_{number}"')
        elif _said_name(node) in given:
            *_, name, _ = read_tokens(StatementText(query.text[start:end]))
            edits.replace((start + name.start, end), f'"_column_{number}"')
    return replace(edits.applied(query), plain=False, point=None), names


def _said_name(node: exp.Expr) -> str | None:
    """The alias of an expression, or the name of a column."""
    return _name(node, "") if isinstance(node, (exp.Alias, exp.Column)) else None


def _ordered_by(select: exp.Select) -> set[str | None]:
    """The names by which rows are put in order, which may be those of the select list."""
    order, distinct = select.args.get("order"), select.args.get("distinct")
    by = [ordered.this for ordered in order.expressions] if order else []
    if distinct and distinct.args.get("on"):
        by += distinct.args["on"].expressions
    return {_said_name(node) for node in by if isinstance(node, exp.Column) and not node.table}


UNNAMED = "?column?"
"""PostgreSQL's name of a column that has none."""
_TYPE_NAMES: dict[str, str] = {
    "VARBINARY" if name is TypeName.BLOB else name.value: kind.postgresql.name
    for name, kind in TYPES.items()
    if name is not TypeName.TIMESTAMP  # which as the type of a CAST has no zone
}
"""PostgreSQL's own names of types, by the names that sqlglot has for them."""
_BEHIND_CALL = frozenset({"OVER", "FILTER", "WITHIN", "IGNORE", "RESPECT"})


def postgresql_names(text: str, names: Sequence[str]) -> list[str]:
    """The names that PostgreSQL would give the columns of a query's result, which has ``names`` from DataFusion.

    A call is named as its function, a cast as what it casts or else as its type, what has no name is ``?column?``
    (PostgreSQL's FigureColname). As there, two columns may have one name.
    """
    statement = StatementText(text)
    found = list(names)
    if _behind_explain(statement):
        return found
    tree: exp.Expr | None = parse_query(statement, 0, len(text))
    while isinstance(tree, (exp.Subquery, exp.SetOperation)):
        tree = tree.this
    if not isinstance(tree, exp.Select):
        return found
    places = list(list_places(statement))
    stars = [number for number, node in enumerate(tree.expressions) if node.is_star]
    if len(places) != len(tree.expressions) or len(stars) > 1:
        return found
    for number, (node, (start, end)) in enumerate(zip(tree.expressions, places, strict=True)):
        place = number - len(places) if stars and number > stars[0] else number
        name = name_of(node, text[start:end])
        if name is not None and -len(found) <= place < len(found):
            found[place] = name
    return found


def _behind_explain(statement: StatementText) -> int:
    """Where the query begins that an EXPLAIN explains; 0 where the text is no EXPLAIN."""
    first = read_token(statement, 0)
    if first.word != "EXPLAIN":
        return 0
    second = read_token(statement, first.end)
    return second.end if second.word == "ANALYZE" else first.end


def name_of(node: exp.Expr, text: str) -> str | None:
    """PostgreSQL's name for an expression; None for one that has its name from elsewhere."""
    match node:
        case exp.Alias() | exp.Column() | exp.Star() | exp.Paren(this=exp.Column()):
            return None
        case exp.Cast():
            inner = node.this
            if isinstance(inner, exp.Column):
                return _folded(inner.this)
            if not isinstance(node.to.this, exp.DataType.Type):
                return UNNAMED
            return _TYPE_NAMES.get(node.to.this.name, node.to.this.name.lower())
        case exp.Case():
            return "case"
        case exp.Exists():
            return "exists"
        case exp.Subquery(this=exp.Select() as inner) if len(inner.expressions) == 1:
            [only] = inner.expressions
            return str(only.alias_or_name) or UNNAMED
    return _called(text)


def _called(text: str) -> str:
    """The function's name where a text is one call, with a window or a filter or without."""
    statement = StatementText(text)
    name = read_token(statement, 0)
    behind = list(_outer_tokens(StatementText(text[name.end :])))
    if name.kind is not Kind.WORD:
        return UNNAMED
    if behind[0].kind is Kind.END:  # CURRENT_DATE
        return name.text.lower()
    called = [token.text for token in behind[:2]] == ["(", ")"]
    whole = called and (behind[2].kind is Kind.END or behind[2].word in _BEHIND_CALL)
    return name.text.lower() if whole else UNNAMED


def names_of(text: str) -> list[str] | None:
    """The names that a query's columns have by themselves; None where that is not told by its text."""
    statement = StatementText(text)
    tree = parse_query(statement, 0, len(text))
    places = list(list_places(statement))
    if not isinstance(tree, exp.Select) or any(node.is_star for node in tree.expressions):
        return None
    if len(places) != len(tree.expressions):
        return None
    return [_name(node, text[start:end]) for node, (start, end) in zip(tree.expressions, places, strict=True)]


def _name(node: exp.Expr, text: str) -> str:
    """The name that a column has by itself: an alias, a column's name also behind a CAST, or else its text."""
    if isinstance(node, exp.Alias):
        return _folded(node.args["alias"])
    inner = node
    while isinstance(inner, (exp.Cast, exp.Paren)):
        inner = inner.this
    return _folded(inner.this) if isinstance(inner, exp.Column) else " ".join(text.split())


def _folded(name: exp.Expr) -> str:
    return str(name.name) if name.args.get("quoted") else str(name.name).lower()


class SelectList(msgspec.Struct):
    """Where a SELECT stands, from behind the bracket before it, and the expressions of its list.

    ``is_relation`` says whether it is one in FROM or WITH, and not the outermost one or a value.
    """

    start: int = 0
    end: int = 0
    is_relation: bool = False
    places: list[tuple[int, int]] = []
    listing: bool | None = None
    first: Token | None = None
    last: Token | None = None

    def take(self, token: Token) -> None:
        """Take a token that stands here and not in brackets of its own; brackets are taken as two tokens."""
        if not self.listing:
            if self.listing is None and token.word == "SELECT":
                self.listing = True
            return
        if self.first is None and token.word in ("ALL", "DISTINCT"):
            return
        distinct_from = token.word == "FROM" and self.last is not None and self.last.word == "DISTINCT"
        ends = token.kind is Kind.END or (token.word in _BEHIND_LIST and not distinct_from)
        if ends or token.text == ",":
            self.close()
            self.listing = not ends
            return
        self.first, self.last = self.first or token, token

    def close(self) -> None:
        """The end of an expression."""
        if self.first is not None and self.last is not None:
            self.places.append((self.first.start, self.last.end))
        self.first = self.last = None


def select_lists(statement: StatementText) -> Iterator[SelectList]:
    """The lists of all SELECTs in a text, those within others first, the outermost one last; in one pass."""
    opened = [SelectList()]
    before: Token | None = None
    for token in read_tokens(statement):
        is_symbol = token.kind is Kind.SYMBOL
        if is_symbol and token.text in ")]" and len(opened) > 1:
            inner = opened.pop()
            inner.close()
            inner.end = token.start
            if inner.listing is not None:
                yield inner
        opened[-1].take(token)
        if is_symbol and token.text in "([":
            said = "" if before is None else before.word or before.text
            is_relation = said in _BEFORE_RELATION or (said == "," and opened[-1].listing is False)
            opened.append(SelectList(start=token.end, is_relation=is_relation))
        before = token
    outermost = opened[0]
    outermost.end = token.start
    yield outermost


def list_places(statement: StatementText) -> Iterator[tuple[int, int]]:
    """Where the expressions of the outermost select list stand, from the first character to behind the last."""
    *_, outermost = select_lists(statement)
    yield from outermost.places


def _outer_tokens(statement: StatementText) -> Iterator[Token]:
    """The tokens outside of brackets, of which a closing one stands for its pair, and the end."""
    depth = 0
    for token in read_tokens(statement):
        depth -= token.kind is Kind.SYMBOL and token.text in ")]"
        if depth <= 0 or token.kind is Kind.END:
            yield token
        depth += token.kind is Kind.SYMBOL and token.text in "(["
