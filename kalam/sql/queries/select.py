"""Queries and expressions: the user's own text, and what has to be known of it.

A text that goes to DataFusion is cut out at token positions and never written again by us. sqlglot's tree of it is read
for its mentions of tables and columns and thrown away.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import takewhile

import msgspec
from msgspec.structs import replace
from sqlglot import exp

from kalam.errors import Unsupported
from kalam.schema import BUCKET_COLUMNS, STREAM_KEY
from kalam.sql.queries.points import constant_of, equalities_of, is_literals, point_of
from kalam.sql.text.cursor import Cursor
from kalam.sql.text.dialect import parse_expression, parse_query
from kalam.sql.text.edits import Edits
from kalam.sql.text.lexer import Kind, StatementText, fold, read_token, read_tokens
from kalam.sql.text.limits import TOO_DEEP
from kalam.sql.text.mentions import Sources, is_deleted_column, name_of, table_uses
from kalam.sql.text.statements import QueryText, Select

# DataFusion plans a chain of operators, joins or sub-queries by recursion, and one too long ends the process: a UNION
# of 4,000 was seen to. The bounds leave room for the smaller stacks of its threads.
_DEPTH_MAX = 500
_RELATIONS_MAX = 500

# What a select list is read behind.
_LEAD = "SELECT "
_LEAD_FROM = "SELECT 1 FROM "

_VIRTUAL = BUCKET_COLUMNS.keys() - {STREAM_KEY}
_CHANGES = (exp.DML, exp.DDL, exp.Command, exp.Drop, exp.Describe)
_RELATIONS = (exp.Table, exp.Select, exp.Join, exp.CTE, exp.Lateral, exp.Unnest)
_REORDERING = (exp.Join, exp.Group, exp.Order, exp.Distinct, exp.SetOperation)
_PLAIN_PARTS = frozenset({"expressions", "from_", "where", "limit", "offset"})
# DataFusion's aggregates that sqlglot does not know as such.
_AGGREGATE_NAMES = """
    approx_median approx_percentile_cont approx_percentile_cont_with_weight covar grouping mean nth_value
    quantile_cont regr_avgx regr_avgy regr_count regr_intercept regr_r2 regr_slope regr_sxx regr_sxy regr_syy var
    var_population var_sample
