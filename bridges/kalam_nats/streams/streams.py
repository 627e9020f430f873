"""STREAM tables on JetStream: one stream for each, whose limits are the table's options."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from itertools import chain
from typing import Any

import msgspec
import structlog
from nats import errors as nats_errors

from kalam.errors import AlreadyExists, BrokerUnavailable, InvalidOption, KalamError, TableNotFound, Unavailable
from kalam.names import numbered
from kalam.schema import StreamStorage, Table
from kalam.storage.log.troubles import Troubles
from kalam.tables.ports import Acked, Events, StoredEvents, StreamState
from kalam.tables.stream_ends import StreamEnds
from kalam_nats.broker.connection import BrokerConnection
from kalam_nats.broker.guarded_client import header_block, with_trace
from kalam_nats.broker.interest import Interest
from kalam_nats.broker.jetstream import NOT_FOUND_CODES, JetStream, NoStreamError, Refused, RefusedError, unavailable
from kalam_nats.streams.publisher import Message, StreamPublisher
from kalam_nats.streams.reader import StreamReader
from kalam_nats.streams.takeover import DATA_ID, GENERATION, TABLE_ID, Stream
from kalam_nats.subjects import Subjects

log = structlog.get_logger(__name__)

NANOSECONDS = 1_000_000_000
DUPLICATE_WINDOW_S = 120
DELETES_INFLIGHT = 64
LOOKS_INFLIGHT = 100
EVENT_PARTS = StoredEvents.__struct_fields__
ALTERABLE = ("subjects", "max_msgs", "max_age", "num_replicas", "duplicate_window")
NAME_TAKEN_CODE = 10058
"""Another stream has that name."""
OPTION_ERROR_CODES = frozenset({10052, 10074, 10005})
NO_MESSAGE_CODES = frozenset({10043, 10057})


class Streams:
    """The streams of STREAM tables; a StreamPort."""

    def __init__(
        self,
        connection: BrokerConnection,
        jetstream: JetStream,
        subjects: Subjects,
        data_id: str,
        window: int,
        troubles: Troubles,
        ends: StreamEnds,
        generation: int,
    ) -> None:
        self._connection, self._jetstream, self._subjects, self._ends = connection, jetstream, subjects, ends
        self._data_id, self._troubles, self._generation = data_id, troubles, generation
        self._dropped: set[int] = set()
        self._interest = Interest(connection)
        self._reader = StreamReader(connection, jetstream)
        self._publisher = StreamPublisher(connection, jetstream, window, state=self.state, events=self._events_between)

    def subject(self, table: Table) -> str:
        """The subject to subscribe to."""
        name = table.name
        return self._subjects.stream_event_subjects(name.namespace, name.table, keyed=_keyed(table))

    def stream_name(self, table: Table) -> str:
        """The JetStream stream's name."""
        return self._subjects.stream_name(table.name.namespace, table.name.table)

    async def create(self, table: Table) -> None:
        """Make the stream; one of an older table of this name and data directory is replaced.

        Raises TableNotFound for a table that was dropped: whoever still looks at it must not bring its stream back.
        """
        self._check_there(table)
        self._publisher.forget(table)
        try:
            await self._jetstream.request(f"STREAM.CREATE.{self.stream_name(table)}", self.configuration(table))
            self._troubles.clear(table.table_id, "stream")
        except RefusedError as exc:
            if exc.error.err_code in OPTION_ERROR_CODES:
                raise InvalidOption(f"the broker refused the options of table {table.name}: {exc}") from exc
            if exc.error.err_code != NAME_TAKEN_CODE:
                raise unavailable(exc, f"the stream of table {table.name}") from exc
            await self._replace(table)

    def _check_there(self, table: Table) -> None:
        """The stream is found by its name, and a younger table may have it by now."""
        if table.table_id in self._dropped:
            raise TableNotFound(f"table {table.name} was dropped")

    async def _replace(self, table: Table) -> None:
        """Take the place of an older table's stream; the table's own one keeps its events."""
        info = await self._jetstream.request(f"STREAM.INFO.{self.stream_name(table)}")
        self._check_own(info["config"])
        owner = info["config"]["metadata"].get(TABLE_ID)
        if owner == str(table.table_id):
            await self.alter(table)
            return
        if owner not in map(str, self._dropped):
            name = self.stream_name(table)
            raise AlreadyExists(
                f"the JetStream stream {name} holds {numbered(info['state']['messages'], 'event')} of a table that the "
                "catalogue does not name",
                hint=f"remove it with `nats stream rm {name}`, or take another name",
            )
        await self._jetstream.request(f"STREAM.DELETE.{self.stream_name(table)}")
        await self._jetstream.request(f"STREAM.CREATE.{self.stream_name(table)}", self.configuration(table))

    def _check_own(self, config: Mapping[str, Any]) -> None:
        owner = (config.get("metadata") or {}).get(DATA_ID)
        if owner != self._data_id:
            whose = f"belongs to the data directory {owner}" if owner else "was not made by Kalam"
            raise Unavailable(
                f"the JetStream stream {config['name']} {whose}; two servers cannot share one prefix on one broker",
                hint="set another subject_prefix, or remove the stream",
            )

    def configuration(self, table: Table) -> dict[str, Any]:
        """JetStream's configuration of the table's stream."""
        options = table.stream_options
        age_ns = (options.retention_s or 0) * NANOSECONDS
        duplicates_ns = DUPLICATE_WINDOW_S * NANOSECONDS
        return {
            "name": self.stream_name(table),
            "subjects": [self.subject(table)],
            "retention": "limits",
            "discard": "old",
            "max_msgs": options.max_buffer_rows,
            "max_age": age_ns,
            "max_bytes": -1,
            "max_consumers": -1,
            "storage": "memory" if options.storage is StreamStorage.MEMORY else "file",
            "num_replicas": options.replicas,
            "duplicate_window": min(duplicates_ns, age_ns) if age_ns else duplicates_ns,
            "allow_direct": True,
            "metadata": {
                DATA_ID: self._data_id,
                TABLE_ID: str(table.table_id),
                GENERATION: str(self._generation),
            },
        }

    async def reconcile(self, tables: Sequence[Table], streams: Sequence[Stream], dropped: Collection[int]) -> set[int]:
        """At the start: every table has its stream, and none of ``dropped`` has.

        ``streams`` are those of this data directory, and ``dropped`` the ids of tables that were dropped; returns
        those whose streams are there yet.
        """
        self._dropped.update(dropped)
        ended = [stream for stream in streams if stream.table_id in dropped]
        left = {stream.table_id for stream in ended if not await self._remove(stream.name)}
        found = {stream.name: stream for stream in streams if stream.table_id not in dropped}
        for table in tables:
            try:
                await self._take_over(table, found.get(self.stream_name(table)))
            except (AlreadyExists, InvalidOption, Refused) as exc:
                self._troubles.note(table.table_id, "stream", exc.detail)
                log.error("a table has no stream", table=str(table.name), error=exc.detail)
        return left

    async def _take_over(self, table: Table, stream: Stream | None) -> None:
        if stream is None or stream.table_id != table.table_id:
            await self.create(table)
            return
        wish = self.configuration(table)
        if any(stream.configuration.get(key) != wish[key] for key in ALTERABLE):
            await self._update(table, wish)

    async def _remove(self, name: str) -> bool:
        try:
            await self._jetstream.request(f"STREAM.DELETE.{name}")
        except RefusedError as exc:
            if exc.error.err_code not in NOT_FOUND_CODES:
                log.warning("the stream of a dropped table stays for now", stream=name, error=str(exc))
                return False
        return True

    async def drop(self, table: Table) -> None:
        """Remove the stream, for good; one of that name which is another table's stays."""
        self._dropped.add(table.table_id)
        self._publisher.forget(table)
        name = self.stream_name(table)
        self._ends.forget(name)
        try:
            info = await self._jetstream.request(f"STREAM.INFO.{name}")
            metadata = info["config"].get("metadata") or {}
            if (metadata.get(DATA_ID), metadata.get(TABLE_ID)) == (self._data_id, str(table.table_id)):
                await self._jetstream.request(f"STREAM.DELETE.{name}")
        except RefusedError as exc:
            if exc.error.err_code not in NOT_FOUND_CODES:
                raise unavailable(exc, f"to delete the stream of table {table.name}") from exc

    async def publish(self, table: Table, events: Events, handed_over: Callable[[], None] = lambda: None) -> Acked:
        """Publish in order; the sequences of the events, once all are stored."""
        self._check_there(table)
        name = self.stream_name(table)
        try:
            acked = await self._publisher.publish(table, name, self._messages(table, events), handed_over)
        except NoStreamError:
            await self._make_again(table)
            raise
        self._ends.acked(name, acked.seqs[-1])
        return acked

    def _messages(self, table: Table, events: Events) -> list[Message]:
        subject = self._subjects.stream_event_subject(table.name.namespace, table.name.table)
        if events.keys is None and events.ids is None and events.traces is None:
            encoded = subject.encode()
            return [(encoded, b"", payload) for payload in events.payloads]
        count = len(events)
        subjects = [subject] * count if events.keys is None else [f"{subject}.{key}" for key in events.keys]
        headers = [b""] * count if events.ids is None else [_header(event_id) for event_id in events.ids]
        if events.traces is not None:
            headers = list(map(with_trace, headers, events.traces))
        return [
            (on.encode(), header, payload)
            for on, header, payload in zip(subjects, headers, events.payloads, strict=True)
        ]

    async def _make_again(self, table: Table) -> None:
        """Make a stream that somebody deleted behind our back; the insert that noticed it has failed all the same."""
        log.warning("nothing captures the events of a table: its stream is made anew", table=str(table.name))
        try:
            await self.create(table)
        except KalamError as exc:
            log.warning("the stream of a table is not made", table=str(table.name), reason=exc.detail)

    async def _events_between(self, table: Table, after_seq: int, upto_seq: int) -> StoredEvents:
        parts = [part async for part in self.read(table, after_seq, upto_seq)]
        return StoredEvents(*(list(chain.from_iterable(getattr(part, name) for part in parts)) for name in EVENT_PARTS))

    async def state(self, table: Table) -> StreamState:
        """What the stream holds."""
        self._check_there(table)
        name = self.stream_name(table)
        known = self._ends.of(name, table.table_id)
        try:
            info = await self._jetstream.request(f"STREAM.INFO.{name}")
        except RefusedError as exc:
            if exc.error.err_code in NOT_FOUND_CODES:
                await self.create(table)  # somebody deleted it behind our back
                return await self.state(table)
            raise unavailable(exc, f"the state of table {table.name}") from exc
        state = info["state"]
        held = bool(state["messages"])
        end = self._ends.compare(name, known, info, table)
        return StreamState(
            created=info["created"],
            messages=state["messages"],
            bytes=state["bytes"],
            first_seq=state["first_seq"],
            last_seq=state["last_seq"],
            first_at=_time(state["first_ts"]) if held else None,
            last_at=_time(state["last_ts"]) if held else None,
            doubtful_seq=end.doubtful_seq,
            holes=end.holes,
            lost=end.lost,
        )

    async def last_look(self, tables: Sequence[Table]) -> None:
        """At the end: note what each stream holds."""
        try:
            for start in range(0, len(tables), LOOKS_INFLIGHT):
                await asyncio.gather(*map(self.state, tables[start : start + LOOKS_INFLIGHT]))
        except KalamError as exc:
            log.debug("streams not looked at", reason=exc.detail)
        await self._ends.write()

    async def delete(self, table: Table, seqs: Sequence[int]) -> int:
        """Remove single events; how many were still there."""
        self._check_there(table)
        name, removed = self.stream_name(table), 0
        await self._ends.removing(name, len(seqs))
        for start in range(0, len(seqs), DELETES_INFLIGHT):
            part = seqs[start : start + DELETES_INFLIGHT]
            removed += sum(await asyncio.gather(*(self._delete(name, seq) for seq in part)))
        return removed

    async def purge(self, table: Table, before_seq: int) -> int:
        """Remove every event with a smaller sequence; how many were still there."""
        self._check_there(table)
        try:
            done = await self._jetstream.request(f"STREAM.PURGE.{self.stream_name(table)}", {"seq": before_seq})
        except RefusedError as exc:
            raise unavailable(exc, f"to remove events of table {table.name}") from exc
        return int(done["purged"])

    async def expire(self, table: Table, before: datetime, last_seq: int) -> None:
        """Remove what was stored before a time, up to a sequence: by purging up to the first event after it."""
        name = self.stream_name(table)
        moment = before.isoformat().replace("+00:00", "Z")
        try:
            answer = await self._connection.client.request(
                f"$JS.API.DIRECT.GET.{name}", msgspec.json.encode({"start_time": moment, "batch": 1}), timeout=5
            )
        except (nats_errors.Error, TimeoutError, OSError) as exc:
            raise BrokerUnavailable(f"the stream {name} does not answer: {exc or type(exc).__name__}") from exc
        found = (answer.headers or {}).get("Nats-Sequence")
        first = min(int(found), last_seq + 1) if found else last_seq + 1
        await self.purge(table, first)

    async def alter(self, table: Table) -> None:
        """Change the stream's options.

        A stream that captured other subjects, because SUBJECT_KEY was another one, captures them until the next start:
        events are on their way there.
        """
        self._check_there(table)
        wish = self.configuration(table)
        try:
            info = await self._jetstream.request(f"STREAM.INFO.{self.stream_name(table)}")
        except RefusedError as exc:
            raise unavailable(exc, f"to change table {table.name}") from exc
        subjects = dict.fromkeys([*wish["subjects"], *info["config"]["subjects"]])
        await self._update(table, wish | {"subjects": list(subjects)})

    async def _update(self, table: Table, configuration: Mapping[str, Any]) -> None:
        try:
            await self._jetstream.request(f"STREAM.UPDATE.{self.stream_name(table)}", configuration)
        except RefusedError as exc:
            if exc.error.code == 400 or exc.error.err_code in OPTION_ERROR_CODES:
                raise InvalidOption(f"the broker refused the options of table {table.name}: {exc}") from exc
            raise unavailable(exc, f"to change table {table.name}") from exc

    async def interested(self, table: Table, key: str | None) -> bool:
        """Whether a client of ours or of another server of the cluster listens."""
        name = table.name
        return await self._interest.count(self._subjects.stream_event_subject(name.namespace, name.table, key)) != 0

    async def _delete(self, name: str, seq: int) -> bool:
        try:
            await self._jetstream.request(f"STREAM.MSG.DELETE.{name}", {"seq": seq, "no_erase": True})
        except RefusedError as exc:
            if exc.error.err_code not in NO_MESSAGE_CODES:
                raise unavailable(exc, f"to delete event {seq}") from exc
            return False
        return True

    async def seq_before(self, table: Table, moment: datetime) -> int:
        """The sequence of the last event that was stored before a time."""
        try:
            return await self._reader.seq_before(self.stream_name(table), moment)
        except RefusedError as exc:
            raise unavailable(exc, f"to find a time in the events of table {table.name}") from exc

    async def read(
        self, table: Table, after_seq: int, upto_seq: int | None = None, *, last_per_key: bool = False
    ) -> AsyncIterator[StoredEvents]:
        """The stored events behind a sequence, up to another, in order, some thousand at a time."""
        last_of = self.subject(table) if last_per_key else None
        try:
            async for events in self._reader.read(self.stream_name(table), after_seq, upto_seq, last_of):
                yield events
        except RefusedError as exc:
            raise unavailable(exc, f"to read the events of table {table.name}") from exc


def _keyed(table: Table) -> bool:
    return table.options.subject_key is not None


def _time(text: str) -> datetime:
    """Go's RFC 3339 text, which has up to nine fractional digits."""
    return datetime.fromisoformat(text[:-1][:26]).replace(tzinfo=UTC)


def _header(event_id: str | None) -> bytes:
    """The header block by which JetStream knows an event again within its duplicate window."""
    return b"" if event_id is None else header_block({"Nats-Msg-Id": event_id})
