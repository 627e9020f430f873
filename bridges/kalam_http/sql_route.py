"""``POST /v1/sql``: SQL in, results out."""

from __future__ import annotations

import re
import time
import uuid
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from kalam.engine import ROWS_OR_PARAMS, Caller, Engine, Session
from kalam.errors import InvalidValue, KalamError
from kalam.query.results import encoded_answer
from kalam_http.accept import choose_format, integers_as_text
from kalam_http.bodies import JSON, SqlRequest, check_content_type, decode_json
from kalam_http.departures import departure_of
from kalam_http.identity import HTTP_DOOR, USER_PARAMETER, caller_of, identity_of
from kalam_http.problems import problem_response
from kalam_http.routes import Routes
from kalam_http.streamed_answer import STREAMED, StreamedAnswer, body_of

SQL_PATH: Final = "/v1/sql"

QUERY_ID_HEADER: Final = "X-Kalam-Query-Id"
QUERY_ID_PATTERN: Final = re.compile(r"^[A-Za-z0-9_-]{1,64}$")
QUERY_ID_PARAMETER: Final[dict[str, Any]] = {
    "name": QUERY_ID_HEADER,
    "in": "header",
    "required": False,
    "description": "an id by which the request can be cancelled while it runs; every answer has one",
    "schema": {"type": "string", "pattern": QUERY_ID_PATTERN.pattern},
}


class SqlEndpoint:
    """``POST /v1/sql`` on an engine: as a route, which OpenAPI lists, and as an application of its own.

    The router's way to a route costs 20 µs, a good part of what a read by key takes. So ``Edge`` hands the requests of
    this one route over directly, to the same ``run``.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._decoder = msgspec.json.Decoder(SqlRequest)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            response = await self.run(Request(scope, receive))
        except KalamError as exc:
            response = problem_response(exc)
        await response(scope, receive, send)

    async def run(self, request: Request) -> Response:
        """Run the statements in order and stop at the first error, which carries the results before it.

        A body needs `Content-Type: application/json`; Host must be this server. Accept chooses the format of the
        answer: JSON with all results, bounded by `result_rows_max`; or, streamed and without that bound, the rows of
        one statement as NDJSON, CSV or an Arrow stream. With `; integers=text` behind it JSON and NDJSON have BIGINT
        values as text. If a streamed answer fails half way, the last line of NDJSON is
        `{"error": …}` with the problem; the other formats break the transfer off without its end.
        """
        check_content_type(request, JSON)
        accept = request.headers.get("accept")
        media_type = choose_format(accept, (JSON, *STREAMED))
        as_text = integers_as_text(accept, media_type)
        query_id = checked_id(request.headers.get(QUERY_ID_HEADER))
        identity = identity_of(request)
        asked = decode_json(await request.body(), self._decoder)
        session = Session(identity, asked.namespace, asked.names == "postgresql", as_text or asked.integers == "text")
        departure = departure_of(request.receive)
        caller = self._engine.caller(session, HTTP_DOOR, request_id=query_id, departure=departure)
        try:
            if media_type == JSON or asked.describe or asked.rows is not None:
                return await whole_answer(caller, asked, query_id)
            rows = caller.stream(asked.sql, asked.params)
            body = body_of(rows, media_type, bigint_as_text=session.bigint_as_text)
            return await StreamedAnswer.begun(body, media_type, {QUERY_ID_HEADER: query_id})
        except KalamError as exc:
            response = problem_response(exc)
            response.headers[QUERY_ID_HEADER] = query_id
            return response

    def cancel(self, query_id: str, request: Request) -> None:
        """Cancel a running request of whoever asks; raises NotFound."""
        caller_of(self._engine, request).cancel(query_id)


def sql_routes(endpoint: SqlEndpoint) -> Routes:
    """The routes that run SQL and cancel it."""
    routes = Routes("SQL")
    routes.post(
        SQL_PATH,
        summary="Run SQL statements",
        operation_id="run_sql",
        parameters=[USER_PARAMETER, QUERY_ID_PARAMETER],
    )(endpoint.run)

    @routes.delete(
        "/v1/queries/{query_id}",
        summary="Cancel a running query",
        operation_id="cancel_query",
        path_parameters={"query_id": "its X-Kalam-Query-Id"},
    )
    async def cancel_query(request: Request) -> Response:
        """Stop what a request to `/v1/sql` is reading; the request ends with `cancelled`.

        A statement that writes is not stopped, so `cancelled` never stands for something that took effect.
        """
        endpoint.cancel(request.path_params["query_id"], request)
        return Response(status_code=204)

    return routes


def checked_id(given: str | None) -> str:
    """The id that a request named for itself, else a new one; raises InvalidValue."""
    if not given:
        return uuid.uuid4().hex
    if not QUERY_ID_PATTERN.fullmatch(given):
        raise InvalidValue(f"{QUERY_ID_HEADER} has to match {QUERY_ID_PATTERN.pattern}")
    return given


async def whole_answer(caller: Caller, asked: SqlRequest, query_id: str) -> Response:
    """All results in one JSON document."""
    headers = {QUERY_ID_HEADER: query_id}
    if asked.describe:
        return Response((await caller.describe(asked.sql)).as_json(), media_type=JSON, headers=headers)
    if asked.rows is not None:
        if asked.params:
            raise InvalidValue(ROWS_OR_PARAMS)
        started = time.perf_counter()
        result = await caller.execute_many(asked.sql, asked.rows)
        body = await encoded_answer([result], (time.perf_counter() - started) * 1000)
        return Response(body, media_type=JSON, headers=headers)
    looked_up = caller.look(asked.sql, asked.params)
    if looked_up is not None:
        return Response(looked_up, media_type=JSON, headers=headers)
    started = time.perf_counter()
    results = await caller.execute(asked.sql, asked.params)
    took_ms = (time.perf_counter() - started) * 1000
    return Response(await encoded_answer(results, took_ms), media_type=JSON, headers=headers)
