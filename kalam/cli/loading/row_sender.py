"""Batches of rows sent over NATS, a bounded number of them unanswered, and what became of each.

The connection lives in an event loop of its own thread and the caller in the main one, because a caller that waits for
a line on stdin must neither stop the answers from being read nor be deaf to ^C. A connection that is lost is not made
again by itself: batches without an answer then are neither known to be stored nor known not to be, and sending more
would only blur the line.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from operator import itemgetter
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import msgspec
import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError

from kalam.cli.address import Address
from kalam.cli.failure import HOW_TO_START, CommandFailed
from kalam.cli.refused import is_refused, not_let_in
from kalam.cli.rows_file import RowBatch

IN_FLIGHT_MAX: Final = 8
ANSWER_S: Final = 60.0
CONNECT_S: Final = 5.0
BUSY_PAUSES_S: Final = (0.1, 0.2, 0.5, *(1.0,) * 30)
"""A load that is faster than what is published of it waits for that."""
PAYLOAD_SLACK_BYTES: Final = 256  # the reply subject and the headers count too
ERROR_CODE_HEADER: Final = "Nats-Service-Error-Code"
DENIED: Final = "permissions violation"
ARROW_HEADERS: Final = {"Content-Type": "application/vnd.apache.arrow.stream"}
Answered = TypeVar("Answered")


class Fate(enum.Enum):
    """What is known of a batch."""

    STORED = "stored"
    REFUSED = "refused"
    UNKNOWN = "unknown"


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a batch. ``stored_rows`` is what is known to be stored of it, ``problem`` why not all of it is.

    ``refused`` are the rows that were refused alone, as the server told of them; ``updated_rows`` and ``skipped_rows``
    those that were there already.
    """

    batch: RowBatch
    fate: Fate
    stored_rows: int = 0
    discarded_rows: int = 0
    updated_rows: int = 0
    skipped_rows: int = 0
    refused: Sequence[dict[str, Any]] = ()
    problem: dict[str, Any] | None = None


