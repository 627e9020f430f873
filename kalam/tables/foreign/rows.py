"""The rows of tables over foreign streams, as whoever reads them meets them; who would change them is refused."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from kalam.errors import CursorExpired, Unsupported
from kalam.names import TableName
from kalam.schema import STREAM_KEY, Table
from kalam.tables.foreign.replay import replay_of_foreign
from kalam.tables.foreign.tables import ForeignTables
from kalam.tables.kinds import WHOLE_SCAN, Scan, Source, Verb
from kalam.tables.replay import Replay
from kalam.tables.stored import StoredTables
from kalam.tables.unwritten import UnwrittenRows
from kalam.tables.window_pieces import EVENT_SEQ


class ForeignRows(UnwrittenRows):
    """Messages of foreign streams; a Rows."""

    ordered = True
    seq_column = EVENT_SEQ

    def __init__(self, tables: ForeignTables) -> None:
        self._tables = tables

    def refusal(self, table: Table, what: str) -> Unsupported:
        """In the words of streams and buckets of others."""
        return read_only(table, what)

    def stored(self, table: Table, verb: Verb) -> StoredTables:
        """None of these verbs is for messages of others; raises Unsupported."""
        raise read_only(table, verb)

    def is_readable(self, table: Table) -> bool:
        """Always."""
        return True

    async def wait_readable(self, table: Table) -> None:
        """Nothing has to be waited for."""

    async def sources(
        self, tables: Mapping[TableName, Table], user: str, *, with_key: bool, scan: Scan = WHOLE_SCAN
    ) -> Mapping[TableName, Source]:
        """The rows of their windows, or those within the bounds of the scan."""
        found: dict[TableName, Source] = {}
        for name, table in tables.items():
            if with_key and table.is_bucket:  # where it is a column like others of a message
                virtual = scan.virtual | {STREAM_KEY}
                found[name] = await self._tables.rows(table, Scan(virtual=virtual, bounds=scan.bounds))
            else:
                found[name] = await self._tables.rows(table, scan)
        return found

    async def numbered(
        self, table: Table, user: str, *, with_key: bool, virtual: frozenset[str] = frozenset()
    ) -> tuple[Source, int]:
        """The rows with their sequences in the stream; of a bucket the number of its changes."""
        if table.is_bucket:
            return await self._tables.bucket(table).rows(virtual, with_seq=True)
        rows = await self._tables.rows(table, Scan(virtual=virtual), with_seq=True)
        return rows, rows.column(EVENT_SEQ)[-1].as_py() if rows.num_rows else 0

    async def last_seq(self, table: Table, user: str) -> int:
        """What has been told of the stream is known to whoever follows it."""
        return 0

    async def changes_since(self, table: Table, user: str, from_seq: int, told_seq: int) -> Replay:
        """The messages up to the last that was told; raises CursorExpired where some of them are gone."""
        if table.is_bucket:
            raise CursorExpired(
                f"table {table.name} reads a bucket, which keeps what is there and not what has changed"
            )
        state = await self._tables.port.state(table.foreign_options.over)
        if not state.first_seq - 1 <= from_seq <= state.last_seq:
            raise CursorExpired(f"the messages behind {from_seq} of table {table.name} are not kept any more")
        return replay_of_foreign(table, self._tables, from_seq, max(from_seq, told_seq))

    async def seq_before(self, table: Table, moment: datetime) -> int:
        """The broker keeps when it stored each message; of a bucket it keeps no changes."""
        if table.is_bucket:
            raise Unsupported(f"from_time is for streams; table {table.name} reads a bucket, which keeps no changes")
        return await self._tables.port.seq_before(table.foreign_options.over, table.table_id, moment)

    async def last_of_keys(self, table: Table, told_seq: int) -> Replay:
        """Raise Unsupported: there is no SUBJECT_KEY."""
        raise Unsupported(f"last_per_key is for tables with a SUBJECT_KEY; {table.name} has none")


def read_only(table: Table, verb: str) -> Unsupported:
    """The refusal of what would change the stream of others, or is for rows that Kalam keeps."""
    return Unsupported(
        f"{verb} of table {table.name}: it reads the {table.foreign_options.over.called}, which is others' and "
        "is never changed"
    )
