"""A snapshot that is kept, with PostgreSQL's functions registered in it: it asks SQLite, and reads its answers.

SQLite is asked to read and to do nothing else, within a time and a number of rows.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import msgspec

from kalam.engine import Shown
from kalam.errors import KalamError, Timeout, TooLarge, Unsupported
from kalam_pg.catalogue import pg_types
from kalam_pg.catalogue.arrays import loaded
from kalam_pg.catalogue.asking import Asked, Asking
from kalam_pg.catalogue.dynamic_rows import DYNAMIC
from kalam_pg.catalogue.functions import LENIENT, STRICT, Collected
from kalam_pg.catalogue.selects import Question, shown_type
from kalam_pg.catalogue.snapshot import Snapshot

_TEXT_BYTES_MAX: Final = 4 << 20
_FETCHED: Final = 500
_STEPS: Final = 5_000
"""So many steps of SQLite's machine are taken between looks at the clock."""
_READING: Final = frozenset(
    {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
)


def _as_text(value: Any) -> Any:
    return value if isinstance(value, (str, bytes, list)) else str(value)


_READERS: Final[dict[str, Callable[[Any], Any]]] = {
    "bool": bool,
    "float4": float,
    "float8": float,
    "numeric": lambda value: Decimal(str(value)),
    "timestamp": datetime.fromisoformat,
    "timestamptz": datetime.fromisoformat,
}


class Bounds(msgspec.Struct, frozen=True):
    """How long a query may take, and how many rows and bytes it may give."""

    time_s: float
    rows_max: int
    bytes_max: int


class KeptCatalogue:
    """A snapshot with its functions. Whoever asks holds its ``turn``; ``stopped`` ends the query that runs."""

    def __init__(self, database: str) -> None:
        self.snapshot = Snapshot(database)
        self.asking = Asking(self.snapshot.names)
        self.turn = asyncio.Lock()
        self.stopped = self.broken = False
        self._waiting = 0
        self._deadline = 0.0
        self._failed: KalamError | None = None
        conn = self.snapshot.conn
        for name, function in {**LENIENT, **{name: _strict(each) for name, each in STRICT.items()}}.items():
            conn.create_function(f"k_{name}", -1, self._told(function))
        for name, function in self.asking.functions().items():
            conn.create_function(f"k_{name}", -1, self._told(_strict(function)))
        conn.create_aggregate("k_collected", -1, self._aggregate())  # type: ignore[arg-type]
        conn.execute("PRAGMA case_sensitive_like = ON")
        conn.execute("SELECT 1 FROM json_each('[]')")  # its table is made now: later only reading is allowed
        conn.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _TEXT_BYTES_MAX)
        conn.setlimit(sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 1_000)

    @property
    def idle(self) -> bool:
        """Whether nobody asks, or waits to."""
        return self._waiting == 0

    @contextmanager
    def wanted(self) -> Iterator[None]:
        """Keep it open in the block."""
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1

    def update(self, shown: Shown, read: Iterable[str], asked: Asked) -> None:
        """Bring it up to date, with what the session sees of its own in the relations that are read; blocking."""
        self.broken = True
        self.snapshot.update(shown)
        for stored_as in read:
            if stored_as in DYNAMIC:
                self.snapshot.refill(stored_as, DYNAMIC[stored_as](asked, self.snapshot.names))
        self.broken = False

    def close(self) -> None:
        """Give its memory back: SQLite holds the functions, which hold this, and no collector sees that."""
        self.snapshot.close()

    def _told(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function whose errors are kept: SQLite tells only that there was one."""

        def call(*arguments: Any) -> Any:
            try:
                value = function(*arguments)
            except KalamError as exc:
                self._failed = exc
                raise
            except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError) as exc:
                self._failed = Unsupported(f"a function does not take these arguments: {str(exc)[:200]}")
                raise
            return int(value) if isinstance(value, bool) else value

        return call

    def _aggregate(self) -> type[Collected]:
        """The same for the aggregate."""
        kept = self

        class Told(Collected):
            def step(self, *arguments: Any) -> None:
                try:
                    super().step(*arguments)
                except KalamError as exc:
                    kept._failed = exc
                    raise

        return Told

    def _ends(self) -> bool:
        return self.stopped or time.monotonic() > self._deadline

    def ask(self, question: Question, values: Sequence[Any], asked: Asked, bounds: Bounds) -> list[tuple[Any, ...]]:
        """The rows of a question; blocking."""
        conn = self.snapshot.conn
        self.asking.asked, self._failed = asked, None
        self._deadline = time.monotonic() + bounds.time_s
        conn.set_authorizer(_only_reading)
        conn.set_progress_handler(self._ends, _STEPS)
        try:
            rows = _fetched(conn.execute(question.sql, values), bounds)
        except (sqlite3.Error, OverflowError) as exc:
            if self._failed is not None:
                raise self._failed from exc
            if self._ends():
                raise Timeout(f"the query took longer than {bounds.time_s:g} s") from exc
            if "too big" in str(exc) or "too long" in str(exc):
                raise TooLarge(f"a catalogue query was too large: {exc}") from exc
            raise Unsupported(f"this catalogue query cannot be answered: {str(exc)[:200]}") from exc
        finally:
            conn.set_authorizer(None)
            conn.set_progress_handler(None, 0)
        readers = [self._reader(shown_type(output)) for output in question.outputs]
        if any(reader is not None for reader in readers):
            rows = [
                tuple(
                    value if reader is None or value is None else reader(value)
                    for reader, value in zip(readers, row, strict=True)
                )
                for row in rows
            ]
        return rows

    def _reader(self, kind: str) -> Callable[[Any], Any] | None:
        """What makes values of a type of what SQLite gives; None where that is them."""
        if pg_types.is_array(kind):
            element = self._reader(pg_types.element(kind))
            if element is None:
                return loaded
            return lambda text: [value if value is None else element(value) for value in loaded(text)]
        if kind in pg_types.NAMED:
            return lambda oid: self.asking.reg_out(kind, oid) if isinstance(oid, int) else oid
        return int if kind in pg_types.INTEGERS else _READERS.get(kind, _as_text)


def _fetched(cursor: sqlite3.Cursor, bounds: Bounds) -> list[tuple[Any, ...]]:
    """All rows; raises TooLarge before they are too many."""
    rows: list[tuple[Any, ...]] = []
    size = 0
    while found := cursor.fetchmany(_FETCHED):
        rows += found
        size += sum(len(value) for row in found for value in row if isinstance(value, (str, bytes)))
        if len(rows) > bounds.rows_max or size > bounds.bytes_max:
            raise TooLarge(
                f"the result has more than {bounds.rows_max:,} rows or {bounds.bytes_max:,} bytes",
                hint="add a WHERE or a LIMIT",
            )
    return rows


def _strict(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        return None if any(argument is None for argument in arguments) else function(*arguments)

    return call


def _only_reading(action: int, *_: object) -> int:
    return sqlite3.SQLITE_OK if action in _READING else sqlite3.SQLITE_DENY
