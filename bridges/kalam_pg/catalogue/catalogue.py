"""Answers to what tools ask about the catalogue: the door's one object for it.

A snapshot belongs to one user and one name of a database, because what is in it follows from the user's rights. The
ones used last are kept. A query runs in a thread, one at a time on a snapshot, within the time and the number of rows
of any other query; SQLite is asked to read and to do nothing else.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, Protocol

import msgspec

from kalam.engine import Caller
from kalam.errors import InvalidValue, KalamError
from kalam.storage.log.temporary import TemporarySpace
from kalam.threads import Purpose, in_thread
from kalam_pg.catalogue import pg_types
from kalam_pg.catalogue.arrays import dumped
from kalam_pg.catalogue.asking import Asked
from kalam_pg.catalogue.kept import Bounds, KeptCatalogue
from kalam_pg.catalogue.recognised import CatalogueText
from kalam_pg.catalogue.selects import Question, shown_type
from kalam_pg.settings import SessionSettings

SNAPSHOTS_MAX: Final = 16
_PRIVILEGES: Final = ("SELECT", "INSERT", "UPDATE", "DELETE")


class SessionView(Protocol):
    """A session of the door, as far as it is asked about."""

    @property
    def caller(self) -> Caller:
        """A request of the session."""
        ...

    @property
    def user(self) -> str:
        """Who has logged in."""
        ...

    @property
    def database(self) -> str:
        """The database's name, as the client gave it."""
        ...

    @property
    def backend_pid(self) -> int:
        """The number by which a request of the session is cancelled."""
        ...

    @property
    def settings(self) -> SessionSettings:
        """What is set."""
        ...

    @property
    def temporary(self) -> TemporarySpace:
        """What it has for itself."""
        ...

    @property
    def client_address(self) -> str | None:
        """Where the client is."""
        ...


class Field(msgspec.Struct, frozen=True):
    """A column of an answer, as RowDescription tells it."""

    name: str
    oid: int
    typmod: int = -1


class CatalogueAnswer(msgspec.Struct, frozen=True):
    """Rows of Python values: a list where the column is an array, a text where its type has no values of its own."""

    fields: tuple[Field, ...]
    rows: list[tuple[Any, ...]]


class CatalogueDescribed(msgspec.Struct, frozen=True):
    """The OIDs of a statement's parameters, and its columns."""

    parameters: tuple[int, ...]
    fields: tuple[Field, ...]


class Catalogue:
    """Answers and describes statements that ``recognise`` has found to be about the catalogue."""

    def __init__(self, *, query_time_s: float, rows_max: int, bytes_max: int = 64 << 20) -> None:
        self._bounds = Bounds(query_time_s, rows_max, bytes_max)
        self._kept: OrderedDict[tuple[str, str], KeptCatalogue] = OrderedDict()
        self._making = asyncio.Lock()

    def describe(self, question: CatalogueText, declared: Sequence[int] = ()) -> CatalogueDescribed:
        """The parameters and columns of a statement; ``declared`` are the OIDs that the client gave (0: none)."""
        put = question.put(tuple(declared))
        return CatalogueDescribed(tuple(pg_types.oid(kind) for kind in put.parameters), _fields(put))

    async def answer(
        self,
        question: CatalogueText,
        session: SessionView,
        parameters: Sequence[Any] = (),
        declared: Sequence[int] = (),
    ) -> CatalogueAnswer:
        """The rows of a statement, which cancelling ends.

        Raises what is wrong with it, Timeout, TooLarge and Cancelled.
        """
        put = question.put(tuple(declared))
        caller = session.caller
        asked = _asked(session, caller, rights=put.asks_rights)
        values = [_given(value) for value in parameters]
        if len(values) != len(put.parameters):
            raise InvalidValue(f"the statement has {len(put.parameters)} parameters, and {len(values)} values came")
        with caller.describing(question.text):
            kept = await self._snapshot(caller, session.database)
            with kept.wanted():
                async with kept.turn:
                    rows = await self._run(kept, put, values, asked, caller)
        for name, value in asked.changed:
            session.settings.set(name, value)
        return CatalogueAnswer(_fields(put), rows)

    async def _run(
        self, kept: KeptCatalogue, put: Question, values: Sequence[Any], asked: Asked, caller: Caller
    ) -> list[tuple[Any, ...]]:
        shown = caller.shown()
        kept.stopped = False

        def work() -> list[tuple[Any, ...]]:
            kept.update(shown, put.read, asked)
            return kept.ask(put, values, asked, self._bounds)

        running = asyncio.ensure_future(in_thread(Purpose.DESCRIPTIONS, work))
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            kept.stopped = True
            with suppress(KalamError):
                await running
            raise

    async def _snapshot(self, caller: Caller, database: str) -> KeptCatalogue:
        key = (caller.session.identity.rights_of, database)
        kept = self._kept.get(key)
        if kept is None or kept.broken:
            async with self._making:
                kept = self._kept.get(key)  # another one may have waited for it, too
                if kept is None or kept.broken:
                    kept = self._kept[key] = await _made(database)
        self._kept.move_to_end(key)
        idle = [other for other, one in self._kept.items() if one.idle and one is not kept]
        for other in idle[: max(0, len(self._kept) - SNAPSHOTS_MAX)]:
            self._kept.pop(other).close()
        return kept

    async def aclose(self) -> None:
        """Let go of all snapshots, once nobody asks them any more."""
        for kept in self._kept.values():
            async with kept.turn:
                kept.close()
        self._kept.clear()


async def _made(database: str) -> KeptCatalogue:
    """A new snapshot, in a thread: the first takes 50 ms. Nobody but its ``close`` gives its memory back."""
    making = asyncio.ensure_future(in_thread(Purpose.DESCRIPTIONS, KeptCatalogue, database))
    try:
        return await asyncio.shield(making)
    except asyncio.CancelledError:
        (await making).close()
        raise


def _asked(session: SessionView, caller: Caller, *, rights: bool) -> Asked:
    """The session as the functions see it; with what the user may do where that is asked."""
    tables = caller.tables() if rights else ()
    privileges = {
        table.table_id: frozenset(each for each in _PRIVILEGES if caller.may(each, table)) for table in tables
    }
    temporary = session.temporary
    privileges |= {state.table.table_id: frozenset(_PRIVILEGES) for state in temporary.tables.values()}
    return Asked(
        session.user,
        session.database,
        session.backend_pid,
        tuple(session.settings.search_path),
        temporary.namespace if temporary.tables else None,
        session.settings,
        privileges,
        frozenset(name for name in (caller.namespaces() if rights else ()) if caller.may_create(name)),
        caller.administers(),
        session.client_address,
        [],
    )


def _given(value: Any) -> Any:
    """A parameter's value as SQLite takes it."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, (list, tuple)):
        return dumped(value)
    if value is None or isinstance(value, (int, float, str, bytes)):
        return value
    return str(value)


def _fields(put: Question) -> tuple[Field, ...]:
    return tuple(Field(output.name, pg_types.oid(shown_type(output)), output.typmod) for output in put.outputs)
