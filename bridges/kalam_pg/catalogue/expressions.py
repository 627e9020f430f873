"""Expressions of catalogue queries in SQLite's words, with their types.

What SQLite has not is a function of ours, called ``k_…``. What neither has is refused: a node of sqlglot's that is not
listed here does not pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from sqlglot import exp

from kalam.errors import Unsupported
from kalam_pg.catalogue import calls, pg_types
from kalam_pg.catalogue.coded import UNKNOWN, Coded, Parameters, alike, as_texts, as_type, cast, quoted, text_of
from kalam_pg.catalogue.coding import Expr, Query
from kalam_pg.catalogue.comparisons import ROW, SIGNS, Comparisons
from kalam_pg.catalogue.scopes import Scope

_PATTERNS: Final[dict[type[Expr], tuple[str, str]]] = {
    exp.RegexpLike: ("k_matches", ""),
    exp.RegexpILike: ("k_matches", "i"),
}
_ARITHMETIC: Final[dict[type[Expr], str]] = {
    exp.Add: "+",
    exp.Sub: "-",
    exp.Mul: "*",
    exp.Div: "/",
    exp.Mod: "%",
    exp.IntDiv: "/",
}
_BITS: Final[dict[type[Expr], str]] = {
    exp.BitwiseAnd: "&",
    exp.BitwiseOr: "|",
    exp.BitwiseLeftShift: "<<",
    exp.BitwiseRightShift: ">>",
}
_JOINED: Final[dict[type[Expr], str]] = {exp.And: "AND", exp.Or: "OR"}
_OPERATORS: Final = {
    "=": exp.EQ,
    "<>": exp.NEQ,
    "!=": exp.NEQ,
    "<": exp.LT,
    "<=": exp.LTE,
    ">": exp.GT,
    ">=": exp.GTE,
    "~": exp.RegexpLike,
    "~*": exp.RegexpILike,
    "~~": exp.Like,
    "~~*": exp.ILike,
    "||": exp.DPipe,
    "+": exp.Add,
    "-": exp.Sub,
    "*": exp.Mul,
    "/": exp.Div,
    "&&": exp.ArrayOverlaps,
    "@>": exp.ArrayContainsAll,
}
_NAMED: Final[dict[type[Expr], str]] = {
    exp.CurrentUser: "current_user",
    exp.SessionUser: "session_user",
    exp.CurrentCatalog: "current_catalog",
    exp.CurrentSchema: "current_schema",
    exp.CurrentTimestamp: "now",
    exp.CurrentDate: "current_date",
}
_BARE: Final = frozenset({"current_role", "user", "current_user", "session_user", "current_catalog"})
_MOST_PRECISE: Final = ("float8", "float4", "numeric", "int8", "oid", "int4", "int2")


class Expressions:
    """Puts expressions into SQLite's words; the queries in them are put by ``query``."""

    def __init__(self, query: Callable[[Expr, Scope], Query], parameters: Parameters) -> None:
        self.query, self.parameters = query, parameters
        self.comparisons = Comparisons(self)
        self._kinds: dict[type, Callable[[Expr, Scope], Coded]] = {
            exp.Column: self._column,
            exp.Literal: self._literal,
            exp.ByteString: lambda node, scope: Coded(quoted(node.this), literal=node.this),
            exp.National: lambda node, scope: Coded(quoted(node.this), literal=node.this),
            exp.Boolean: lambda node, scope: Coded("1" if node.this else "0", "bool"),
            exp.Null: lambda node, scope: Coded("NULL"),
            exp.Parameter: lambda node, scope: self.parameters.coded(int(node.this.name)),
            exp.Paren: self._paren,
            exp.Neg: self._negative,
            exp.Not: lambda node, scope: Coded(f"(NOT {self.truth(node.this, scope)})", "bool"),
            exp.Cast: self._cast,
            exp.Collate: lambda node, scope: self.code(node.this, scope),
            exp.AtTimeZone: lambda node, scope: self.code(node.this, scope),
            exp.Case: self._case,
            exp.In: self.comparisons.member,
            exp.Between: self.comparisons.between,
            exp.Is: self.comparisons.identity,
            exp.Exists: lambda node, scope: Coded(f"EXISTS ({self.query(node.this, scope).sql})", "bool"),
            exp.Like: self.comparisons.like,
            exp.ILike: self.comparisons.like,
            exp.Escape: self.comparisons.escaped,
            exp.SimilarTo: lambda node, scope: self.comparisons.matched("k_similar", "", node, scope),
            exp.DPipe: self._concatenated,
            exp.Concat: self._texts,
            exp.Subquery: self._scalar,
            exp.Array: self._array,
            exp.Bracket: self._bracket,
            exp.Dot: self._dot,
            exp.Tuple: self._tuple,
            exp.Operator: self._operator,
            exp.ArrayOverlaps: lambda node, scope: self._arrays("k_overlap", node, scope),
            exp.ArrayContainsAll: lambda node, scope: self._arrays("k_contains", node, scope),
            exp.ArrayContainedBy: lambda node, scope: self._arrays("k_contained", node, scope),
            exp.JSONExtractScalar: self._member,
            exp.JSONExtract: self._member,
            exp.Filter: self._filtered,
            exp.Window: self._windowed,
            exp.Interval: lambda node, scope: Coded(quoted(f"{node.this.name} {node.args['unit']}"), "interval"),
            exp.Anonymous: lambda node, scope: calls.call(self, node.name, node.expressions, scope),
            exp.Substring: lambda node, scope: self._called("substring", [node.this, "start", "length"], node, scope),
            exp.StrPosition: lambda node, scope: self._called("strpos", [node.this, "substr"], node, scope),
            exp.Trim: self._trim,
            exp.Extract: lambda node, scope: Coded(
                f"k_extract({quoted(node.name.lower())}, {self.code(node.expression, scope).sql})", "numeric"
            ),
        }
        for kind in _NAMED:
            self._kinds[kind] = lambda node, scope: calls.call(self, _NAMED[type(node)], [], scope)
        for kind in SIGNS:
            self._kinds[kind] = self.comparisons.compared
        for kind in _PATTERNS:
            self._kinds[kind] = lambda node, scope: self.comparisons.matched(*_PATTERNS[type(node)], node, scope)
        for kind in (*_ARITHMETIC, *_BITS):
            self._kinds[kind] = self._arithmetic
        for kind in _JOINED:
            self._kinds[kind] = self._joined

    def code(self, node: Expr, scope: Scope) -> Coded:
        """An expression; raises Unsupported for what is not offered."""
        coder = self._kinds.get(type(node))
        if coder is None:
            raise Unsupported(f"{type(node).key.upper()} is not offered in catalogue queries")
        return coder(node, scope)

    def settled(self, node: Expr, scope: Scope) -> Coded:
        """An expression of which the type is known: a text where nothing says otherwise."""
        coded = self.code(node, scope)
        return as_type(coded, "text", self.parameters) if coded.parameter is not None else coded

    def truth(self, node: Expr, scope: Scope) -> str:
        """A condition."""
        return as_type(self.code(node, scope), "bool", self.parameters).sql

    def _column(self, node: Expr, scope: Scope) -> Coded:
        if isinstance(node.this, exp.Star):
            raise Unsupported("a whole row is no value in catalogue queries")
        wanted, alias, schema = (identifier(node.args.get(part)) for part in ("this", "table", "db"))
        assert wanted is not None
        if alias is None and wanted in _BARE and scope.looked_up(wanted, None, None) is None:
            return calls.call(self, wanted, [], scope)
        return scope.column(wanted, alias, schema)

    def _literal(self, node: Expr, scope: Scope) -> Coded:
        if node.is_string:
            return Coded(quoted(node.this), literal=node.this)
        text = node.this
        if text.isdigit():
            return Coded(text, "int4" if int(text) < 1 << 31 else "int8")
        return Coded(text, "numeric")

    def _paren(self, node: Expr, scope: Scope) -> Coded:
        inner = self.code(node.this, scope)
        return inner if inner.type == UNKNOWN else with_sql(inner, f"({inner.sql})")

    def _negative(self, node: Expr, scope: Scope) -> Coded:
        coded = as_type(self.code(node.this, scope), "int4", self.parameters)
        return Coded(f"(-{coded.sql})", coded.type)

    def _cast(self, node: Expr, scope: Scope) -> Coded:
        written = node.args["to"].sql("postgres")
        known = pg_types.parsed(written)
        if known is None:
            raise Unsupported(f"type {written.lower()[:64]} is not known in catalogue queries")
        return cast(self.code(node.this, scope), *known, self.parameters)

    def _case(self, node: Expr, scope: Scope) -> Coded:
        subject = self.settled(node.this, scope) if node.this is not None else None
        values = [self.code(branch.args["true"], scope) for branch in node.args["ifs"]]
        default = node.args.get("default")
        values.append(self.code(default, scope) if default is not None else Coded("NULL"))
        values, kind = self.of_one_type(values)
        parts = ["CASE"]
        for branch, value in zip(node.args["ifs"], values, strict=False):
            if subject is None:
                condition = self.truth(branch.this, scope)
            else:
                left, right = alike(subject, self.code(branch.this, scope), self.parameters)
                condition = f"{left.sql} = {right.sql}"
            parts.append(f"WHEN {condition} THEN {value.sql}")
        return Coded(f"({' '.join(parts)} ELSE {values[-1].sql} END)", kind)

    def of_one_type(self, values: Sequence[Coded]) -> tuple[list[Coded], str]:
        """Values of which one is to be the result, and the type that all have then."""
        known = [value.type for value in values if value.type != UNKNOWN]
        kind = known[0] if known else "text"
        if len(set(known)) > 1:
            kind = next((each for each in _MOST_PRECISE if each in known), kind)
            if "text" in known or any(each in pg_types.TEXTS for each in known):
                kind = "text"
        return [cast(value, kind, -1, self.parameters) if value.sql != "NULL" else value for value in values], kind

    def _arithmetic(self, node: Expr, scope: Scope) -> Coded:
        left, right = alike(self.code(node.this, scope), self.code(node.expression, scope), self.parameters)
        kinds = (left.type, right.type)
        kind = next((each for each in _MOST_PRECISE if each in kinds), left.type)
        sign = _ARITHMETIC.get(type(node)) or _BITS[type(node)]
        return Coded(f"({left.sql} {sign} {right.sql})", kind)

    def _joined(self, node: Expr, scope: Scope) -> Coded:
        parts, sign = [], _JOINED[type(node)]
        left: Expr = node
        while type(left) is type(node):  # a long chain is a deep tree
            parts.append(self.truth(left.expression, scope))
            left = left.this
        parts.append(self.truth(left, scope))
        return Coded("(" + f" {sign} ".join(reversed(parts)) + ")", "bool")

    def _concatenated(self, node: Expr, scope: Scope) -> Coded:
        left, right = self.code(node.this, scope), self.code(node.expression, scope)
        array = next((side.type for side in (left, right) if side.type.startswith(pg_types.ARRAY)), None)
        if array is not None:
            left, right = (
                as_type(side, array, self.parameters) if side.parameter is None else side for side in (left, right)
            )
            sides = [
                side.sql if side.type.startswith(pg_types.ARRAY) else f"json_array({side.sql})"
                for side in (left, right)
            ]
            return Coded(f"k_array_cat({', '.join(sides)})", array)
        left, right = as_texts(left, right, self.parameters)
        return Coded(f"({text_of(left)} || {text_of(right)})", "text")

    def _texts(self, node: Expr, scope: Scope) -> Coded:
        """Literals that stand side by side are one."""
        text = "".join(part.name for part in node.expressions)
        return Coded(quoted(text), literal=text)

    def _scalar(self, node: Expr, scope: Scope) -> Coded:
        inner = self.query(node.this, scope)
        first = inner.outputs[0]
        return Coded(f"({inner.sql})", first.type, first.typmod, record=first.record)

    def _array(self, node: Expr, scope: Scope) -> Coded:
        values, kind = self.of_one_type([self.code(each, scope) for each in node.expressions])
        return Coded(f"json_array({', '.join(value.sql for value in values)})", pg_types.array_of(kind))

    def _bracket(self, node: Expr, scope: Scope) -> Coded:
        array = self.code(node.this, scope)
        place = node.expressions[0]
        first = 0 if array.type in pg_types.VECTORS else 1
        if isinstance(place, exp.Slice):
            low, high = (
                self.code(end, scope).sql if end is not None else "NULL" for end in (place.this, place.expression)
            )
            return Coded(f"k_slice({array.sql}, {low}, {high}, {first})", array.type)
        return Coded(f"k_element({array.sql}, {self.code(place, scope).sql}, {first})", pg_types.element(array.type))

    def _dot(self, node: Expr, scope: Scope) -> Coded:
        if isinstance(node.this, exp.Identifier):  # schema.function(…)
            if not isinstance(node.expression, exp.Anonymous):
                raise Unsupported("a name of three parts and more is not offered in catalogue queries")
            return self.code(node.expression, scope)
        whole, member = self.code(node.this, scope), identifier(node.expression)
        kind = dict(whole.record).get(member or "")
        if kind is None:
            raise Unsupported(f"this value has no member {member!r}")
        return Coded(f"json_extract({whole.sql}, '$.{member}')", kind)

    def _tuple(self, node: Expr, scope: Scope) -> Coded:
        return Coded(f"({', '.join(self.settled(each, scope).sql for each in node.expressions)})", ROW)

    def _operator(self, node: Expr, scope: Scope) -> Coded:
        sign = node.args["operator"].rpartition(".")[2].strip()
        negated = sign.startswith("!") and sign not in _OPERATORS
        kind = _OPERATORS.get(sign[1:] if negated else sign)
        if kind is None:
            raise Unsupported(f"operator {sign[:16]} is not offered in catalogue queries")
        coded = self.code(kind(this=node.this, expression=node.expression), scope)
        return Coded(f"(NOT {coded.sql})", "bool") if negated else coded

    def _arrays(self, function: str, node: Expr, scope: Scope) -> Coded:
        left, right = alike(self.code(node.this, scope), self.code(node.expression, scope), self.parameters)
        return Coded(f"{function}({left.sql}, {right.sql})", "bool")

    def _member(self, node: Expr, scope: Scope) -> Coded:
        path = [part.name for part in node.expression.find_all(exp.JSONPathKey)]
        kind = "text" if isinstance(node, exp.JSONExtractScalar) else "json"
        return Coded(f"json_extract({self.code(node.this, scope).sql}, {quoted('$.' + '.'.join(path))})", kind)

    def _filtered(self, node: Expr, scope: Scope) -> Coded:
        coded = self.code(node.this, scope)
        return with_sql(coded, f"{coded.sql} FILTER (WHERE {self.truth(node.expression.this, scope)})")

    def _windowed(self, node: Expr, scope: Scope) -> Coded:
        coded = self.code(node.this, scope)
        parts = []
        if node.args.get("partition_by"):
            listed = ", ".join(self.settled(each, scope).sql for each in node.args["partition_by"])
            parts.append(f"PARTITION BY {listed}")
        if node.args.get("order") is not None:
            parts.append("ORDER BY " + ", ".join(self.ordered(node.args["order"].expressions, scope)))
        if node.args.get("spec") is not None:
            raise Unsupported("a frame of a window is not offered in catalogue queries")
        return with_sql(coded, f"{coded.sql} OVER ({' '.join(parts)})")

    def ordered(self, terms: Sequence[Expr], scope: Scope) -> list[str]:
        """Terms of an ORDER BY within an expression."""
        return [f"{self.settled(term.this, scope).sql} {direction(term)}" for term in terms]

    def _called(self, function: str, arguments: list[Expr | str], node: Expr, scope: Scope) -> Coded:
        nodes = [node.args.get(each) if isinstance(each, str) else each for each in arguments]
        return calls.call(self, function, [each for each in nodes if each is not None], scope)

    def _trim(self, node: Expr, scope: Scope) -> Coded:
        function = {"LEADING": "ltrim", "TRAILING": "rtrim"}.get((node.args.get("position") or "").upper(), "btrim")
        arguments = [node.this, node.expression] if node.args.get("expression") is not None else [node.this]
        return calls.call(self, function, arguments, scope)


def identifier(node: Expr | None) -> str | None:
    """A name as PostgreSQL understands it: in small letters unless it is quoted."""
    if node is None:
        return None
    return node.name if node.args.get("quoted") else node.name.lower()


def direction(term: Expr) -> str:
    """How a term is ordered; PostgreSQL has NULL last, and first where it goes down."""
    nulls = "FIRST" if term.args.get("nulls_first") else "LAST"
    return f"{'DESC' if term.args.get('desc') else 'ASC'} NULLS {nulls}"


def with_sql(coded: Coded, sql: str) -> Coded:
    """The same value by other words."""
    return Coded(sql, coded.type, coded.typmod, record=coded.record)
