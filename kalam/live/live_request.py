"""What a subscriber asks for when a live query is opened."""

from __future__ import annotations

from typing import Any

import msgspec

from kalam.names import TableName
from kalam.schema import PayloadFormat
from kalam.sql.text.statements import QueryText


class LiveRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a subscriber asks for. ``parameters`` are the values of ``$1 …`` in the WHERE.

    With ``bigint_as_text`` its JSON has BIGINT as text.
    """

    user: str
    sql: str
    table: TableName
    columns: tuple[str, ...] | None
    where: QueryText | None
    parameters: tuple[object, ...] = ()
    last_rows: int | None = None
    from_seq: int | None = None
    table_id: int | None = None
    format: PayloadFormat = PayloadFormat.JSON
    bigint_as_text: bool = False

    def options(self) -> dict[str, Any]:
        """The options that were given."""
        given = {"last_rows": self.last_rows, "from_seq": self.from_seq, "table_id": self.table_id}
        shown = {"format": self.format.value} | ({"integers": "text"} if self.bigint_as_text else {})
        return {name: value for name, value in given.items() if value is not None} | shown
