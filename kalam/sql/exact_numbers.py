"""Numbers with a fraction, kept to the last digit.

DataFusion reads ``12.50`` as a DOUBLE, so that ``balance + 12.50`` would take a DECIMAL through 53 bits and lose what
it holds beyond 15 digits. Where the value goes into a DECIMAL column, such a number is therefore written as a DECIMAL
of its own digits. One with an exponent stays what it is: who writes that means a DOUBLE.
"""

from __future__ import annotations

from dataclasses import replace

from kalam.sql.lexer import Kind, StatementText, Token, read_token
from kalam.sql.statements import QueryText

DIGITS_MAX = 38  # of a DECIMAL
INTEGER_DIGITS = 18  # that surely fit 64 bits


def with_exact_numbers(query: QueryText) -> QueryText:
    """The query or expression with its numbers as DECIMAL; the mentions of tables keep their places."""
    text, tables, statement = query.text, query.tables, StatementText(query.text)
    for token in reversed(_numbers(statement)):
        exact = _exact(token.text)
        if exact is None:
            continue
        text = text[: token.start] + exact + text[token.end :]
        by = len(exact) - len(token.text)
        tables = tuple(
            replace(use, start=use.start + by, end=use.end + by) if use.start > token.start else use for use in tables
        )
    return query if text == query.text else replace(query, text=text, tables=tables)


def _numbers(statement: StatementText) -> list[Token]:
    numbers: list[Token] = []
    token = read_token(statement, 0)
    while token.kind is not Kind.END:
        if token.kind is Kind.NUMBER:
            numbers.append(token)
        token = read_token(statement, token.end)
    return numbers


def _exact(number: str) -> str | None:
    whole, point, fraction = number.partition(".")
    digits = len(whole.lstrip("0")) + len(fraction)
    if not f"{whole}{fraction}".isdecimal() or digits > DIGITS_MAX or not (point or digits > INTEGER_DIGITS):
        return None
    return f"CAST('{number}' AS DECIMAL({max(digits, 1)},{len(fraction)}))"
