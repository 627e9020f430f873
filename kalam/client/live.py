"""A live query as an asynchronous iterator that comes back by itself.

The law: the caller sees every change once and in order, for as long as the server can still tell. A gap in the numbers
of the messages, a ``resync``, silence for longer than heartbeats leave, a lost connection or a stopped server lead to
the same thing: the live query is opened again behind the last change that was seen. Only where the server does not
have those changes any more does the stream begin anew: with a change ``reset``, and then the rows as they are now.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import itemgetter
from typing import Any, Literal, Self

import msgspec
from nats.errors import Error as NatsError

from kalam.client.link import Link
from kalam.errors import (
    BrokerUnavailable,
    Cancelled,
    CursorExpired,
    Internal,
    InvalidValue,
    KalamError,
    TooBusy,
    Unavailable,
)
from kalam.tasks import heeding

SEQ_HEADER = "Kalam-Live-Seq"
SILENCE_S = 6.0
LOOK_S = 0.5
RETRY_PAUSE_S = 0.2
PENDING_MESSAGES_MAX = 1 << 16
PENDING_BYTES_MAX = 64 << 20
RESUMABLE = ("shutdown", "no subscriber", "internal")

Op = Literal["snapshot", "insert", "update", "delete", "reset"]


@dataclass(frozen=True, slots=True)
class Change:
    """What happened in the result. A ``snapshot`` is a row that was there at the beginning; its ``seq`` is None.

    ``old`` has the former values of the columns that an update changed. After a ``reset`` all that was seen before is
    void, and the rows come anew.
    """

    op: Op
    seq: int | None = None
    row: dict[str, Any] | None = None
    old: dict[str, Any] | None = None


class LiveClosed(Cancelled):
    """The server ended the live query for good; ``reason`` says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the live query was closed: {reason}")
        self.reason = reason


class _Complete(Exception):
    """The rows of the beginning have all been given, and nobody wants more."""


class _Broken(Exception):
    """The stream has a hole or has ended; it has to be opened again."""


