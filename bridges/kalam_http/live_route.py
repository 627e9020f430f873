"""``GET /v1/live``: a live query as Server-Sent Events.

Every message of the live query is one event, whose data is the same JSON as on NATS. Its id is ``<table_id>-<seq>``, so
that a browser, which sends it back as ``Last-Event-ID`` when it connects again, resumes without a hole. A client that
does not read is waited for, while the query's own bounded queue fills and overflows as its law says, until
``connections`` cuts it off.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from kalam.engine import Caller, Engine
from kalam.errors import InvalidValue, NotFound
from kalam.live import LiveQuery, Message
from kalam.rows.timestamp_text import read_utc_timestamp
from kalam_http.accept import check_accepts
from kalam_http.departures import until_left
from kalam_http.identity import USER_PARAMETER, caller_of
from kalam_http.routes import Routes

EVENT_STREAM = "text/event-stream"
HEARTBEAT_S = 3.5
LAST_EVENT_ID = re.compile(r"([0-9]{1,19})-([0-9]{1,19})")
PARAMETERS: list[dict[str, Any]] = [
    USER_PARAMETER,
    *(
        {"name": name, "in": "query", "required": name == "sql", "description": text, "schema": {"type": kind}}
        for name, kind, text in (
            ("sql", "string", "SELECT columns|* FROM namespace.table [WHERE …], or a SELECT that groups"),
            ("last_rows", "integer", "begin with so many of the matching rows, those changed last"),
            ("from_seq", "integer", "begin behind a change that was seen earlier"),
            ("from_time", "string", "begin with the events of a STREAM table from a time on, as RFC 3339"),
            ("table_id", "integer", "the id of the table that the change was of"),
            ("namespace", "string", "where a table named without a namespace is looked up"),
            ("integers", "string", "`text`: BIGINT values of rows are shown as text; else `number`"),
        )
    ),
    {
        "name": "Last-Event-ID",
        "in": "header",
        "required": False,
        "description": "the id of the last event that was seen: resume behind it",
        "schema": {"type": "string"},
    },
]
log = structlog.get_logger(__name__)


class Reader:
    """The client of one live query; a Sink."""

    def __init__(self) -> None:
        self.ready = asyncio.Event()

    def subject(self, query: LiveQuery) -> None:
        """None: the messages go to this one client."""

    def note(self, query: LiveQuery) -> None:
        """Something waits."""
        self.ready.set()


def live_routes(engine: Engine) -> Routes:
    """The route that opens live queries on ``engine``."""
    routes = Routes("Live queries")

    @routes.get("/v1/live", summary="Follow a live query", operation_id="live", parameters=PARAMETERS)
    async def live(request: Request) -> Response:
        """Answer the matching rows and then every change of them, as Server-Sent Events.

        The data of an event is a message of a live query: snapshot, ready, changes, heartbeat, resync or closed.
        """
        check_accepts(request.headers.get("accept"), EVENT_STREAM)
        asked = request.query_params
        if not asked.get("sql"):
            raise InvalidValue("the query parameter sql is missing", hint="/v1/live?sql=SELECT+*+FROM+ns.table")
        from_seq, table_id = _resume(request.headers.get("last-event-id"), asked)
        last_rows = None if from_seq is not None else _count(asked, "last_rows")
        bigint_as_text = _integers_as_text(asked)
        reader = Reader()
        caller = caller_of(engine, request, asked.get("namespace"), bigint_as_text=bigint_as_text)
        query = await caller.follow(
            asked["sql"],
            reader,
            last_rows=last_rows,
            from_seq=from_seq,
            from_time=None if from_seq is not None else _time(asked, "from_time"),
            table_id=table_id,
        )
        return EventStream(caller, query, reader)

    return routes


def _resume(last_event_id: str | None, asked: Mapping[str, str]) -> tuple[int | None, int | None]:
    """Where to resume: the browser's ``Last-Event-ID`` is newer than what stood in its URL."""
    if not last_event_id:
        return _count(asked, "from_seq"), _count(asked, "table_id")
    found = LAST_EVENT_ID.fullmatch(last_event_id)
    if found is None:
        raise InvalidValue(f"Last-Event-ID {last_event_id[:60]!r} is none of this server's", hint="open it without")
    return int(found[2]), int(found[1])


def _integers_as_text(asked: Mapping[str, str]) -> bool:
    given = asked.get("integers") or "number"
    if given not in ("number", "text"):
        raise InvalidValue(f"integers is number or text, found {given[:40]!r}")
    return given == "text"


def _count(asked: Mapping[str, str], name: str) -> int | None:
    text = asked.get(name)
    if not text:
        return None
    if not text.isdecimal() or len(text) > 19:
        raise InvalidValue(f"{name} is a whole number from 0, found {text[:40]!r}")
    return int(text)


def _time(asked: Mapping[str, str], name: str) -> datetime | None:
    text = asked.get(name)
    if not text:
        return None
    try:
        return read_utc_timestamp(text)
    except (ValueError, OverflowError) as exc:
        raise InvalidValue(f"{name} is a time like 2026-03-01T12:00:00Z, found {text[:40]!r}") from exc


class EventStream(Response):
    """The answer that goes on until one side ends it."""

    def __init__(self, caller: Caller, query: LiveQuery, reader: Reader) -> None:
        super().__init__(media_type=EVENT_STREAM, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self.raw_headers = [pair for pair in self.raw_headers if pair[0] != b"content-length"]
        self._caller, self._query, self._reader = caller, query, reader

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until the live query is closed or the client is gone."""
        try:
            await until_left(receive, self._send_all(send))
        finally:
            with contextlib.suppress(NotFound):  # closed already
                self._caller.unfollow(self._query.id, "client gone")

    async def _send_all(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        self._caller.begin(self._query)
        while True:
            message = await self._next()
            await send({"type": "http.response.body", "body": self._event(message), "more_body": True})
            if message.kind == "closed":
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                return

    async def _next(self) -> Message:
        while True:
            message = self._query.take()
            if message is not None:
                return message
            self._reader.ready.clear()
            try:
                async with asyncio.timeout(HEARTBEAT_S):
                    await self._reader.ready.wait()
            except TimeoutError:
                message = self._query.heartbeat()
                if message is not None:
                    return message

    def _event(self, message: Message) -> bytes:
        place = b"" if message.seq is None else b"id: %d-%d\n" % (self._query.feed_id, message.seq)
        return place + b"data: " + message.payload + b"\n\n"
