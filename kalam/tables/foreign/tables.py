"""Tables over foreign streams: their windows and decoders, and the port to the streams."""

from __future__ import annotations

import time

import pyarrow as pa

from kalam.foreign import Place
from kalam.rows.foreign.decoder import ForeignDecoder
from kalam.rows.foreign.faults import Reason
from kalam.schema import Table
from kalam.sql.queries.scan_bounds import NO_BOUNDS
from kalam.tables.foreign.bucket import Bucket
from kalam.tables.foreign.port import ForeignPort
from kalam.tables.foreign.window import ForeignWindow, WindowKey
from kalam.tables.kinds import Scan

WINDOW_IDLE_S = 300.0


class ForeignTables:
    """Reads tables over foreign streams."""

    def __init__(self, port: ForeignPort, *, window_bytes_max: int, windows_bytes_max: int) -> None:
        self.port = port
        self._window_bytes_max, self._windows_bytes_max = window_bytes_max, windows_bytes_max
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
        made = Bucket(self.decoder(table), self.port, self._window_bytes_max)
        if bucket is None or table.schema_version > bucket.table.schema_version:
            self._buckets[table.table_id] = made
        return made

    async def _rows_of_bucket(self, table: Table, scan: Scan) -> pa.Table:
        if scan.bounds != NO_BOUNDS and table.table_id not in self._buckets:
            made = Bucket(self.decoder(table), self.port, self._window_bytes_max)
            return await made.rows_within(scan.bounds, scan.virtual)
        rows, _ = await self.bucket(table).rows(scan.virtual)
        self._drop_surplus_windows()
        return rows

    async def rows(self, table: Table, scan: Scan, *, with_seq: bool = False) -> pa.Table:
        """The rows that a query sees now, at least those within its bounds."""
        if table.is_bucket:
            return await self._rows_of_bucket(table, scan)
        name = WindowKey.of(table, scan.virtual)
        window = self._windows.get(name)
        if window is None:
            window = ForeignWindow(self.decoder(table), self.port, name.extras, self._window_bytes_max)
            if scan.bounds != NO_BOUNDS:
                return await window.rows_within(scan.bounds, scan.virtual)
            self._windows[name] = window
        try:
            rows = await window.rows(scan.virtual, with_seq=with_seq)
        except BaseException:
            if not window.byte_count and self._windows.get(name) is window:
                del self._windows[name]
            raise
        self._drop_surplus_windows()
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

    def forget(self, table: Table) -> None:
        """Let go of what is kept of a table that was dropped or altered."""
        for name in [name for name in self._windows if name.table_id == table.table_id]:
            del self._windows[name]
        if table.table_id in self._buckets and not self._buckets[table.table_id].is_followed:
            del self._buckets[table.table_id]
        for version in [version for version in self._decoders if version[0] == table.table_id]:
            del self._decoders[version]

    def drop_idle_windows(self) -> None:
        """Let go of the windows that nobody has asked for a while."""
        now = time.monotonic()
        for name in [name for name, window in self._windows.items() if now - window.used_at > WINDOW_IDLE_S]:
            del self._windows[name]
        for table_id, bucket in list(self._buckets.items()):
            if now - bucket.used_at > WINDOW_IDLE_S and not bucket.is_followed:
                del self._buckets[table_id]

    def _drop_surplus_windows(self) -> None:
        """Let go of those that were used longest ago, while all together are too large."""
        surplus = sum(window.byte_count for window in self._windows.values()) - self._windows_bytes_max
        surplus += sum(bucket.byte_count for bucket in self._buckets.values())
        for table_id, bucket in sorted(self._buckets.items(), key=lambda item: item[1].used_at):
            if surplus > 0 and not (bucket.is_followed or bucket.lock.locked()) and len(self._buckets) > 1:
                surplus -= bucket.byte_count
                del self._buckets[table_id]
        for name, window in sorted(self._windows.items(), key=lambda item: item[1].used_at)[:-1]:
            if surplus <= 0:
                return
            if not window.lock.locked():
                surplus -= window.byte_count
                del self._windows[name]


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
