"""Streams that others made, read as they are: nothing is configured, acknowledged or changed.

A read has a named consumer of its own, without acks and in the memory of one server, gone when the read ends. Where
a consumer is not possible (a work queue, a stream that keeps messages until all its consumers have them, a limit of
consumers) DIRECT.GET reads the same messages without being seen.
"""

from __future__ import annotations

import asyncio
import difflib
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import msgspec
from nats import errors as nats_errors

from kalam.errors import BrokerUnavailable, NotFound, PermissionDenied, Unsupported
from kalam.foreign import BUCKET_PREFIX, Over
from kalam.names import listed
from kalam.rows.foreign.messages import ForeignMessages
from kalam.rows.values import EPOCH
from kalam.sql.queries.scan_bounds import ScanBounds
from kalam.tables.foreign.port import ForeignState
from kalam_nats.broker.connection import BrokerConnection
from kalam_nats.broker.jetstream import NOT_FOUND_CODES, ApiError, Refused, RefusedError
from kalam_nats.streams.foreign_pulls import ConsumerPulls, ReadInterrupted, direct_batch
from kalam_nats.streams.foreign_states import check_bucket, check_direct, check_no_objects, is_unseen, state_of
from kalam_nats.streams.foreign_subjects import Filter, filter_of, subjects_of_keys
from kalam_nats.streams.reader import CONSUMER, NANOSECONDS, PULL_BYTES, PULL_EVENTS
from kalam_nats.streams.takeover import DATA_ID

CONSUMER_LIMIT_CODE = 10026
ATTEMPTS = 5
PAUSE_S = 0.2
NAMED_MAX = 20


