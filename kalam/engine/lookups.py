"""Answers that are given at once: to texts that ask for one row by its key, which memory knows.

Law: a ``Lookups`` lives for one turn of the event loop. Nothing else runs meanwhile, so what is the same for all that
is asked by a text — its plan, the rights, the view of the rows, whether the files are there — is found out for the
first one only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from kalam.engine.dispatch import Dispatch
from kalam.engine.session import Session
from kalam.query.parameters import Parameters
from kalam.query.points import PointLookup, PointRow
from kalam.sql.parsed import by_parameter

_Answer = TypeVar("_Answer")


class Lookups:
    """Answers texts for a session at a door; None for everything else, and for what is wrong: ``execute`` answers it.

    A text counts as a query if it was sent before. One with the key in it is answered as that with ``$1`` there.
    """

    def __init__(self, dispatch: Dispatch, session: Session, door: str) -> None:
        self._dispatch, self._session, self._door = dispatch, session, door
        self._known: dict[str, PointLookup] = {}

    def answer(self, text: str, params: Sequence[Any]) -> bytes | None:
        """The JSON answer."""
        if self._session.bigint_as_text:
            return None
        return self._found(text, params, PointLookup.answer)

    def row(self, text: str, params: Sequence[Any]) -> PointRow | None:
        """The same as Python values; with PostgreSQL's names, also to a text of nothing but literals."""
        query = None if params or self._session.has_temporary else self._dispatch.texts.known_query(text)
        if query is None or not query.literals:
            return self._found(text, params, PointLookup.row)
        started = time.perf_counter()
        found = self._dispatch.literal_rows.look(query)
        if found is not None:
            self._dispatch.sql_counts.note(self._door, time.perf_counter() - started)
        return found

    def _found(
        self,
        text: str,
        params: Sequence[Any],
        answered: Callable[[PointLookup, list[list[Any]], float], _Answer],
    ) -> _Answer | None:
        started = time.perf_counter()
        try:
            if not params and (by_value := by_parameter(text)) is not None:
                text, params = by_value[0], (by_value[1],)
            lookup = self._known.get(text) or self._lookup(text)
            rows = None if lookup is None else lookup.rows(Parameters.of(params))
            if lookup is None or rows is None:
                return None
            took_s = time.perf_counter() - started
            answer = answered(lookup, rows, took_s * 1e3)
        except Exception:  # noqa: BLE001 - execute meets the same, tells it and logs it
            return None
        self._dispatch.sql_counts.note(self._door, took_s)
        return answer

    def _lookup(self, text: str) -> PointLookup | None:
        dispatch, session = self._dispatch, self._session
        query = dispatch.texts.known_query(text)
        if query is None or session.has_temporary:
            return None
        reader = dispatch.gate.reader(session.identity)
        made = dispatch.points.lookup(query, session.user, session.namespace, reader)
        if made is not None:
            self._known[text] = made
        return made
