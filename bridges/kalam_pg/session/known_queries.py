"""The queries that a session has read, by their texts: drivers send the same ones again and again, many to be parsed.

Law: they are known while tables, rights and the search path stand as they did when they were read.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, Self

from kalam.sql.parsed import CHARACTERS_MAX
from kalam_pg.session.session import Session
from kalam_pg.session.statements import Prepared

QUERIES_MAX: Final = 128


class KnownQueries:
    """Those that were asked last."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._standing: object = None
        self._queries: OrderedDict[tuple[str, tuple[int, ...]], Prepared] = OrderedDict()

    def now(self) -> Self:
        """Itself, without what something has changed for."""
        standing = self._session.lasting
        if standing is not self._standing:
            self._queries.clear()
            self._standing = standing
        return self

    def get(self, text: str, declared: tuple[int, ...]) -> Prepared | None:
        """The one of a text whose parameters are declared so."""
        found = self._queries.get((text, declared))
        if found is not None:
            self._queries.move_to_end((text, declared))
        return found

    def add(self, prepared: Prepared) -> None:
        """Keep one, unless its text is long."""
        if len(prepared.text) <= CHARACTERS_MAX:
            self._queries[prepared.text, prepared.declared] = prepared
            if len(self._queries) > QUERIES_MAX:
                self._queries.popitem(last=False)