class ForeignStreams:
    """Reads streams; a ForeignPort."""

    def __init__(self, connection: BrokerConnection, timeout_s: float) -> None:
        self._connection, self._timeout_s = connection, timeout_s

    # What there is.

    async def states(self) -> list[ForeignState]:
        """Every stream of the account that holds no Kalam's rows."""
        return await self._states(Over())

    async def _states(self, over: Over) -> list[ForeignState]:
        found: list[ForeignState] = []
        offset = 0
        while True:
            page = await self._ask(over, "STREAM.LIST", {"offset": offset}, ["STREAM.LIST"])
            streams = page.get("streams") or []
            offset += len(streams)
            found += [state_of(info, Over()) for info in streams if not _is_kalams(info["config"])]
            if not streams or offset >= page.get("total", 0):
                return sorted(found, key=lambda state: state.name)

    async def state(self, over: Over) -> ForeignState:
        """What a stream holds now."""
        info = await self._info(over)
        if over.bucket is not None:
            check_bucket(info["config"])
        elif is_unseen(info["config"]):
            check_direct(info["config"])
        return state_of(info, over)

    async def _info(self, over: Over, subjects: str | None = None) -> dict[str, Any]:
        body = None if subjects is None else {"subjects_filter": subjects}
        try:
            info = await self._ask(over, f"STREAM.INFO.{over.stream}", body, _reading(over))
        except RefusedError as exc:
            if exc.error.err_code in NOT_FOUND_CODES:
                raise await self._missing(over) from exc
            raise Refused(f"the broker refused the state of the stream {over.stream}: {exc}") from exc
        if _is_kalams(info["config"]):
            raise Unsupported(f"the stream {over.stream} holds the rows of a Kalam: query the tables that they are of")
        return info

    async def _missing(self, over: Over) -> NotFound:
        where = "" if over.domain is None else f" in the domain {over.domain}"
        try:
            names = [state.name for state in await self._states(Over(domain=over.domain))]
        except (RefusedError, PermissionDenied, BrokerUnavailable, NotFound):
            names = []
        what, name = "stream", over.stream
        buckets = {each.removeprefix(BUCKET_PREFIX): each for each in names if each.startswith(BUCKET_PREFIX)}
        called = {each: each for each in names if each not in buckets.values()}
        if over.bucket is not None:
            check_no_objects(over.bucket, names)
            what, name, called = "bucket", over.bucket, {each: each for each in buckets}
        else:  # DESCRIBE STREAM takes the name of a bucket, too, and nobody calls its stream anything else
            called |= {each: f"the bucket {each}" for each in buckets}
        near = difflib.get_close_matches(name, called, NAMED_MAX, cutoff=0.0)
        there = f"there are {listed([called[each] for each in near])}" if near else "none is shown to Kalam"
        hint = f"{there}; SHOW STREAMS tells of them. A {what} behind a leaf node is found with DOMAIN 'name'"
        return NotFound(f"there is no {what} {name!r}{where}", hint=hint)

    async def _ask(self, over: Over, api: str, body: Any, needed: Sequence[str]) -> dict[str, Any]:
        """Ask JetStream's API; raises RefusedError, PermissionDenied and BrokerUnavailable."""
        subject, client = _api(over, api), self._connection.client
        payload = b"" if body is None else msgspec.json.encode(body)
        with self._connection.denial(subject) as denied:
            asking = asyncio.ensure_future(client.request(subject, payload, timeout=self._timeout_s))
            try:
                either: set[asyncio.Future[Any]] = {asking, denied}
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                if denied.done() and not asking.done():
                    raise _denied(over, subject, needed)
                message = await asking
            except nats_errors.NoRespondersError as exc:
                what = "JetStream" if over.domain is None else f"a JetStream domain {over.domain!r}"
                raise NotFound(f"{what} is not to be found at the broker") from exc
            except (nats_errors.Error, TimeoutError, OSError) as exc:
                raise BrokerUnavailable(f"JetStream does not answer: {exc or type(exc).__name__}") from exc
            finally:
                asking.cancel()
        answer: dict[str, Any] = msgspec.json.decode(message.data)
        if "error" in answer:
            raise RefusedError(msgspec.convert(answer["error"], ApiError))
        return answer

    # Reading.

    async def count(self, over: Over, table_id: int) -> int | None:
        """How many messages the table reads, which a consumer of them tells; None where there can be none."""
        info = await self._info(over)
        if is_unseen(info["config"]):
            return None
        config = _config(info, ScanBounds()) | _filtered(over.subject)
        try:
            async with self._consumer(over, table_id, config) as (_, made):
                return int(made["num_pending"])
        except RefusedError:
            return None

    async def seq_before(self, over: Over, table_id: int, moment: datetime) -> int:
        """The sequence of the last message that was stored before a time."""
        info = await self._info(over)
        bounds = ScanBounds(from_us=(moment - EPOCH) // timedelta(microseconds=1))
        if is_unseen(info["config"]):
            async for messages in self._directly(over, info, bounds, Filter(None, None), batch=1):
                return messages.seqs[0] - 1
            return int(info["state"]["last_seq"])
        try:
            async with self._consumer(over, table_id, _config(info, bounds)) as (_, made):
                return int(made["delivered"]["stream_seq"])
        except RefusedError as exc:
            raise Refused(f"the broker refused to find a time in the stream {over.stream}: {exc}") from exc

    async def read(self, over: Over, table_id: int, bounds: ScanBounds) -> AsyncIterator[ForeignMessages]:
        """The messages within these bounds, a pull at a time."""
        info = await self._info(over)
        last_seq = info["state"]["last_seq"]
        upto_seq = last_seq if bounds.upto_seq is None else min(bounds.upto_seq, last_seq)
        bounds = msgspec.structs.replace(bounds, upto_seq=upto_seq)
        wanted = filter_of(over.subject, bounds.tokens)
        attempts = 0
        while bounds.after_seq < upto_seq:
            try:
                async for messages in self._messages(over, table_id, info, bounds, wanted):
                    attempts, last = 0, messages.seqs[-1]
                    bounds = msgspec.structs.replace(bounds, after_seq=last, from_us=None)
                    if part := _within(messages, upto_seq, bounds.upto_us):
                        yield part
                return
            except ReadInterrupted as exc:
                attempts += 1
                if attempts == ATTEMPTS:
                    raise BrokerUnavailable(f"the stream {over.stream} cannot be read: {exc}") from exc
                await asyncio.sleep(PAUSE_S * attempts)
                info = await self._info(over)

    async def _messages(
        self, over: Over, table_id: int, info: Mapping[str, Any], bounds: ScanBounds, wanted: Filter
    ) -> AsyncIterator[ForeignMessages]:
        if is_unseen(info["config"]):
            check_direct(info["config"])
            async for messages in self._directly(over, info, bounds, wanted):
                yield messages
            return
        subject = await self._filter(over, wanted)
        try:
            async for messages in self._consumed(over, table_id, info, bounds, subject):
                yield messages
        except RefusedError as exc:
            if exc.error.err_code != CONSUMER_LIMIT_CODE:
                raise Refused(f"the broker refused to read the stream {over.stream}: {exc}") from exc
            check_direct(info["config"], "has as many consumers as it may have")
            async for messages in self._directly(over, info, bounds, wanted):
                yield messages

    async def _filter(self, over: Over, wanted: Filter) -> str | None:
        """The filter subject for the broker: the wider one where there are subjects that no other matches."""
        if wanted.shorter is None or not await self._has(over, wanted.shorter):
            return wanted.narrow
        return wanted.base if await self._has(over, wanted.narrow) else wanted.shorter

    async def _has(self, over: Over, pattern: str | None) -> bool:
        return bool((await self._info(over, pattern))["state"].get("subjects"))

    async def _consumed(
        self, over: Over, table_id: int, info: Mapping[str, Any], bounds: ScanBounds, subject: str | None
    ) -> AsyncIterator[ForeignMessages]:
        config = _config(info, bounds) | _filtered(subject)
        async with self._consumer(over, table_id, config) as (name, made):
            count = made["num_pending"]
            if bounds.upto_seq is not None:
                count = min(count, bounds.upto_seq - bounds.after_seq)
            api = _api(over, f"CONSUMER.MSG.NEXT.{over.stream}.{name}")
            refusal = _denied(over, api, _reading(over))
            async for messages in ConsumerPulls(self._connection, api, count, refusal).messages():
                yield messages
                if bounds.upto_seq is not None and messages.seqs[-1] >= bounds.upto_seq:
                    return

    async def read_keys(
        self, over: Over, table_id: int, bounds: ScanBounds, *, newest: bool
    ) -> AsyncIterator[ForeignMessages]:
        """The messages of a bucket within these bounds, or the last of each key, until there are no more.

        What is read again after a read that broke off comes again.
        """
        for subject in subjects_of_keys(bounds.tokens, bounds.key):
            async for messages in self._read_keys(over, table_id, bounds, subject, newest=newest):
                yield messages

    async def _read_keys(
        self, over: Over, table_id: int, bounds: ScanBounds, subject: str | None, *, newest: bool
    ) -> AsyncIterator[ForeignMessages]:
        attempts = 0
        while True:
            info = await self._info(over)
            try:
                async for messages in self._keys(over, table_id, info, bounds, subject, newest=newest):
                    attempts = 0
                    if not newest:
                        bounds = msgspec.structs.replace(bounds, after_seq=messages.seqs[-1], from_us=None)
                    yield messages
                return
            except ReadInterrupted as exc:
                attempts += 1
                if attempts == ATTEMPTS:
                    raise BrokerUnavailable(f"the {over.called} cannot be read: {exc}") from exc
                await asyncio.sleep(PAUSE_S * attempts)

    async def _keys(
        self,
        over: Over,
        table_id: int,
        info: Mapping[str, Any],
        bounds: ScanBounds,
        subject: str | None,
        *,
        newest: bool,
    ) -> AsyncIterator[ForeignMessages]:
        config = _config(info, bounds) | _filtered(subject)
        if newest:
            config |= {"deliver_policy": "last_per_subject", "filter_subject": config.get("filter_subject", ">")}
            config.pop("opt_start_seq", None)
        try:
            async with self._consumer(over, table_id, config) as (name, made):
                api = _api(over, f"CONSUMER.MSG.NEXT.{over.stream}.{name}")
                refusal = _denied(over, api, _reading(over))
                pulls = ConsumerPulls(self._connection, api, made["num_pending"], refusal, to_the_end=True)
                async for messages in pulls.messages():
                    yield messages
        except RefusedError as exc:
            if exc.error.err_code != CONSUMER_LIMIT_CODE:
                raise Refused(f"the broker refused to read the {over.called}: {exc}") from exc
            check_direct(info["config"], "has as many consumers as it may have")
            bounds = msgspec.structs.replace(bounds, upto_seq=None)
            async for messages in self._directly(over, info, bounds, Filter(None, subject)):
                yield messages

    async def last_of_subjects(self, over: Over, table_id: int, count: int) -> AsyncIterator[ForeignMessages]:
        """The last message of each subject, as far as a consumer can tell them."""
        info = await self._info(over)
        if is_unseen(info["config"]):
            return
        config = _config(info, ScanBounds()) | {"deliver_policy": "last_per_subject", "filter_subject": ">"}
        config.pop("opt_start_seq", None)
        async with self._consumer(over, table_id, config) as (name, made):
            api = _api(over, f"CONSUMER.MSG.NEXT.{over.stream}.{name}")
            pulls = ConsumerPulls(
                self._connection, api, min(made["num_pending"], count), _denied(over, api, _reading(over))
            )
            async for messages in pulls.messages():
                yield messages

    @asynccontextmanager
    async def _consumer(
        self, over: Over, table_id: int, config: Mapping[str, Any]
    ) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """A consumer for as long as the block runs."""
        name = f"kalam-{table_id}-{uuid.uuid4().hex[:12]}"
        subject = config.get("filter_subject")
        api = f"CONSUMER.CREATE.{over.stream}.{name}" + (f".{subject}" if subject else "")
        body = {"stream_name": over.stream, "config": {**config, "name": name}}
        made = await self._ask(over, api, body, _reading(over))
        try:
            yield name, made
        finally:
            client = self._connection.client if self._connection.connected else None
            if client is not None:
                await client.publish(_api(over, f"CONSUMER.DELETE.{over.stream}.{name}"))

    async def _directly(
        self, over: Over, info: Mapping[str, Any], bounds: ScanBounds, wanted: Filter, batch: int = PULL_EVENTS
    ) -> AsyncIterator[ForeignMessages]:
        """The messages by DIRECT.GET, which looks at all of them: the filter is ours."""
        api = _api(over, f"DIRECT.GET.{over.stream}")
        refusal = _denied(over, api, _reading_directly(over))
        after_seq, from_us = bounds.after_seq, bounds.from_us
        upto_seq = info["state"]["last_seq"] if bounds.upto_seq is None else bounds.upto_seq
        while after_seq < upto_seq:
            request: dict[str, Any] = {"seq": after_seq + 1, "batch": batch, "max_bytes": PULL_BYTES}
            if from_us is not None and not after_seq:
                del request["seq"]
                request["start_time"] = _moment_text(from_us)
            messages = await direct_batch(self._connection, api, request, refusal)
            if not len(messages):
                return
            after_seq = messages.seqs[-1]
            if part := wanted.part(messages):
                yield part


def _api(over: Over, api: str) -> str:
    return f"$JS.API.{api}" if over.domain is None else f"$JS.{over.domain}.API.{api}"


def _reading(over: Over) -> list[str]:
    """What Kalam publishes to read a stream by a consumer."""
    apis = ("STREAM.INFO.{}", "CONSUMER.CREATE.{}.>", "CONSUMER.MSG.NEXT.{}.>", "CONSUMER.DELETE.{}.>")
    return [api.format(over.stream) for api in apis]


def _reading_directly(over: Over) -> list[str]:
    return [f"STREAM.INFO.{over.stream}", f"DIRECT.GET.{over.stream}"]


def _denied(over: Over, subject: str, needed: Sequence[str]) -> PermissionDenied:
    grants = [_api(over, api) for api in needed] or [subject]
    return PermissionDenied(
        f"the broker lets Kalam not publish on {subject}", hint=f"grant Kalam's user to publish {', '.join(grants)}"
    )


def _is_kalams(config: Mapping[str, Any]) -> bool:
    return DATA_ID in (config.get("metadata") or {})


def _config(info: Mapping[str, Any], bounds: ScanBounds) -> dict[str, Any]:
    """The configuration of a consumer that begins where the bounds do."""
    config: dict[str, Any] = dict(CONSUMER)
    if bounds.from_us is not None and not bounds.after_seq:
        config |= {"deliver_policy": "by_start_time", "opt_start_time": _moment_text(bounds.from_us)}
    else:
        config["opt_start_seq"] = bounds.after_seq + 1
    limit_ns = (info["config"].get("consumer_limits") or {}).get("inactive_threshold")
    if limit_ns:
        config["inactive_threshold"] = min(limit_ns, 10 * NANOSECONDS)
    return config


def _filtered(subject: str | None) -> dict[str, Any]:
    return {} if subject is None else {"filter_subject": subject}


def _moment_text(us: int) -> str:
    return (EPOCH + timedelta(microseconds=us)).isoformat().replace("+00:00", "Z")


def _within(messages: ForeignMessages, upto_seq: int, upto_us: int | None) -> ForeignMessages | None:
    """Those up to a sequence and a time; None for none."""
    places = range(len(messages))
    if messages.seqs[-1] > upto_seq or upto_us is not None:
        until_ns = None if upto_us is None else upto_us * 1_000 + 999
        kept = [
            place
            for place in places
            if messages.seqs[place] <= upto_seq and (until_ns is None or messages.times_ns[place] <= until_ns)
        ]
        return messages.only(kept) if kept else None
    return messages