class RowSender:
    """A connection that inserts batches. Use it as a context manager; ``on_outcome`` is called from its thread.

    ``headers`` say how the rows are to be taken; ``in_flight_max`` batches may be unanswered at a time. ``where`` says
    who logs in.
    """

    def __init__(
        self,
        url: str,
        subject: str,
        on_outcome: Callable[[Outcome], None],
        headers: Mapping[str, str] | None = None,
        in_flight_max: int = IN_FLIGHT_MAX,
        where: Address | None = None,
    ) -> None:
        self._url = url
        self._subject = subject
        self._on_outcome = on_outcome
        self._headers = dict(headers or {})
        self._in_flight_max = in_flight_max
        self._where = where or Address(source="", nats=url)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="nats", daemon=True)
        self._slots = threading.BoundedSemaphore(in_flight_max)
        self._outcomes: list[tuple[int, Outcome]] = []
        self._sent = 0
        self._failed = False
        self._error: Exception | None = None
        self._denied = False

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self._client = self._wait(self._connect())
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None) -> None:
        self._wait(self._client.close())
        self._stop()

    @property
    def payload_bytes_max(self) -> int:
        """The largest payload that the broker takes."""
        return int(self._client.max_payload) - PAYLOAD_SLACK_BYTES

    def send(self, batch: RowBatch) -> bool:
        """Send a batch once fewer than IN_FLIGHT_MAX wait; False, and nothing is sent, if an earlier one failed."""
        self._slots.acquire()
        if self._failed:
            self._slots.release()
            return False
        self._sent += 1
        asyncio.run_coroutine_threadsafe(self._insert(self._sent, batch), self._loop)
        return True

    def ask(self, subject: str, request: Any) -> Any:
        """Ask for something else of the server; its answer, or CommandFailed where there is none."""
        return self._wait(self._ask_once(subject, msgspec.json.encode(request)))

    async def _ask_once(self, subject: str, request: bytes) -> Any:
        try:
            message = await self._client.request(subject, request, timeout=ANSWER_S)
            return msgspec.json.decode(message.data)
        except NoRespondersError as exc:
            raise CommandFailed(f"error: no Kalam server listens on {subject}") from exc
        except (NatsError, OSError, msgspec.DecodeError) as exc:
            raise CommandFailed(f"error: the server did not answer: {str(exc) or type(exc).__name__}") from exc

    def finish(self) -> list[Outcome]:
        """Wait until every batch that was sent is answered or given up; return what became of each, in file order."""
        for _ in range(self._in_flight_max):
            self._slots.acquire()
        for _ in range(self._in_flight_max):
            self._slots.release()
        return [outcome for _, outcome in sorted(self._outcomes, key=itemgetter(0))]

    async def _connect(self) -> Client:
        self._lost = asyncio.Event()
        try:
            async with asyncio.timeout(CONNECT_S):
                return await nats.connect(
                    self._url,
                    name="kalam insert",
                    allow_reconnect=False,
                    max_reconnect_attempts=1,  # a first connection is tried so often, whatever allow_reconnect says
                    reconnect_time_wait=0,
                    error_cb=self._note_error,
                    closed_cb=self._note_lost,
                    **self._where.nats_options(),
                )
        except (OSError, NatsError, ValueError) as exc:
            reason = self._error or exc
            if is_refused(reason):
                raise not_let_in(self._url, self._where.login) from exc
            raise CommandFailed(
                f"error: no answer from NATS at {self._url}: {str(reason) or type(reason).__name__}\n" + HOW_TO_START
            ) from exc

    async def _note_error(self, error: Exception) -> None:
        self._error = error  # told only where no connection is made; later the request that fails says more
        if DENIED in str(error).lower():  # of which the request hears nothing
            self._denied = True
            self._lost.set()

    async def _note_lost(self) -> None:
        self._lost.set()

    async def _insert(self, place: int, batch: RowBatch) -> None:
        try:
            outcome = await self._ask(batch)
            self._failed |= outcome.fate is not Fate.STORED
            self._outcomes.append((place, outcome))
            self._on_outcome(outcome)
        finally:
            self._slots.release()

    async def _ask(self, batch: RowBatch) -> Outcome:
        """What becomes of a batch; while the server is busy with what came before it is sent again."""
        for pause_s in (*BUSY_PAUSES_S, None):
            outcome = await self._ask_now(batch)
            if pause_s is None or outcome.fate is not Fate.REFUSED or (outcome.problem or {}).get("code") != "too_busy":
                return outcome
            await asyncio.sleep(pause_s)
        raise AssertionError("the last try returns")

    async def _ask_now(self, batch: RowBatch) -> Outcome:
        if self._lost.is_set():
            return _unanswered(batch, Fate.REFUSED, "the connection to NATS was lost before it was sent")
        headers = ({**self._headers, **ARROW_HEADERS} if batch.arrow else self._headers) or None
        request = asyncio.ensure_future(
            self._client.request(self._subject, batch.payload, timeout=ANSWER_S, headers=headers)
        )
        lost = asyncio.ensure_future(self._lost.wait())
        await asyncio.wait((request, lost), return_when=asyncio.FIRST_COMPLETED)
        lost.cancel()
        if not request.done():
            request.cancel()
            if self._denied:
                detail = f"NATS does not let {self._where.login.name} publish to {self._subject}"
                return Outcome(batch=batch, fate=Fate.REFUSED, problem={"code": "permission_denied", "detail": detail})
            return _unanswered(batch, Fate.UNKNOWN, "the connection to NATS was lost before the server answered")
        try:
            return _outcome(batch, request.result())
        except NoRespondersError:
            return _unanswered(batch, Fate.REFUSED, f"no Kalam server listens on {self._subject}")
        except (NatsError, OSError, asyncio.CancelledError) as exc:
            return _unanswered(batch, Fate.UNKNOWN, f"the server did not answer: {str(exc) or type(exc).__name__}")

    def _wait(self, waiting: Coroutine[Any, Any, Answered]) -> Answered:
        return asyncio.run_coroutine_threadsafe(waiting, self._loop).result()

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def _unanswered(batch: RowBatch, fate: Fate, detail: str) -> Outcome:
    return Outcome(batch=batch, fate=fate, problem={"code": "broker_unavailable", "detail": detail})


def _outcome(batch: RowBatch, message: Msg) -> Outcome:
    body: Any = None
    with contextlib.suppress(msgspec.DecodeError):
        body = msgspec.json.decode(message.data)
    match body:
        case {"rows": int(rows)} if ERROR_CODE_HEADER not in (message.headers or {}):
            discarded = int(body.get("discarded", 0))
            return Outcome(
                batch=batch,
                fate=Fate.STORED,
                stored_rows=rows - discarded,
                discarded_rows=discarded,
                updated_rows=int(body.get("updated", 0)),
                skipped_rows=int(body.get("skipped", 0)),
                refused=body.get("errors", ()),
            )
        case {"code": _, "stored": int(stored)}:
            return Outcome(batch=batch, fate=Fate.REFUSED, stored_rows=stored, problem=body)
        case {"code": _, "stored": _}:
            return Outcome(batch=batch, fate=Fate.UNKNOWN, problem=body)
        case {"code": _}:
            return Outcome(batch=batch, fate=Fate.REFUSED, problem=body)
        case _:
            return _unanswered(batch, Fate.UNKNOWN, f"the answer is none of Kalam's: {message.data[:80]!r}")
