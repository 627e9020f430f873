"""The payload of ``kalam.api.<user>.sql``, and the answer that it asks for."""

from __future__ import annotations

import time
from typing import Any, Literal

import msgspec

from kalam.engine import ROWS_OR_PARAMS, Caller, Identity, Lookups, Session
from kalam.errors import InvalidValue
from kalam.query.results import encoded_answer
from kalam.rows.judged import UNREADABLE


class SqlRequest(msgspec.Struct, forbid_unknown_fields=True):
    """A request: statements with parameters, an INSERT for many ``rows`` of them, or a statement to ``describe``."""

    sql: str
    params: list[Any] = []
    rows: list[list[Any]] | None = None
    describe: bool = False
    namespace: str | None = None
    names: Literal["postgresql"] | None = None
    integers: Literal["number", "text"] = "number"

    def session(self, sender: Identity) -> Session:
        """Who asks, and what for."""
        return Session(sender, self.namespace, self.names == "postgresql", self.integers == "text")

    def look(self, lookups: Lookups) -> bytes | None:
        """The answer to a query for one hot row; None for what has to be run."""
        if self.describe or self.rows is not None:
            return None
        return lookups.answer(self.sql, self.params)

    async def answer(self, caller: Caller, started: float) -> bytes:
        """The answer, as JSON, to what was ``started`` then."""
        if self.describe:
            return (await caller.describe(self.sql)).as_json()
        if self.rows is not None and self.params:
            raise InvalidValue(ROWS_OR_PARAMS)
        if self.rows is None:
            results = await caller.execute(self.sql, self.params)
        else:
            results = [await caller.execute_many(self.sql, self.rows)]
        return await encoded_answer(results, (time.perf_counter() - started) * 1e3)


_SQL = msgspec.json.Decoder(SqlRequest)


def decode_sql(payload: bytes) -> SqlRequest:
    """The request of a payload; raises InvalidValue."""
    try:
        return _SQL.decode(payload)
    except UNREADABLE as exc:
        raise InvalidValue(f'the payload is not {{"sql": …, "params": […], "namespace": …}}: {exc}') from exc
