"""The answers to queries of nothing but literals: ``SELECT 1``, which pools and probes ask without end.

Law: what is answered is what the planned query answered once, kept by its text.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import pyarrow as pa

from kalam.query.points import PointRow
from kalam.sql.text.statements import QueryText

TEXTS_MAX: Final = 128
CHARACTERS_MAX: Final = 256


class LiteralRows:
    """The rows of the texts that were asked last; the columns have the names that PostgreSQL gives them."""

    def __init__(self) -> None:
        self._rows: OrderedDict[str, PointRow] = OrderedDict()

    def look(self, query: QueryText) -> PointRow | None:
        """The answer to a query, if it is one of literals and was asked before."""
        return self._rows.get(query.text) if query.literals else None

    def keep(self, query: QueryText, answer: pa.Table) -> None:
        """Keep what a query was answered with, if it is one of literals."""
        if query.literals and answer.num_rows == 1 and len(query.text) <= CHARACTERS_MAX:
            row = tuple(column[0].as_py() for column in answer.columns)
            self._rows[query.text] = PointRow(answer.schema, row)
            if len(self._rows) > TEXTS_MAX:
                self._rows.popitem(last=False)
