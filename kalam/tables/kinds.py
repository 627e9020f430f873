"""The one fork: what is done with a table, by its kind.

Above ``sql`` nobody else asks for the kind of a table. What differs between kinds is a method of a protocol, fulfilled
once for the tables whose rows are stored (SHARED, USER), once for STREAM tables, those over foreign streams and views
each; who needs it asks ``Tables.of``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any, Final, Generic, Literal, Protocol, TypeAlias, TypeVar, assert_never

import msgspec
import pyarrow as pa

from kalam.errors import DuplicateKey
from kalam.names import TableName
from kalam.rows.types import Row
from kalam.schema import Table, TableDefinition, TableKind
from kalam.sql.queries.scan_bounds import NO_BOUNDS, ScanBounds
from kalam.sql.text.alterations import Action
from kalam.storage.log.catalogue import Sql
from kalam.storage.log.copies import Key, View
from kalam.storage.segments.key_rows import KeyedRows
from kalam.tables.alterations import ColumnUsers
from kalam.tables.insert_batch import Answer, Batch, Tally
from kalam.tables.replay import Replay
from kalam.tables.stored import StoredTables

Acts = TypeVar("Acts")
Verb = Literal["FLUSH", "COMPACT", "CHECK", "UPDATE", "MERGE", "ON CONFLICT", "on_conflict"]
"""What is done with rows that are stored, and not with others."""


class Tables(msgspec.Struct, Generic[Acts], frozen=True):
    """Something that is done with tables, once for each kind."""

    stored: Acts
    streams: Acts
    foreign: Acts
    views: Acts
    ephemeral: Acts
    selects: Acts

    def of(self, table: Table | TableDefinition) -> Acts:
        """How it is done with this table."""
        match table.kind:
            case TableKind.SHARED | TableKind.USER:
                return self.stored
            case TableKind.STREAM:
                return self.streams
            case TableKind.FOREIGN:
                return self.foreign
            case TableKind.VIEW:
                return self.ephemeral if table.is_ephemeral else self.views
            case TableKind.QUERY:
                return self.selects
            case TableKind.TEMPORARY:
                raise AssertionError("a temporary table is its session's, who asks for this never has one")
            case other:
                assert_never(other)

    def parts(self, tables: Mapping[TableName, Table]) -> Iterator[tuple[Acts, Mapping[TableName, Table]]]:
        """Those of the tables that are alike, and how it is done with them; streams first, for they are waited for.

        Views are read together with the tables whose rows are stored, for they are.
        """
        for acts in (self.ephemeral, self.foreign, self.streams, self.stored):
            own = (acts, self.views) if acts is self.stored else (acts,)
            alike = {name: table for name, table in tables.items() if any(self.of(table) is each for each in own)}
            if alike:
                yield acts, alike


Source: TypeAlias = pa.Table | View | None
"""What a query reads of a table: rows at hand, or a view of a copy, None for one that was never written."""


class Scan(msgspec.Struct, frozen=True):
    """What a query needs of foreign streams: virtual columns, and the bounds that its WHERE gives to its one table."""

    virtual: frozenset[str] = frozenset()
    bounds: ScanBounds = NO_BOUNDS


WHOLE_SCAN: Final = Scan()
Shown: TypeAlias = Callable[[], pa.Table]


class TakenRows(msgspec.Struct, frozen=True):
    """When rows were stored (microseconds since 1970), and how many were discarded because nobody listens."""

    updated_us: int = 0
    discarded: int = 0


class Removal(msgspec.Struct, frozen=True):
    """A DELETE: which rows it means, and what is asked of them while they are still there.

    ``key`` gives the value of a WHERE that is ``key = value``, else None; ``pick`` these columns of the rows of a
    source that are meant; ``visible`` those of rows found by key that policies leave to the statement; ``check``
    raises what is wrong with what is asked of so many rows, which ``shown`` gives as SELECT shows them, with the key
    of an event if it ``names_key``.
    """

    key: Callable[[Table], Key | None]
    pick: Callable[[Table, Source, Sequence[str]], Awaitable[pa.Table]]
    visible: Callable[[Table, KeyedRows], Awaitable[KeyedRows]]
    check: Callable[[Table, int, Shown], Awaitable[None]]
    names_key: bool


class Removed(msgspec.Struct, frozen=True):
    """How many rows were removed from a table, what they are called, and the rows as SELECT shows them."""

    table: Table
    rows: int
    called: str
    shown: Shown


class Rows(Protocol):
    """Takes rows, gives them to queries, changes and removes them."""

    @property
    def ordered(self) -> bool:
        """Whether a query gives them in the order of their inserts, whoever sent them."""

    @property
    def seq_column(self) -> str:
        """The column of a numbered source that has the number of a row's last change."""

    async def take_batch(self, table: Table, users: Sequence[str], batch: Batch, tally: Tally) -> list[Answer]:
        """Take what is valid of the messages of these users; the answer or the error of each, in order.

        The rows are handed on before the first pause; the messages are of one user unless rows are ``ordered``.
        """

    async def take_rows(self, table: Table, user: str, rows: Sequence[Row]) -> TakenRows:
        """Take the rows of a statement, all or none; raises what is wrong with them."""

    def check_writable(self, table: Table) -> None:
        """Raise Unsupported where no rows are taken, before any are looked at."""

    def check(self, table: Table, rows: Sequence[Row]) -> None:
        """Raise what is wrong with rows that are of the table's types, their keys apart."""

    async def taken(self, table: Table, user: str, rows: Sequence[Row], before: set[Key]) -> Mapping[int, DuplicateKey]:
        """Why rows could not be inserted now, by their places; the keys of the others are added to ``before``."""

    def is_readable(self, table: Table) -> bool:
        """Whether it can be read at once."""

    async def wait_readable(self, table: Table) -> None:
        """Wait until it can be read; raises TooBusy after some seconds."""

    async def sources(
        self, tables: Mapping[TableName, Table], user: str, *, with_key: bool, scan: Scan = WHOLE_SCAN
    ) -> Mapping[TableName, Source]:
        """What a query of ``user`` reads of tables, all of one moment; ``with_key`` if it names the key of an event.

        ``scan`` says what else it names, and which rows may be left out.
        """

    async def numbered(
        self, table: Table, user: str, *, with_key: bool, virtual: frozenset[str] = frozenset()
    ) -> tuple[Source, int]:
        """What a live query begins with: a source with its ``seq_column``, and the last change in it."""

    async def last_seq(self, table: Table, user: str) -> int:
        """The last change that is there now; 0 where whoever follows the table knows it without asking."""

    async def changes_since(self, table: Table, user: str, from_seq: int, told_seq: int) -> Replay:
        """The changes behind ``from_seq``, up to the last or to what has been told of a table that is followed.

        Raises CursorExpired where they are not kept any more.
        """

    async def seq_before(self, table: Table, moment: datetime) -> int:
        """The number of the last change that came before a time; raises Unsupported where nothing keeps it."""

    async def last_of_keys(self, table: Table, told_seq: int) -> Replay:
        """Of each SUBJECT_KEY the last event, up to what has been told; raises Unsupported likewise."""

    async def remove(self, table: Table, user: str, removal: Removal) -> Removed:
        """Remove rows; a reader sees all of them or none."""

    def stored(self, table: Table, verb: Verb) -> StoredTables:
        """What changes the table's rows; raises Unsupported where that is not done with them."""


