"""Tables over foreign streams: their windows and decoders, and the port to the streams."""

from __future__ import annotations

import time

import pyarrow as pa

from kalam.foreign import Place
from kalam.rows.foreign.decoder import ForeignDecoder
from kalam.rows.foreign.faults import Reason
from kalam.schema import Table
from kalam.sql.queries.scan_bounds import NO_BOUNDS
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
        self._decoders: dict[tuple[int, int], ForeignDecoder] = {}

    def decoder(self, table: Table) -> ForeignDecoder:
        """What reads the table's messages."""
        name = (table.table_id, table.schema_version)
        decoder = self._decoders.get(name)
        if decoder is None or decoder.table.options != table.options:
            decoder = self._decoders[name] = ForeignDecoder(table)
        return decoder

    async def rows(self, table: Table, scan: Scan, *, with_seq: bool = False) -> pa.Table:
        """The rows that a query sees now, at least those within its bounds."""
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
        for version in [version for version in self._decoders if version[0] == table.table_id]:
            del self._decoders[version]

    def drop_idle_windows(self) -> None:
        """Let go of the windows that nobody has asked for a while."""
        now = time.monotonic()
        for name in [name for name, window in self._windows.items() if now - window.used_at > WINDOW_IDLE_S]:
            del self._windows[name]

    def _drop_surplus_windows(self) -> None:
        """Let go of those that were used longest ago, while all together are too large."""
        surplus = sum(window.byte_count for window in self._windows.values()) - self._windows_bytes_max
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
