"""One query text from whole pieces: constants of ours, each followed by a text of the user's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kalam.names import TableName
from kalam.sql.text.statements import QueryText

Pieces = list[tuple[str, QueryText | None]]


def compose(pieces: Sequence[tuple[str, QueryText | None]]) -> QueryText:
    """One query text from constant pieces, each followed by a text of the user's."""
    text, uses, parameters, names_key, virtual = "", [], 0, False, frozenset[str]()
    for constant, user_text in pieces:
        text += constant
        if user_text is not None:
            uses += [use.moved(len(text)) for use in user_text.tables]
            parameters = max(parameters, user_text.parameters)
            names_key |= user_text.names_key
            virtual |= user_text.virtual
            text += user_text.text
    return QueryText(text, tuple(uses), parameters, names_key, virtual=virtual)


def as_columns(expressions: Sequence[QueryText], prefix: str) -> Pieces:
    """A select list of these expressions, named ``<prefix>0``, ``<prefix>1`` and so on."""
    pieces: Pieces = []
    for number, expression in enumerate(expressions):
        pieces += [(", (" if number else "(", expression), (f') AS "{prefix}{number}"', None)]
    return pieces


def from_table(name: TableName, alias: str | None) -> str:
    """A FROM of the table of this name, as that or under an alias."""
    source = f' FROM "{name.namespace}"."{name.table}"'
    return source if alias is None else f'{source} AS "{alias}"'


def quoted(columns: Iterable[str], of: str = "") -> str:
    """Columns as a select list, ``of`` a table where its name is given as it is written."""
    return ", ".join(f'{of}."{name}"' if of else f'"{name}"' for name in columns)
