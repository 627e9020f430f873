"""The columns that a server keeps itself, in files that came out of one: they are left out when the rows go in again.

So what ``kalam export`` or ``kalam sql`` wrote can be inserted as it is. A deleted row, which only a query for
``_deleted`` finds, is refused: it would come back to life.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from kalam.schema import DELETED, ROW_ID, STREAM_KEY, UPDATED

if TYPE_CHECKING:  # pyarrow takes a while and is needed for its formats alone
    import pyarrow as pa

SERVER_COLUMNS: Final = frozenset({UPDATED, DELETED, ROW_ID, STREAM_KEY})


class DeletedRow(Exception):
    """A row of the file is a deleted one."""

    def __init__(self) -> None:
        super().__init__(f"is a deleted row ({DELETED} is true), which an insert would bring back to life")


class ServerColumns:
    """Leaves them out; ``found`` are those that were there."""

    def __init__(self) -> None:
        self.found: set[str] = set()
        self._members = msgspec.json.Decoder(dict[str, msgspec.Raw])
        self._encode = msgspec.json.Encoder().encode

    def out_of_json(self, row: bytes) -> bytes:
        """A JSON object without them; what is none is given back. Raises DeletedRow."""
        if b'"_' not in row:
            return row
        try:
            members = self._members.decode(row)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):  # the server says what is wrong with it
            return row
        there = SERVER_COLUMNS & members.keys()
        if not there:
            return row
        if members.get(DELETED) == msgspec.Raw(b"true"):
            raise DeletedRow
        self.found |= there
        return self._encode({name: value for name, value in members.items() if name not in there})

    def out_of_table(self, table: pa.Table) -> pa.Table:
        """A table without them. Raises DeletedRow."""
        there = SERVER_COLUMNS.intersection(table.column_names)
        if not there:
            return table
        if DELETED in there and any(str(value).lower() == "true" for value in table.column(DELETED).to_pylist()):
            raise DeletedRow
        self.found |= there
        return table.drop_columns(list(there))
