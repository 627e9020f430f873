"""The wait for JetStream at a start: a cluster gives nothing of it before its servers have elected leaders.

What is asked before that gets no answer, or that JetStream is not available for the moment; a stream without a leader
is listed by its name alone. Where there is no JetStream at all, or Kalam may not ask it, nothing is waited for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import msgspec
import structlog
from nats import errors as nats_errors

from kalam.backoff import Backoff
from kalam.errors import BrokerUnavailable
from kalam_nats.broker.connection import BrokerConnection
from kalam_nats.broker.jetstream import NO_ROOM_CODE, JetStream, Refused, RefusedError, unavailable
from kalam_nats.streams.takeover import OwnStreams, Stream

ANSWER_S = 1.0
"""How long one question is waited for: what is asked before there is a leader is lost."""
PAUSE_S, PAUSE_S_MAX = 0.1, 1.0
STREAMS_S = 10.0
"""So long a start waits for the leaders of single streams: one that is gone for good is no reason not to start."""

log = structlog.get_logger(__name__)


class Patience(msgspec.Struct, frozen=True):
    """How long a start waits for JetStream, and what ends it before."""

    within_s: float
    stopping: asyncio.Event


class _Wait:
    """One wait: says once that it waits, and once that it is over."""

    def __init__(self, patience: Patience) -> None:
        self._patience, self._began = patience, time.monotonic()
        self._backoff = Backoff(PAUSE_S, PAUSE_S_MAX)
        self.told = False

    def is_over(self, within_s: float) -> bool:
        """Whether it has lasted long enough."""
        return self._patience.stopping.is_set() or time.monotonic() - self._began >= within_s

    async def pause(self, why: str) -> None:
        """Wait a while."""
        if not self.told:
            log.warning(
                "JetStream cannot tell yet, as in a cluster that has no leader: waiting for it",
                seconds_max=self._patience.within_s,
                reason=why,
            )
        self.told = True
        await asyncio.sleep(self._backoff.failed())


async def when_led(
    connection: BrokerConnection, jetstream: JetStream, look: Callable[[], Awaitable[OwnStreams]], patience: Patience
) -> list[Stream]:
    """The streams that ``look`` finds, as soon as JetStream can tell.

    Raises BrokerUnavailable when it still cannot after the time that there is, or is told to stop.
    """
    wait = _Wait(patience)
    with connection.denial("$JS.API.INFO") as denied:
        while True:
            try:
                await jetstream.request("INFO", timeout_s=ANSWER_S)
                found = await look()
            except (BrokerUnavailable, RefusedError) as exc:
                if denied.done():
                    raise Refused(
                        "the broker lets Kalam not publish on $JS.API.INFO",
                        hint="grant Kalam's user to publish $JS.API.>",
                    ) from exc
                if not _passes(exc) or wait.is_over(patience.within_s):
                    raise _final(exc, patience) from exc
                await wait.pause(str(exc))
                continue
            if not found.leaderless or wait.is_over(min(STREAMS_S, patience.within_s)):
                break
            await wait.pause(f"no leader of {', '.join(found.leaderless)}")
    if found.leaderless:
        log.warning("streams have no leader, and their tables are in trouble until they do", streams=found.leaderless)
    elif wait.told:
        log.info("JetStream answers")
    return list(found.streams)


def _passes(exc: BrokerUnavailable | RefusedError) -> bool:
    """Whether this is what a cluster says before it has a leader."""
    if isinstance(exc, RefusedError):
        return exc.error.code == NO_ROOM_CODE
    return not isinstance(exc.__cause__, nats_errors.NoRespondersError)


def _final(exc: BrokerUnavailable | RefusedError, patience: Patience) -> BrokerUnavailable:
    if patience.stopping.is_set():
        return BrokerUnavailable("the start was ended while it waited for JetStream")
    told = unavailable(exc, "to tell of its streams") if isinstance(exc, RefusedError) else exc
    if not _passes(exc):
        return told
    return BrokerUnavailable(f"{told.detail}; it was waited for {patience.within_s:g} s (broker_start_s)")
