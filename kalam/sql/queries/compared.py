"""Values that a query compares with a column, in the column's own form.

DataFusion compares a UUID as the text that is stored, a BLOB with the bytes of a text, and a TIMESTAMP by way of
nanoseconds, which end in 2262. What an INSERT takes for a value has to find it, so a literal or parameter that stands
beside a column in a comparison is written as the value that an INSERT would have stored.

Law: only ``column = value`` and its like are touched (``<>``, ``<``, …, IN, BETWEEN, IS DISTINCT FROM), in either
order, where the column is a whole operand and its type is certain. Everything else stays the user's own text. It is
read token by token and not as a tree: that is quick, and tells the places.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from msgspec.structs import replace

from kalam.schema import UPDATED, DataType, TableDefinition, TypeName
from kalam.sql.queries.own_forms import FORMED, own_form, unquoted
from kalam.sql.text.edits import Edits, Span
from kalam.sql.text.lexer import Kind, StatementText, Token, read_tokens
from kalam.sql.text.statements import QueryText, TableUse

Columns = Mapping[str, DataType]
"""A table's column types by name."""
_Written = tuple[Span, str]
"""What is written in the place of a value."""
_OPERATORS = frozenset({"=", "<>", "!=", "<", ">", "<=", ">="})
_WORDS_BEFORE = """
    AND OR NOT WHERE ON HAVING WHEN THEN ELSE SELECT CASE IF QUALIFY FILTER BY DISTINCT ALL RETURNING SET
"""
_BEFORE = frozenset(_WORDS_BEFORE.split())
"""Words behind which an operand begins that is nothing but what stands there."""
_GOING_ON = frozenset({"AT", "COLLATE", "ISNULL", "NOTNULL", "ESCAPE", "OPERATOR"})


def columns_of(table: TableDefinition) -> dict[str, DataType]:
    """The types of a table's columns, ``_updated`` and those of foreign messages among them."""
    virtual = {name: DataType(name=kind) for name, kind in table.system_columns.items()} if table.is_foreign else {}
    own = {column.name: column.type for column in table.columns}
    return {**own, UPDATED: DataType(name=TypeName.TIMESTAMP), **virtual}


def with_own_forms(
    query: QueryText,
    tables: Sequence[Columns],
    parameters: Sequence[Any] = (),
    own: Mapping[str, Columns] | None = None,
) -> tuple[QueryText, Sequence[Any]]:
    """The query or expression with what it compares in the columns' own forms, and its parameters.

    ``tables`` are the columns of ``query.tables``, in their order; ``own`` has those of a FROM that is written around
    the text, by the names that it goes by there.
    """
    text = query.text
    if "'" not in text and "$" not in text and not any(map(str.isdigit, text)):
        return query, parameters
    names = _Names(query, tables, own or {})
    if not names.touched(text):
        return query, parameters
    values = list(parameters)
    edits = Edits(text)
    for span, written in _written(_tokens(text), names, values):
        edits.replace(span, written)
    if not edits.changed:
        return query, parameters
    grown = max(query.parameters, len(values)) if len(values) > len(parameters) else query.parameters
    return replace(edits.applied(query), parameters=grown, equalities=(), point=None), values


def _tokens(text: str) -> list[Token]:
    tokens: list[Token] = []
    for token in read_tokens(StatementText(text)):
        follows = bool(tokens) and tokens[-1].end == token.start and tokens[-1].text + token.text in _OPERATORS
        if follows:
            tokens[-1] = Token(Kind.SYMBOL, tokens[-1].text + token.text, tokens[-1].start, token.end)
        else:
            tokens.append(token)
    return tokens[:-1]


