"""Tables over foreign streams: their windows and decoders, and the port to the streams."""

from __future__ import annotations

import time
import weakref

import pyarrow as pa

from kalam.errors import TooLarge
from kalam.foreign import Place
from kalam.rows.foreign.decoder import ERROR, ForeignDecoder
from kalam.rows.foreign.faults import Reason
from kalam.schema import Table
from kalam.sql.queries.scan_bounds import NO_BOUNDS
from kalam.tables.foreign.bucket import Bucket
from kalam.tables.foreign.port import ForeignPort
from kalam.tables.foreign.room import Room
from kalam.tables.foreign.window import ForeignWindow, WindowKey
from kalam.tables.kinds import Scan

WINDOW_IDLE_S = 300.0


class ForeignTables:
    """Reads tables over foreign streams."""

    def __init__(self, port: ForeignPort, *, window_bytes_max: int, windows_bytes_max: int) -> None:
        self.port = port
        self._window_bytes_max = window_bytes_max
        self._room = Room(windows_bytes_max, self._give_way)
        self._windows: dict[WindowKey, ForeignWindow] = {}
        self._buckets: dict[int, Bucket] = {}
        self._decoders: dict[tuple[int, int], ForeignDecoder] = {}

    def decoder(self, table: Table) -> ForeignDecoder:
        """What reads the table's messages."""
        name = (table.table_id, table.schema_version)
        decoder = self._decoders.get(name)
        if decoder is None or decoder.table.options != table.options:
            decoder = self._decoders[name] = ForeignDecoder(table)
        return decoder

    def bucket(self, table: Table) -> Bucket:
        """The state of the bucket that a table is over, which is kept while it is asked for or followed."""
        bucket = self._buckets.get(table.table_id)
        if bucket is not None and bucket.table.columns == table.columns:
            if table.schema_version > bucket.table.schema_version:
                bucket.redefine(self.decoder(table))
            return bucket
        made = Bucket(self.decoder(table), self.port, self._window_bytes_max, self._room)
        if bucket is None or table.schema_version > bucket.table.schema_version:
            self._buckets[table.table_id] = made
        return made

    async def rows(self, table: Table, scan: Scan, *, with_seq: bool = False) -> pa.Table:
        """The rows that a query sees now, at least those within its bounds."""
        kept = self._bucket_or_window(table, scan)
        if kept is None and scan.bounds != NO_BOUNDS:
            return await self._lent(table, scan)
        window = kept or self._new(table, scan)
        try:
            if isinstance(window, Bucket):
                rows, _ = await window.rows(scan.virtual, wrong=ERROR in scan.virtual)
                return rows
            return await window.rows(scan.virtual, with_seq=with_seq)
        except TooLarge:
            self._drop_unfollowed(window)
            if scan.bounds == NO_BOUNDS:
                raise
        except BaseException:
            if not window.byte_count:
                self._drop_unfollowed(window)
            raise
        return await self._lent(table, scan)

    def _bucket_or_window(self, table: Table, scan: Scan) -> ForeignWindow | Bucket | None:
        """What is kept of a table for such a query."""
        if not table.is_bucket:
            return self._windows.get(WindowKey.of(table, scan.virtual))
        return self.bucket(table) if table.table_id in self._buckets else None

    def _new(self, table: Table, scan: Scan) -> ForeignWindow | Bucket:
        """What is kept from now on."""
        if table.is_bucket:
            return self.bucket(table)
        name = WindowKey.of(table, scan.virtual)
        self._windows[name] = window = self._window(table, name)
        return window

    def _window(self, table: Table, name: WindowKey) -> ForeignWindow:
        return ForeignWindow(self.decoder(table), self.port, name.extras, self._window_bytes_max, self._room)

    def _drop_unfollowed(self, window: ForeignWindow | Bucket) -> None:
        if isinstance(window, ForeignWindow) or not window.is_followed:
            self._drop(window)

    async def _lent(self, table: Table, scan: Scan) -> pa.Table:
        """The rows within bounds, which take room until whoever asked lets go of them."""
        window: ForeignWindow | Bucket
        if table.is_bucket:
            window = Bucket(self.decoder(table), self.port, self._window_bytes_max, self._room)
        else:
            window = self._window(table, WindowKey.of(table, scan.virtual))
        try:
            rows = await window.rows_within(scan.bounds, scan.virtual)
        except BaseException:
            self._room.release(window)
            raise
        weakref.finalize(rows, self._room.release, window)
        return rows

    def undecodable(self, table: Table) -> dict[Reason, int] | None:
        """How many of the messages that were read do not decode, by reason; None where none were read."""
        if table.is_bucket:
            bucket = self._buckets.get(table.table_id)
            return None if bucket is None else bucket.undecodable()
        newest = max(
            (window for name, window in self._windows.items() if name.table_id == table.table_id),
            key=lambda window: window.used_at,
            default=None,
        )
        return None if newest is None else newest.undecodable()

    def key_count(self, table: Table) -> int | None:
        """How many keys of a bucket have a value; None where none were read."""
        bucket = self._buckets.get(table.table_id)
        return None if bucket is None else bucket.row_count

    def forget(self, table: Table) -> None:
        """Let go of what is kept of a table that was dropped or altered."""
        for window in [window for name, window in self._windows.items() if name.table_id == table.table_id]:
            self._drop(window)
        bucket = self._buckets.get(table.table_id)
        if bucket is not None and not bucket.is_followed:
            self._drop(bucket)
        for version in [version for version in self._decoders if version[0] == table.table_id]:
            del self._decoders[version]

    def drop_idle_windows(self) -> None:
        """Let go of the windows that nobody has asked for a while."""
        now = time.monotonic()
        for window in self._kept():
            if now - window.used_at > WINDOW_IDLE_S and not window.is_busy:
                self._drop(window)

    def _kept(self) -> list[ForeignWindow | Bucket]:
        """What is kept; what was asked for longest ago comes first."""
        return sorted((*self._windows.values(), *self._buckets.values()), key=lambda window: window.used_at)

    def _give_way(self, surplus: int, holder: object) -> None:
        """Let go of what was used longest ago, as far as that is needed."""
        for window in self._kept():
            if surplus <= 0:
                return
            if window is not holder and not window.is_busy:
                surplus -= window.byte_count
                self._drop(window)

    def _drop(self, window: ForeignWindow | Bucket) -> None:
        self._windows = {name: other for name, other in self._windows.items() if other is not window}
        self._buckets = {table_id: other for table_id, other in self._buckets.items() if other is not window}
        self._room.release(window)


def token_columns(table: Table) -> dict[str, int]:
    """The columns that are tokens of the subject just as they stand there, and which."""
    return {
        column.name: column.source.at
        for column in table.columns
        if column.source is not None
        and column.source.place is Place.TOKEN
        and isinstance(column.source.at, int)
        and column.type.name == "TEXT"
    }