"""
_OF_TEXTS = (exp.DataType.Type.UUID, exp.DataType.Type.JSON, exp.DataType.Type.JSONB)
_OF_FILES = frozenset({"input_file_name", "file_row_index"})
_AGGREGATES = frozenset(_AGGREGATE_NAMES.split())


class _Survey(msgspec.Struct):
    """What one walk over a tree finds."""

    sources: Sources = msgspec.field(default_factory=Sources)
    selects: int = 0
    relations: int = 0
    names_key: bool = False
    virtual: set[str] = msgspec.field(default_factory=set)
    aggregates: bool = False
    refused: str | None = None


def select(cursor: Cursor) -> Select:
    """Read a query, or an EXPLAIN of one, up to the end of the statement."""
    start = cursor.token.start
    explained = cursor.take("EXPLAIN")
    if explained:
        _expect_explained_query(cursor)
    inner = cursor.token.start
    query = read_query(cursor)
    if not explained:
        return Select(query)
    text, tables = (
        cursor.statement.text[start:inner] + query.text,
        tuple(use.moved(inner - start) for use in query.tables),
    )
    return Select(replace(query, text=text, tables=tables, plain=False, point=None, casts=()))


def _expect_explained_query(cursor: Cursor) -> None:
    cursor.take("ANALYZE")
    if not (cursor.token.word in {"SELECT", "WITH", "VALUES"} or cursor.at_symbol("(")):
        raise cursor.refusal(f"EXPLAIN [ANALYZE] is for queries only, and {cursor.found()} begins none")


def read_query(cursor: Cursor, *, before_conflict: bool = False) -> QueryText:
    """Read a query up to the end of the statement, or, in an INSERT, up to its ON CONFLICT or RETURNING."""
    start, end = cursor.skip(_ends_insert_query if before_conflict else _never)
    if not before_conflict:
        cursor.expect_end()
    tree = parse_query(cursor.statement, start, end)
    root = tree.unnest() if isinstance(tree, exp.Subquery) else tree
    if isinstance(tree, _CHANGES):
        raise cursor.refusal("a WITH can only be followed by a query", at=read_token(cursor.statement, start))
    if not isinstance(root, (exp.Query, exp.Values)):
        raise cursor.statement.fault("expected a query", start)
    return _query_text(cursor.statement, start, end, tree)


def read_expression(cursor: Cursor, *stops: str) -> QueryText:
    """Read one expression, up to a comma, a closing bracket, one of the ``stops`` words or the end of the statement."""
    _, text = _read_expression(cursor, stops)
    return text


def read_condition(cursor: Cursor, *stops: str) -> QueryText:
    """Read an expression of one row: without sub-query, aggregate or window."""
    token = cursor.token
    tree, text = _read_expression(cursor, stops)
    if any(isinstance(node, (exp.Query, exp.Values, exp.Exists)) for node in tree.walk()):
        raise cursor.refusal("the WHERE of a live query cannot hold a sub-query", at=token)
    if any(isinstance(node, exp.Window) or is_aggregate(node) for node in tree.walk()):
        raise cursor.refusal("the WHERE of a live query cannot hold an aggregate or window function", at=token)
    return text


def read_select_list(cursor: Cursor) -> QueryText:
    """Read the select list of a RETURNING, up to the end of the statement."""
    start, end = cursor.skip(_never)
    cursor.expect_end()
    if start == end:
        raise cursor.unexpected("a select list")
    return _led(
        cursor.statement, start, end, _LEAD, {"expressions"}, "RETURNING takes a list of columns and expressions"
    )


def read_sources(cursor: Cursor, *stops: str) -> QueryText:
    """Read what a FROM or USING lists, up to one of the ``stops`` words or the end of the statement."""
    start, end = cursor.skip(lambda here: here.token.word in stops)
    if start == end:
        raise cursor.unexpected("a table")
    parts = {"expressions", "from_", "joins", "laterals"}
    return _led(cursor.statement, start, end, _LEAD_FROM, parts, "FROM and USING take tables and queries")


def _led(statement: StatementText, start: int, end: int, lead: str, parts: Collection[str], rule: str) -> QueryText:
    """A piece of a SELECT that has these parts, and nothing behind them, read behind what leads to it."""
    line, column = statement.place(start)
    led = StatementText(lead + statement.text[start:end], line=line, column=column - len(lead))
    tree = parse_query(led, 0, len(led.text))
    if not isinstance(tree, exp.Select) or any(value for part, value in tree.args.items() if part not in parts):
        raise statement.fault(f"{rule}, and nothing behind it", start)
    query = _query_text(led, 0, len(led.text), tree)
    tables = tuple(use.moved(-len(lead)) for use in query.tables)
    return QueryText(statement.text[start:end], tables, query.parameters, query.names_key, virtual=query.virtual)


def _read_expression(cursor: Cursor, stops: tuple[str, ...]) -> tuple[exp.Expr, QueryText]:
    start, end = cursor.skip(lambda here: _ends_expression(here, stops))
    if start == end:
        raise cursor.unexpected("an expression")
    tree = parse_expression(cursor.statement, start, end)
    if tree.is_star:
        raise cursor.statement.fault("'*' is no value", start)
    return tree, _query_text(cursor.statement, start, end, tree)


def _never(_: Cursor) -> bool:
    return False


def _ends_insert_query(cursor: Cursor) -> bool:
    """Whether the query is over; the condition of a join may well begin with a column called conflict."""
    if cursor.at("RETURNING"):
        return True
    return any(cursor.at("ON", "CONFLICT", word) for word in ("DO", "ON")) or cursor.at("ON", "CONFLICT", "(")


def _ends_expression(cursor: Cursor, stops: tuple[str, ...]) -> bool:
    if cursor.at_symbol(","):
        return True
    word = cursor.token.word
    if word == "WHEN":  # which also stands in a CASE
        return word in stops and (cursor.at("WHEN", "MATCHED") or cursor.at("WHEN", "NOT", "MATCHED"))
    return word in stops and not (word == "FROM" and cursor.previous.word == "DISTINCT")


def _query_text(statement: StatementText, start: int, end: int, tree: exp.Expr) -> QueryText:
    survey = _survey(tree, statement, start)
    if survey.refused:
        line, column = statement.place(start)
        raise Unsupported(survey.refused, line=line, column=column)
    tables = table_uses(survey.sources, statement, start)
    plain = len(tables) == 1 and _is_plain(tree, survey)
    query = QueryText(
        text=statement.text[start:end],
        tables=tables,
        parameters=_parameters(statement, start, end),
        names_key=survey.names_key,
        plain=plain,
        equalities=equalities_of(tree),
        constant=constant_of(tree),
        point=point_of(tree) if plain else None,
        literals=is_literals(tree),
        casts=_casts(tree),
        in_order=len(tables) == 1 and isinstance(tree, exp.Select) and _keeps_order(tree),
        virtual=frozenset(survey.virtual),
    )
    hidden = [*([STREAM_KEY] if survey.names_key else ()), *sorted(survey.virtual)]
    return _with_hidden(query, tree, hidden) if plain and hidden else query


def _casts(tree: exp.Expr) -> tuple[int, ...]:
    """The places in the result of what is cast at last, as far as the select list tells them."""
    if not isinstance(tree, exp.Select) or any(node.is_star for node in tree.expressions):
        return ()
    nodes = [node.unalias().unnest() for node in tree.expressions]
    casts = (place for place, node in enumerate(nodes) if isinstance(node, exp.Cast))
    return tuple(place for place in casts if not nodes[place].is_type(*_OF_TEXTS))


def _keeps_order(tree: exp.Expr) -> bool:
    """Whether rows come in the order of their table, if they are read in it."""
    return not any(
        isinstance(node, _REORDERING) or (is_aggregate(node) and not isinstance(node.parent, exp.Window))
        for node in tree.walk()
    )


def _with_hidden(query: QueryText, tree: exp.Expr, hidden: Sequence[str]) -> QueryText:
    """The query in which ``*`` shows the declared columns alone, as it does where nothing names the hidden ones."""
    stars = [node.this if isinstance(node, exp.Column) else node for node in tree.expressions]
    edits, behind = Edits(query.text), " EXCEPT ({})".format(", ".join(f'"{name}"' for name in hidden))
    for star in stars:
        if isinstance(star, exp.Star) and not any(star.args.values()):
            edits.enclose((star.meta["start"], star.meta["end"] + 1), behind=behind)
    return edits.applied(query)


def _survey(tree: exp.Expr, statement: StatementText, start: int) -> _Survey:
    survey = _Survey()
    todo = [(tree, 0)]
    while todo:
        node, depth = todo.pop()
        if depth > _DEPTH_MAX or survey.relations > _RELATIONS_MAX:
            raise statement.fault(TOO_DEEP if depth > _DEPTH_MAX else "the query joins too many tables", start)
        _visit(node, survey, statement, start)
        todo += [(child, depth + 1) for child in node.iter_expressions()]
    return survey


def _visit(node: exp.Expr, survey: _Survey, statement: StatementText, start: int) -> None:
    survey.relations += isinstance(node, _RELATIONS)
    survey.selects += isinstance(node, (exp.Select, exp.Values, exp.SetOperation))
    survey.aggregates |= isinstance(node, exp.Window) or is_aggregate(node)
    survey.refused = survey.refused or _refusal(node)
    if isinstance(node, exp.Column) and isinstance(node.this, exp.Identifier):
        survey.virtual |= _VIRTUAL & {name_of(node.this)}
    match node:
        case exp.Identifier():
            survey.names_key |= name_of(node) == STREAM_KEY
        case exp.Table():
            survey.sources.tables.append(node)
        case exp.DerivedTable() | exp.UDTF():
            survey.sources.derived.append(node)
        case exp.Column() if is_deleted_column(node):
            survey.sources.deleted_columns.append(node)
        case exp.Placeholder():
            raise statement.fault("parameters are written $1, $2, …", start)
        case exp.Parameter() if not isinstance(node.this, exp.Literal):
            raise statement.fault("parameters are written $1, $2, …", start)


def _refusal(node: exp.Expr) -> str | None:
    if isinstance(node, _CHANGES):
        return "a query cannot hold a statement that changes something"
    if isinstance(node, exp.Into):
        return "SELECT … INTO is not supported; use CREATE TABLE and INSERT INTO … SELECT"
    if isinstance(node, exp.Lock):
        return "FOR UPDATE and FOR SHARE are not supported; a query sees one snapshot and locks nothing"
    if isinstance(node, exp.Anonymous) and fold(node.name) in _OF_FILES:
        return f"{fold(node.name)}() is not supported: rows are of a table, whichever file keeps them"
    return None


def is_aggregate(node: exp.Expr) -> bool:
    """Whether it gathers rows, as DataFusion has it."""
    return isinstance(node, exp.AggFunc) or (isinstance(node, exp.Anonymous) and fold(node.name) in _AGGREGATES)


def _is_plain(tree: exp.Expr, survey: _Survey) -> bool:
    named = {part for part, value in tree.args.items() if value}
    source = tree.args.get("from_")
    return (
        isinstance(tree, exp.Select)
        and named <= _PLAIN_PARTS
        and isinstance(source, exp.From)
        and isinstance(source.this, exp.Table)
        and not source.this.args.get("joins")
        and survey.selects == 1
        and not survey.aggregates
    )


def _parameters(statement: StatementText, start: int, end: int) -> int:
    if "$" not in statement.text[start:end]:
        return 0
    tokens = takewhile(lambda token: token.start < end, read_tokens(statement, start))
    return max((int(token.text[1:]) for token in tokens if token.kind is Kind.PARAMETER), default=0)