class _Names:
    """What a name in a text stands for: the types of its columns, by the name that its table goes by."""

    def __init__(self, query: QueryText, tables: Sequence[Columns], own: Mapping[str, Columns]) -> None:
        self.tables = [*tables, *own.values()]
        self.by_name: dict[str, list[Columns]] = {name: [columns] for name, columns in own.items()}
        for use, columns in zip(query.tables, tables, strict=True):
            called = _alias(query.text, use) if use.aliased else use.ref.table
            self.by_name.setdefault(called, []).append(columns)
        self.made: frozenset[str] = frozenset()

    def touched(self, text: str) -> bool:
        """Whether a column whose values have other forms is named anywhere."""
        folded = text.lower()
        return any(
            name.lower() in folded for columns in self.tables for name, kind in columns.items() if kind.name in FORMED
        )

    def kind(self, qualifier: str | None, name: str) -> DataType | None:
        """The type of a column; None where it is not certain."""
        known = self.by_name.get(qualifier) if qualifier is not None else None
        if known is None and name in self.made:
            return None
        kinds = {columns[name] for columns in known or self.tables if name in columns}
        return kinds.pop() if len(kinds) == 1 else None


def _alias(text: str, use: TableUse) -> str:
    tokens = read_tokens(StatementText(text), use.end)
    token = next(tokens)
    return (next(tokens) if token.word == "AS" else token).name


def _made(tokens: Sequence[Token]) -> frozenset[str]:
    """The names that the text gives to anything but a column of that name."""
    made: set[str] = set()
    for before, word, name in zip(tokens, tokens[1:], tokens[2:], strict=False):
        if word.word == "AS" and name.name and before.name != name.name:
            made.add(name.name)
    return frozenset(made)


def _written(tokens: list[Token], names: _Names, values: list[Any]) -> Iterator[_Written]:
    names.made = _made(tokens)
    for place, token in enumerate(tokens):
        if token.text in _OPERATORS:
            yield from _compared(tokens, place, names, values)
        elif token.word in ("IN", "BETWEEN"):
            yield from _listed(tokens, place, names, values)
        elif token.word == "FROM" and place > 1 and tokens[place - 1].word == "DISTINCT":
            start = place - 2 - (tokens[place - 2].word == "NOT")
            if start > 0 and tokens[start].word == "IS":
                yield from _value(tokens, place + 1, _column_before(tokens, start, names), values)


def _compared(tokens: list[Token], place: int, names: _Names, values: list[Any]) -> Iterator[_Written]:
    yield from _value(tokens, place + 1, _column_before(tokens, place, names), values)
    column, end = _column_at(tokens, place + 1, names)
    if column is not None and _ends(tokens, end):
        yield from _value_before(tokens, place, column, values)


def _listed(tokens: list[Token], place: int, names: _Names, values: list[Any]) -> Iterator[_Written]:
    """The values of ``column [NOT] IN (…)`` or ``column [NOT] BETWEEN … AND …``."""
    behind = place - (place > 0 and tokens[place - 1].word == "NOT")
    column = _column_before(tokens, behind, names)
    if column is None:
        return
    is_list = tokens[place].word == "IN"
    between = "," if is_list else "AND"
    at = place + 1 + is_list
    if is_list and (at > len(tokens) or tokens[at - 1].text != "("):
        return
    while at < len(tokens):
        edits, end = _literal(tokens, at, column, values)
        if end == at:
            return
        yield from edits
        if end >= len(tokens) or tokens[end].text.upper() != between:
            return
        at = end + 1


def _column_before(tokens: list[Token], end: int, names: _Names) -> DataType | None:
    """The type of the column that ends before a place and is a whole operand; None for anything else."""
    start = end - 1
    if start >= 2 and tokens[start - 1].text == ".":
        start -= 2
        if start >= 2 and tokens[start - 1].text == ".":
            start -= 2
    if start < 0 or not _begins(tokens, start):
        return None
    column, behind = _column_at(tokens, start, names)
    return column if behind == end else None