class LiveRows:
    """The changes of a live query: ``async for change in live``. Made by ``Kalam.live``.

    ``columns`` are the names and SQL types of the columns, known from the first change on.
    ``seq`` and ``table_id`` are where a later ``live`` can go on (``token`` is both as one text); with ``key``, the
    name of a selected column that tells the rows apart, or the names of several that do, ``rows`` is the result as it
    is now.
    """

    def __init__(
        self,
        link: Link,
        prefix: str,
        user: str,
        sql: str,
        *,
        last_rows: int | None,
        from_seq: int | None,
        from_time: datetime | None,
        table_id: int | None,
        key: str | Sequence[str] | None,
        follow: bool,
        timeout_s: float,
    ) -> None:
        self._link, self._subject, self._sql, self._timeout_s = link, f"{prefix}.api.{user}.live", sql, timeout_s
        self._last_rows, self._key_of, self._follow = last_rows, _key_getter(key), follow
        self.seq, self.table_id, self._from_time = from_seq, table_id, from_time
        self.columns: tuple[tuple[str, str], ...] = ()
        self.resumes = 0
        self._rows: dict[Any, dict[str, Any]] = {}
        self._subscription: Any = None
        self._open_id: str | None = None
        self._rows_were_seen = self._was_open = False
        self._resumable = True
        self._changes = self._run()

    def __aiter__(self) -> Self:
        """The changes themselves."""
        return self

    async def __anext__(self) -> Change:
        """The next change; waits for it."""
        return await anext(self._changes)

    async def __aenter__(self) -> Self:
        """Close the live query when the block ends."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close it."""
        await self.close()

    @property
    def token(self) -> str | None:
        """Where to go on later, as ``<table_id>-<seq>``.

        None before the result is complete, and of a bucket, which keeps no changes to go on with.
        """
        known = self._resumable and self.seq is not None and self.table_id is not None
        return f"{self.table_id}-{self.seq}" if known else None

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The result as it is now; needs ``key``."""
        if self._key_of is None:
            raise ValueError("live(…, key=…) names the column that tells the rows apart; without it none are kept")
        return list(self._rows.values())

    async def close(self) -> None:
        """End the live query on the server too."""
        await self._changes.aclose()  # type: ignore[attr-defined]
        await self._leave()

    async def _run(self) -> AsyncIterator[Change]:
        try:
            while True:
                try:
                    async for change in self._listen():
                        self._keep(change)
                        yield change
                except _Complete:
                    return
                except _Broken:
                    self.resumes += 1
                except CursorExpired:
                    self.seq = self.table_id = None
                    reset = Change("reset")
                    self._keep(reset)
                    yield reset
                except (TooBusy, Unavailable, NatsError, OSError) as exc:
                    if self._link.closed:
                        raise BrokerUnavailable("the connection was closed") from exc
                    if not self._was_open and isinstance(exc, KalamError):
                        raise
                    if not self._was_open:
                        raise BrokerUnavailable(f"the live query was not opened: {exc or type(exc).__name__}") from exc
                    await asyncio.sleep(RETRY_PAUSE_S)
        finally:
            await self._leave()

    async def _listen(self) -> AsyncIterator[Change]:
        """Open the live query and give its changes; raises _Broken where it has to be opened again."""
        await self._leave()
        await self._enter()
        number, generation = 0, self._link.generation
        while True:
            msg = await self._next(generation)
            told, message = _read(msg)
            if 0 < told <= number:
                continue  # the first one is sent again where the server cannot know that it arrived
            number += 1
            if told != number:
                raise _Broken
            match message["type"]:
                case "snapshot":
                    for row in message["rows"]:
                        yield Change("snapshot", None, row)
                case "changes":
                    for change in message["changes"]:
                        self.seq = change["seq"]
                        yield Change(change["op"], change["seq"], change["row"], change.get("old"))
                case "ready" | "heartbeat":
                    self.seq, self.table_id = message["seq"], message["table_id"]
                    if not self._follow:
                        raise _Complete
                case "resync":
                    raise _Broken
                case "closed":
                    self._open_id = None
                    self._check_resumable(message["reason"])

    def _check_resumable(self, reason: str) -> None:
        if reason.startswith("cursor_expired"):
            raise CursorExpired(reason)
        if reason.startswith(RESUMABLE):
            raise _Broken
        raise LiveClosed(reason)

    async def _enter(self) -> None:
        asked: dict[str, Any] = {"sql": self._sql}
        if self.seq is not None:
            asked["from_seq"] = self.seq
            if self.table_id is not None:
                asked["table_id"] = self.table_id
        else:
            if self._last_rows is not None:
                asked["last_rows"] = self._last_rows
            if self._from_time is not None:
                asked["from_time"] = self._from_time.astimezone(UTC).isoformat()
        if self.seq is None and self._rows_were_seen:
            raise CursorExpired("the rows were not complete when the live query broke off")
        try:
            question = msgspec.json.encode(asked)
        except (TypeError, ValueError, OverflowError) as exc:
            raise InvalidValue(f"the live query cannot be sent: {exc}") from exc
        body = await self._link.ask(self._subject, question, timeout_s=self._timeout_s)
        try:
            answer = msgspec.json.decode(body)
            self._open_id, self.table_id = answer["id"], answer["table_id"]
            self._resumable = answer.get("resumable", True)
            self.columns = tuple((column["name"], column["type"]) for column in answer["columns"])
        except (msgspec.MsgspecError, LookupError, TypeError) as exc:
            raise Internal(f"the answer is none of Kalam's: {body[:80]!r}") from exc
        client = await self._link.client(self._timeout_s)
        self._subscription = await client.subscribe(
            answer["subject"], pending_msgs_limit=PENDING_MESSAGES_MAX, pending_bytes_limit=PENDING_BYTES_MAX
        )
        self._was_open = True

    async def _next(self, generation: int) -> Any:
        """The next message; raises _Broken when the connection was lost or nothing has come for too long."""
        waited = 0.0
        while waited < SILENCE_S:
            if self._link.generation != generation:
                raise _Broken
            try:
                return await heeding(self._subscription.next_msg(LOOK_S))
            except TimeoutError:
                waited += LOOK_S
        raise _Broken

    def _keep(self, change: Change) -> None:
        """Follow the result, if somebody wants it."""
        self._rows_were_seen = change.op != "reset" and self.seq is None
        if self._key_of is None:
            return
        if change.op == "reset":
            self._rows.clear()
        elif change.row is not None and change.op == "delete":
            self._rows.pop(self._key_of(change.row), None)
        elif change.row is not None:
            self._rows[self._key_of(change.row)] = change.row

    async def _leave(self) -> None:
        subscription, self._subscription = self._subscription, None
        query_id, self._open_id = self._open_id, None
        with contextlib.suppress(NatsError, OSError, KalamError):
            if subscription is not None:
                await subscription.unsubscribe()
            if query_id is not None:
                client = await self._link.client(0.05)
                await client.publish(f"{self._subject}.{query_id}.close")


def _key_getter(key: str | Sequence[str] | None) -> Callable[[dict[str, Any]], Any] | None:
    if key is None:
        return None
    return itemgetter(*([key] if isinstance(key, str) else key))


def _read(msg: Any) -> tuple[int, dict[str, Any]]:
    """The number and the content of a message; raises Internal for one that is none of Kalam's."""
    try:
        message = msgspec.json.decode(msg.data, type=dict[str, Any])
        return int((msg.headers or {}).get(SEQ_HEADER, "0")), {"type": None} | message
    except (msgspec.MsgspecError, ValueError) as exc:
        raise Internal(f"a message of the live query is none of Kalam's: {msg.data[:80]!r}") from exc