class Upkeep(Protocol):
    """Creates, alters and drops tables, and says how it stands with them."""

    async def create(self, definition: TableDefinition) -> Table:
        """Make the table with all that it needs, or nothing; raises InvalidOption and what the catalogue raises."""

    def filling(self, definition: TableDefinition) -> AbstractAsyncContextManager[Table]:
        """The table, to be filled in the block: complete when that ends, or, after an error, not there.

        If its rows are stored nobody sees it before. Raises what ``create`` raises, at either end.
        """

    async def settle(self, table: Table) -> None:
        """Called now and then while a table is being filled: what it has needs no memory any more."""

    def altering(self, table: Table) -> AbstractAsyncContextManager[object]:
        """Held while the table is altered; to be entered before anything else is held."""

    async def alter(
        self, table: Table, action: Action, user: str, column_users: ColumnUsers, also: Sequence[Sql] = ()
    ) -> tuple[Table, str]:
        """The new state of the table, which is stored with what changes ``also``, and what was done to it in words."""

    async def rename(self, table: Table, name: TableName) -> Table:
        """The table under another name in its namespace, held by ``dropping``; raises AlreadyExists, Unsupported."""

    async def truncate(self, table: Table) -> None:
        """Remove every row, all at once for a reader; held by ``dropping``. Raises Unsupported, BrokerUnavailable."""

    def dropping(self, table: Table, reason: str) -> AbstractAsyncContextManager[object]:
        """Held while the table is dropped, renamed or emptied, when nothing works on its files; to be entered likewise.

        ``reason`` is what its jobs are told that are ended for it.
        """

    async def garbage(self, table: Table) -> list[str]:
        """The paths of the table's files, the last part of which may be a pattern."""

    async def clear(self, table: Table, garbage: Sequence[str]) -> None:
        """Remove files and events of a table that was dropped; what stays now goes at the next start."""

    async def state(self, table: Table) -> list[tuple[str, Any]]:
        """What is stored of the table, by name."""
