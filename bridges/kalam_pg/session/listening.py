"""LISTEN: what a session hears of tables, as notifications.

A channel is the beginning of a table's subject: ``kalam.shared.ns.t``, ``kalam.user.ns.t`` (the caller's own copy) or
``kalam.stream.ns.t``. Behind it is a live query over the whole table that begins now, with the bounds of every live
query. Law, as in PostgreSQL: notifications are sent between statements and outside of blocks, and at most once; where
the queue has overflown a ``{"resync": seq}`` says so.
"""

from __future__ import annotations

from typing import Final

import msgspec

from kalam.errors import TableNotFound, Unsupported
from kalam.live import LiveQuery
from kalam.names import TableName
from kalam.schema import Table
from kalam_pg.session.session import Session
from kalam_pg.wire import messages

PAYLOAD_BYTES_MAX: Final = 8_000
"""PostgreSQL's bound, on which clients count."""
CHANNEL_FORM: Final = "kalam.shared.<namespace>.<table>"
_JSON: Final = msgspec.json.Encoder()


class Change(msgspec.Struct):
    """A change as a live query tells it; values stay as they are written."""

    op: str
    seq: int
    row: dict[str, msgspec.Raw] | None = None


class Changes(msgspec.Struct):
    """A message of changes."""

    changes: list[Change]


_CHANGES: Final = msgspec.json.Decoder(Changes)


class Listening:
    """The channels of one session; the sink of their live queries."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._queries: dict[str, LiveQuery] = {}
        session.before_ready.append(self.send)

    async def listen(self, channel: str) -> None:
        """Hear a table's changes; once is enough. Raises TableNotFound, Unsupported and PermissionDenied."""
        if channel in self._queries:
            return
        table = self._table(channel)
        caller = self._session.caller
        whole = f'SELECT * FROM "{table.name.namespace}"."{table.name.table}"'  # noqa: S608 - names of what is there
        query = await caller.follow(whole, self, last_rows=0)
        self._queries[channel] = query
        caller.begin(query)

    def unlisten(self, channel: str | None) -> None:
        """Hear no more of one, or of all."""
        for name in [name for name in self._queries if channel in (None, name)]:
            query = self._queries.pop(name)
            if query.closed is None:
                self._session.caller.unfollow(query.id, "unlisten")

    def subject(self, query: LiveQuery) -> None:
        """None: the messages go to this one client."""

    def note(self, query: LiveQuery) -> None:
        """Something waits: it is sent at once if nothing runs."""
        session = self._session
        if session.idle and session.block.status == "I":
            self.send()
            session.flush()

    def send(self) -> None:
        """Send what waits."""
        for channel, query in list(self._queries.items()):
            while (message := query.take()) is not None:
                match message.kind:
                    case "changes":
                        for change in _CHANGES.decode(message.payload).changes:
                            self._tell(channel, notified(change, query.table))
                    case "resync":
                        self._tell(channel, _JSON.encode({"resync": message.seq}))
                    case "closed":
                        self._queries.pop(channel, None)
                        said = f"{channel} is not listened to any more: {query.closed}"
                        self._session.notice("WARNING", "01000", said)

    def _tell(self, channel: str, payload: bytes) -> None:
        self._session.write(messages.notification(self._session.backend_pid, channel, payload.decode()))

    def _table(self, channel: str) -> Table:
        parts = channel.split(".")
        if len(parts) != 4 or parts[0] != "kalam" or parts[1] not in ("shared", "user", "stream"):
            raise Unsupported(f"a channel is a table's: {CHANNEL_FORM}, kalam.user.… or kalam.stream.…")
        table = self._session.caller.table(TableName(parts[2], parts[3]))
        if table.kind.written.lower() != parts[1]:
            raise TableNotFound(f"{table.name} is a {table.kind.written} table: kalam.{table.kind.written.lower()}.…")
        return table


def notified(change: Change, table: Table) -> bytes:
    """A change as it is notified: with the values of the primary key in order, without its row where it is long."""
    told: dict[str, object] = {"op": change.op, "seq": change.seq}
    if change.row is not None and table.key:
        told["key"] = [change.row.get(name) for name in table.key]
    whole = _JSON.encode({**told, "row": change.row})
    return whole if len(whole) <= PAYLOAD_BYTES_MAX else _JSON.encode(told)
