"""What a subscriber asks for when a live query is opened."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
from msgspec.structs import replace

from kalam.errors import InvalidOption
from kalam.names import TableName
from kalam.rows.lone_values import timestamp_text
from kalam.schema import PayloadFormat, Table
from kalam.sql.text.statements import QueryText


class LiveRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a subscriber asks for. ``parameters`` are the values of ``$1 …`` in the WHERE.

    Where it is more than columns and a WHERE, ``query`` is the whole SELECT, which names its tables in full, and
    ``table`` the first of them.

    It begins with the rows that match, or with the changes behind ``from_seq``, from ``from_time`` on, or with the last
    event of each key. With ``events_only`` it is for a STREAM table, and ``keys`` are the values of its SUBJECT_KEY
    that are wanted, instead of a WHERE. With ``bigint_as_text`` its JSON has BIGINT as text. ``rights_of`` is the user
    whose grants count, who is another where an administrator acts for ``user``.
    """

    user: str
    rights_of: str
    sql: str
    table: TableName
    columns: tuple[str, ...] | None
    where: QueryText | None
    query: QueryText | None = None
    parameters: tuple[object, ...] = ()
    last_rows: int | None = None
    from_seq: int | None = None
    from_time: datetime | None = None
    last_per_key: bool = False
    events_only: bool = False
    keys: tuple[object, ...] | None = None
    table_id: int | None = None
    format: PayloadFormat = PayloadFormat.JSON
    bigint_as_text: bool = False

    def for_keys(self, table: Table) -> LiveRequest:
        """The request with its keys as a WHERE; raises InvalidOption if the table has no SUBJECT_KEY."""
        if self.keys is None:
            return self
        column = table.options.subject_key
        if column is None:
            raise InvalidOption(f"keys are for tables with a SUBJECT_KEY; {table.name} has none")
        values = ", ".join(f"${number}" for number in range(1, len(self.keys) + 1))
        where = QueryText(f'"{column}" IN ({values})', parameters=len(self.keys))
        return replace(self, where=where, parameters=self.keys, keys=None)

    def for_all(self, table: Table) -> LiveRequest:
        """The request for the columns of a SELECT, of which a table has the rows."""
        return replace(self, columns=tuple(column.name for column in table.shown_columns))

    def options(self) -> dict[str, Any]:
        """The options that were given."""
        given: dict[str, Any] = {"last_rows": self.last_rows, "from_seq": self.from_seq, "table_id": self.table_id}
        if self.from_time is not None:
            given["from_time"] = timestamp_text(self.from_time)
        if self.last_per_key:
            given["last_per_key"] = True
        shown = {"format": self.format.value} | ({"integers": "text"} if self.bigint_as_text else {})
        return {name: value for name, value in given.items() if value is not None} | shown