def _column_at(tokens: list[Token], start: int, names: _Names) -> tuple[DataType | None, int]:
    """The type of the column that begins at a place, and the place behind it."""
    parts: list[str] = []
    place = start
    while place < len(tokens) and tokens[place].kind in (Kind.WORD, Kind.QUOTED):
        parts.append(tokens[place].name)
        place += 1
        if place >= len(tokens) or tokens[place].text != ".":
            break
        place += 1
    if not parts:
        return None, start
    return names.kind(parts[-2] if len(parts) > 1 else None, parts[-1]), place


def _begins(tokens: list[Token], place: int) -> bool:
    """Whether what stands here is the beginning of an operand of a comparison."""
    before = tokens[place - 1] if place else None
    return before is None or before.text in ("(", ",") or before.word in _BEFORE


def _ends(tokens: list[Token], place: int) -> bool:
    """Whether what stands before a place is a whole operand."""
    if place >= len(tokens):
        return True
    token = tokens[place]
    if token.kind in (Kind.WORD, Kind.QUOTED):
        return token.word not in _GOING_ON
    return token.text in (")", ",", ";")


def _value(tokens: list[Token], place: int, column: DataType | None, values: list[Any]) -> Iterator[_Written]:
    if column is not None:
        yield from _literal(tokens, place, column, values)[0]


def _value_before(tokens: list[Token], end: int, column: DataType, values: list[Any]) -> Iterator[_Written]:
    for start in range(max(0, end - 6), end):
        edits, behind = _literal(tokens, start, column, values, checked=False)
        if behind == end and _begins(tokens, start):
            yield from edits
            return


def _literal(
    tokens: list[Token], place: int, column: DataType, values: list[Any], *, checked: bool = True
) -> tuple[list[_Written], int]:
    """What is written for the literal or parameter at a place, and the place behind it; the place itself for none."""
    found = _given(tokens, place, values)
    if found is None:
        return [], place
    given, end, is_typed = found
    if checked and not _ends(tokens, end) and tokens[end].word != "AND":
        return [], end
    if is_typed and column.name is not TypeName.TIMESTAMP:
        return [], end
    shown = own_form(column, given)
    if shown is None:
        return [], end
    if tokens[place].kind is Kind.PARAMETER and shown.startswith("'"):  # a text that was bound stays bound
        values.append(unquoted(shown))
        shown = f"${len(values)}"
    return [((tokens[place].start, tokens[end - 1].end), shown)], end


def _given(tokens: list[Token], place: int, values: list[Any]) -> tuple[Any, int, bool] | None:
    """The value at a place, where it ends, and whether it says by itself that it is a TIMESTAMP."""
    here = tokens[place : place + 6]
    kinds = [token.kind for token in here]
    words = [token.word for token in here]
    if not here:
        return None
    if kinds[0] is Kind.STRING:
        cast = [token.text for token in here[1:3]] == [":", ":"] and words[3:4] and words[3] in _TIMESTAMPS
        return unquoted(here[0].text), place + (4 if cast else 1), bool(cast)
    if kinds[0] is Kind.PARAMETER:
        index = int(here[0].text[1:])
        return (values[index - 1], place + 1, False) if 0 < index <= len(values) else None
    if kinds[0] is Kind.NUMBER:
        return _number(here[0].text), place + 1, False
    if here[0].text == "-" and kinds[1:2] == [Kind.NUMBER]:
        return _number(f"-{here[1].text}"), place + 2, False
    if words[0] in _TIMESTAMPS and kinds[1:2] == [Kind.STRING]:
        return unquoted(here[1].text), place + 2, True
    if words[0] == "CAST" and kinds[2:3] == [Kind.STRING] and words[3:5] in [["AS", word] for word in _TIMESTAMPS]:
        closes = here[5:6] and here[5].text == ")"
        return (unquoted(here[2].text), place + 6, True) if closes else None
    return None


def _number(text: str) -> int | Decimal:
    return int(text) if text.lstrip("-").isdecimal() else Decimal(text)


_TIMESTAMPS = ("TIMESTAMP", "TIMESTAMPTZ")
