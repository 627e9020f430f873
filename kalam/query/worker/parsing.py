"""Reads long statements for the server."""

from __future__ import annotations

import pickle

from kalam.query.wire import Parse


def parsed(asked: Parse) -> bytes:
    """The statement of a text, pickled; raises what the parser has against it."""
    from kalam.sql import parse_live, parse_statement  # sqlglot takes half a second, and few texts are so long
    from kalam.sql.text.lexer import StatementText

    if asked.live:
        return pickle.dumps(parse_live(asked.text), pickle.HIGHEST_PROTOCOL)
    statement = StatementText(asked.text, asked.offset, asked.line, asked.column)
    return pickle.dumps(parse_statement(statement), pickle.HIGHEST_PROTOCOL)
