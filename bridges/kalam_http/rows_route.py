"""``POST /v1/tables/{ns}/{table}/rows``: rows in bulk, stored batch by batch while they come in.

The law of its failures: batches are stored one after another, so at an error everything before the batch at fault is
stored and nothing from it on; the error says how many rows that are. Sent again with the same Idempotency-Key, within
two minutes, what is stored already is not stored twice.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from kalam.engine import Engine, InsertMessage
from kalam.errors import InvalidValue, KalamError, TooBusy
from kalam.names import TableName
from kalam.rows.formats.batches import Batch
from kalam.schema import Table
from kalam.tracing import current_trace
from kalam_http.bodies import JSON, RowsAnswer
from kalam_http.routes import Routes
from kalam_http.rows_body import BATCH_ROWS, batches, row_format
from kalam_http.sql_route import USER_PARAMETER, asking_user

KEY_HEADER: Final = "Idempotency-Key"
KEY_PATTERN: Final = re.compile(r"[\x21-\x7e]{1,128}")
BUSY_PAUSES_S: Final = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
KEY_PARAMETER: Final[dict[str, Any]] = {
    "name": KEY_HEADER,
    "in": "header",
    "required": False,
    "description": "makes the insert repeatable: the same body sent again with it, as the same user and within two "
    "minutes, stores nothing twice",
    "schema": {"type": "string", "pattern": "^[\\x21-\\x7e]{1,128}$"},
}

DRY_RUN_PARAMETER: Final[dict[str, Any]] = {
    "name": "dry_run",
    "in": "query",
    "required": False,
    "description": "judge the rows as an insert would, keys included, and store nothing",
    "schema": {"type": "boolean", "default": False},
}

_ANSWER: Final = msgspec.json.Decoder(RowsAnswer)


def rows_routes(engine: Engine) -> Routes:
    """The route that takes rows in bulk."""
    routes = Routes("Rows")

    @routes.post(
        "/v1/tables/{namespace}/{table}/rows",
        summary="Insert rows in bulk",
        operation_id="insert_rows",
        path_parameters={"namespace": "the table's namespace", "table": "the table"},
        parameters=[USER_PARAMETER, KEY_PARAMETER, DRY_RUN_PARAMETER],
    )
    async def insert_rows(request: Request) -> Response:
        """Insert the rows of the body, in batches, while it comes in; it may be of any length up to the bound.

        The Content-Type says what it is: a JSON array of objects, NDJSON, CSV (with the names of the columns in its
        first line), msgpack (an array of maps, or maps one after another) or an Arrow IPC stream. Up to 5,000 rows
        and 4 MiB are one transaction; of a longer body the batches before an error stay stored, and the error says
        in `stored` how many rows that are. With `dry_run=true` the rows are judged, and nothing is stored.
        """
        media_type = row_format(request.headers.get("content-type"))
        user = asking_user(request)
        key = _checked_key(request.headers.get(KEY_HEADER))
        dry_run = _flag(request.query_params, "dry_run")
        name = TableName(request.path_params["namespace"].lower(), request.path_params["table"].lower())
        found = engine.catalogue.table(name)
        insert = Trial(engine, user, name) if dry_run else BulkInsert(engine, user, found, key)
        try:
            async for batch in batches(request, media_type):
                await insert.add(batch)
        except KalamError as exc:
            if not dry_run:
                engine.inserts.rejected[exc.code] += 1
            raise insert.located(exc) from exc
        return Response(msgspec.json.encode(insert.answer()), media_type=JSON)

    return routes


def _checked_key(key: str | None) -> str | None:
    if not key:
        return None
    if not KEY_PATTERN.fullmatch(key):
        raise InvalidValue(f"{KEY_HEADER} has to be 1 to 128 visible ASCII characters without blanks")
    return key


def _flag(query: Mapping[str, str], name: str) -> bool:
    text = query.get(name) or "false"
    if text not in ("true", "false"):
        raise InvalidValue(f"{name} is true or false, found {text[:40]!r}")
    return text == "true"


class Trial:
    """An insert in bulk that is judged and not stored."""

    def __init__(self, engine: Engine, user: str, name: TableName) -> None:
        self._engine, self._user, self._name = engine, user, name
        self._rows = 0
        self._taken: set[Any] = set()

    async def add(self, batch: Batch) -> None:
        """Judge one batch, as if the ones before it were stored."""
        message = InsertMessage(batch.payload, batch.arrow)
        self._rows += await self._engine.inserts.judge(self._user, self._name, message, self._taken)

    def answer(self) -> RowsAnswer:
        """What the sender reads when all would be stored."""
        return RowsAnswer(rows=self._rows)

    def located(self, error: KalamError) -> KalamError:
        """The error of a batch, which says where in the body it is."""
        if self._rows and "row" not in error.fields:
            error.detail = f"after row {self._rows:,} of the body: {error.detail}"
        return error


class BulkInsert:
    """One insert in bulk, as far as it is."""

    def __init__(self, engine: Engine, user: str, table: Table, key: str | None) -> None:
        self._engine, self._user, self._table, self._key = engine, user, table, key
        self._batches = 0
        self._read_rows = 0
        self._stored_rows = 0
        self._discarded_rows = 0
        self._last_seq: int | None = None

    async def add(self, batch: Batch) -> None:
        """Insert one batch, after the ones before it."""
        msg_id = None if self._key is None else f"http:{self._key}:{self._batches}"
        message = InsertMessage(batch.payload, batch.arrow, msg_id, trace=current_trace())
        answer = _ANSWER.decode(await self._insert(message))
        self._batches += 1
        self._read_rows += batch.rows
        self._stored_rows += answer.rows
        self._discarded_rows += answer.discarded
        self._last_seq = answer.seq if answer.seq is not None else self._last_seq

    async def _insert(self, message: InsertMessage) -> bytes:
        """The answer of the engine, which may be busy for a while with what others send."""
        for pause in (*BUSY_PAUSES_S, None):
            self._engine.catalogue.newest(self._table)  # the body was meant for no other table of the name
            (answer,) = await self._engine.inserts.insert(
                self._user, self._table.name, [message], traced=bool(message.trace)
            )
            if isinstance(answer, bytes):
                return answer
            if pause is None or not isinstance(answer, TooBusy):
                raise answer
            await asyncio.sleep(pause)
        raise AssertionError("the last try returns or raises")

    def answer(self) -> RowsAnswer:
        """What the sender reads when all is stored."""
        return RowsAnswer(rows=self._stored_rows, seq=self._last_seq, discarded=self._discarded_rows)

    def located(self, error: KalamError) -> KalamError:
        """The error of a batch, which says where in the body it is and what is stored of the body."""
        if self._read_rows and "row" not in error.fields:
            error.detail = f"after row {self._read_rows:,} of the body: {error.detail}"
        stored = error.fields.get("stored", 0)
        error.fields["stored"] = self._stored_rows + stored if isinstance(stored, int) else "unknown"
        if self._stored_rows and "hint" not in error.fields:
            error.fields["hint"] = (
                f"batches of {BATCH_ROWS:,} rows are stored one after another: "
                f"the first {error.fields['stored']} rows are stored, the others are not"
            )
        return error
