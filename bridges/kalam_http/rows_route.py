"""``POST /v1/tables/{ns}/{table}/rows``: rows in bulk, stored batch by batch while they come in.

The law of its failures: batches are stored one after another, so at an error everything before the batch at fault is
stored and nothing from it on; the error says how many rows that are. Sent again with the same Idempotency-Key, within
two minutes, what is stored already is not stored twice.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from kalam.engine import Engine
from kalam.errors import InvalidValue, KalamError
from kalam.names import TableName
from kalam.rows.taking import WORDS, read_taking
from kalam_http.bodies import JSON
from kalam_http.bulk_insert import Bulk, BulkInsert, Trial
from kalam_http.identity import USER_PARAMETER, caller_of
from kalam_http.routes import Routes
from kalam_http.rows_body import batches, row_format

KEY_HEADER: Final = "Idempotency-Key"
KEY_PATTERN: Final = re.compile(r"[\x21-\x7e]{1,128}")
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

TAKING_TEXTS: Final = {
    "on_invalid": "`skip`: a row that is wrong, or whose key is taken, is refused alone, and told in the answer",
    "unknown": "`ignore`: members and columns that no column of the table names are dropped",
    "coerce": '`lossless`: 5.0 and "5" are integers, and "0.5" is a number, where nothing is lost',
    "on_conflict": "a row whose key is there already is left as it is (`nothing`) or gets what was sent (`update`)",
}
TAKING_PARAMETERS: Final[list[dict[str, Any]]] = [
    {
        "name": parameter,
        "in": "query",
        "required": False,
        "description": f"{TAKING_TEXTS[parameter]}; also the header {header}",
        "schema": {"type": "string", "enum": list(words), "default": words[0]},
    }
    for header, (parameter, words) in WORDS.items()
]


def rows_routes(engine: Engine) -> Routes:
    """The route that takes rows in bulk."""
    routes = Routes("Rows")

    @routes.post(
        "/v1/tables/{namespace}/{table}/rows",
        summary="Insert rows in bulk",
        operation_id="insert_rows",
        path_parameters={"namespace": "the table's namespace", "table": "the table"},
        parameters=[USER_PARAMETER, KEY_PARAMETER, DRY_RUN_PARAMETER, *TAKING_PARAMETERS],
    )
    async def insert_rows(request: Request) -> Response:
        """Insert the rows of the body, in batches, while it comes in; it may be of any length up to the bound.

        The Content-Type says what it is: a JSON array of objects, NDJSON, CSV (with the names of the columns in its
        first line), msgpack (an array of maps, or maps one after another) or an Arrow IPC stream. Up to 5,000 rows
        and 4 MiB are one transaction; of a longer body the batches before an error stay stored, and the error says
        in `stored` how many rows that are. With `dry_run=true` the rows are judged, and nothing is stored. How rows are
        taken (`on_invalid`, `unknown`, `coerce`, `on_conflict`) may be said by the headers of NATS as well.
        """
        media_type = row_format(request.headers.get("content-type"))
        query, headers = request.query_params, request.headers
        taking = read_taking(lambda header, parameter: query.get(parameter) or headers.get(header))
        caller = caller_of(engine, request)
        key = _checked_key(request.headers.get(KEY_HEADER))
        dry_run = _flag(request.query_params, "dry_run")
        name = TableName(request.path_params["namespace"].lower(), request.path_params["table"].lower())
        table = caller.taking(name, taking.conflict)
        insert: Bulk = Trial(caller, name, taking) if dry_run else BulkInsert(caller, table, key, taking)
        try:
            async for batch in batches(request, media_type, insert.refuse if taking.skip else None):
                await insert.add(batch)
        except KalamError as exc:
            if not dry_run:
                engine.note_rejected(exc)
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
