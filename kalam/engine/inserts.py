"""Rows that come in as messages: decoded, validated and stored a batch at a time.

A batch is what waited for one table and user. Each message in it is a statement of its own: it is accepted or refused
whole, and has its own answer; but all are decoded, committed and published together.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from operator import attrgetter, itemgetter
from typing import cast

import msgspec
from msgspec.structs import replace

from kalam.errors import BrokerUnavailable, DuplicateKey, KalamError, TableNotFound, TooBusy, TooLarge
from kalam.latency import Latency
from kalam.names import TableName
from kalam.rows.codec import Codec, Codecs
from kalam.rows.judged import judged
from kalam.rows.normalise import shorten
from kalam.rows.types import Row
from kalam.schema import Table, TableKind
from kalam.settings import Settings
from kalam.storage.log.catalogue import Catalogue
from kalam.storage.log.copies import Key
from kalam.storage.log.writes import Inserted, InsertStatement, Repeated
from kalam.tables.stored import StoredTables
from kalam.tables.streams import MessageName, Published, StreamTables
from kalam.tracing import batch_span


class InsertMessage(msgspec.Struct, frozen=True, gc=False):
    """One message: one row, or an array of rows, or an Arrow stream.

    ``msg_id`` makes it idempotent. Where the answer is not ``awaited`` none need be made of what is accepted. ``trace``
    is its ``traceparent``, which the events of its rows will have.
    """

    payload: bytes
    arrow: bool = False
    msg_id: str | None = None
    awaited: bool = True
    trace: str | None = None


Answer = bytes | KalamError


class Batch(msgspec.Struct, frozen=True):
    """Messages and the rows that they are: all together, in order.

    ``counts`` has the number of each message's rows, None for one row each; ``errors`` why a message, by its place,
    has none. ``names`` has the user and the id of each message that has one, None if none has. ``traced`` says that a
    message may name a trace: few do, and the others are not to be looked through.
    """

    messages: Sequence[InsertMessage]
    rows: Sequence[Row]
    counts: Sequence[int] | None = None
    errors: Mapping[int, KalamError] = msgspec.field(default_factory=dict)
    names: Sequence[MessageName | None] | None = None
    traced: bool = False

    @classmethod
    def of(
        cls,
        messages: Sequence[InsertMessage],
        decoded: Sequence[Sequence[Row] | KalamError],
        names: Sequence[MessageName | None] | None = None,
        traced: bool = False,
    ) -> Batch:
        """From the rows or the error of each message."""
        errors = {place: rows for place, rows in enumerate(decoded) if isinstance(rows, KalamError)}
        counts = [0 if isinstance(rows, KalamError) else len(rows) for rows in decoded]
        together = [row for rows in decoded if not isinstance(rows, KalamError) for row in rows]
        return cls(messages, together, counts, errors, names, traced)

    def each(self) -> Iterator[tuple[InsertMessage, Sequence[Row] | KalamError]]:
        """Every message with its rows or its error."""
        start = 0
        for place, message in enumerate(self.messages):
            end = start + (1 if self.counts is None else self.counts[place])
            yield message, self.errors.get(place) or self.rows[start:end]
            start = end

    @property
    def ids(self) -> list[str | None] | None:
        """An id for each row of a message that has one, the same whenever the message is sent again."""
        if self.names is None:
            return None
        ids: list[str | None] = []
        for name, (_, rows) in zip(self.names, self.each(), strict=True):
            if not isinstance(rows, KalamError):
                ids += [None if name is None else f"{'.'.join(name)}.{number}" for number in range(len(rows))]
        return ids

    @property
    def traces(self) -> list[str | None] | None:
        """The trace of each row; None if no message names one."""
        if not self.traced:
            return None
        each = (message.trace for message, rows in self.each() if not isinstance(rows, KalamError) for _ in rows)
        return list(each)

    def answers(self, accepted: Answer) -> list[Answer]:
        """The errors where they belong, and the same for every message that has none."""
        answers: list[Answer] = [accepted] * len(self.messages)
        for place, error in self.errors.items():
            answers[place] = error
        return answers


def answer_json(rows: int, seq: int) -> bytes:
    """The answer to an insert that is stored."""
    return b'{"rows":%d,"seq":%d}' % (rows, seq)


NO_ROWS = b'{"rows":0}'


class Inserts:
    """Takes batches of messages. Bounded by ``insert_rows_inflight_max`` and ``insert_bytes_inflight_max``.

    ``rejected`` is counted by the doors, by code: they alone know what they told.
    """

    def __init__(
        self, settings: Settings, catalogue: Catalogue, codecs: Codecs, stored: StoredTables, streams: StreamTables
    ) -> None:
        self._settings, self._catalogue, self._codecs = settings, catalogue, codecs
        self._stored, self._streams = stored, streams
        self.rows_inflight = 0
        self.bytes_inflight = 0
        self.accepted_rows = 0
        self.latency = Latency()
        self.rejected: Counter[str] = Counter()

    async def insert(
        self,
        user: str,
        name: TableName,
        messages: Sequence[InsertMessage],
        users: Sequence[str] | None = None,
        *,
        traced: bool = False,
    ) -> list[Answer]:
        """Store what is valid of a batch; the answer or the error of each message, in order.

        ``users`` are the senders of the messages, where they are not all ``user``'s; not for a USER table. ``traced``
        says that one of them names a trace.

        The rows are handed to the store before the first pause, so batches that are handed in one after another are
        stored in that order.
        """
        started = time.perf_counter()
        payloads = [message.payload for message in messages]
        byte_count = sum(map(len, payloads))
        try:
            table = self._catalogue.table(name)
            if users is not None and table.kind is TableKind.USER:  # each row is its sender's
                raise TableNotFound(f"table {name} was created anew while the message came; send it again")
            self._check_room(byte_count)
        except KalamError as exc:
            return [exc.as_value()] * len(messages)
        codec, traces = self._codecs.of(table), list(filter(None, map(_TRACE, messages))) if traced else []
        with batch_span("kalam.decode", traces, table=str(name), messages=len(messages)):
            if users is None or not codec.decoder.needs_user:
                batch = self._decode(codec, user, messages, payloads)
            else:
                batch = self._decode_runs(codec, users, messages)
        if traced:
            batch = replace(batch, traced=True)
        row_count = len(batch.rows)
        self.rows_inflight += row_count
        self.bytes_inflight += byte_count
        try:
            is_stream = table.kind is TableKind.STREAM
            with batch_span("kalam.publish" if is_stream else "kalam.commit", traces, table=str(name), rows=row_count):
                if is_stream:
                    return await self._insert_events(table, users or [user] * len(messages), batch)
                return await self._insert_stored(table, user, batch)
        except KalamError as exc:
            return batch.answers(exc.as_value())
        finally:
            self.rows_inflight -= row_count
            self.bytes_inflight -= byte_count
            self.latency.record(time.perf_counter() - started, len(messages))

    async def judge(self, user: str, name: TableName, message: InsertMessage, taken: set[Key]) -> int:
        """How many rows a message has, judged as ``insert`` would, but stored nowhere; raises what it would be told.

        ``taken`` are the keys of the messages before it, to which its own are added.
        """
        table = self._catalogue.table(name)
        decoded = self._decode_one(self._codecs.of(table), user, message)
        if isinstance(decoded, KalamError):
            raise decoded
        if table.kind is TableKind.STREAM:
            checked = self._checked(table, decoded)
            if isinstance(checked, KalamError):
                raise checked
        elif decoded:
            statement = judged("message", partial(self._stored.statement, table, decoded))
            if isinstance(statement, KalamError):
                raise statement
            await self._stored.check_free(table, user, statement.keys)
            if twice := taken.intersection(statement.keys):
                raise DuplicateKey(f"key {table.key} = {shorten(twice.pop())} comes twice in these rows")
            taken.update(statement.keys)
        return len(decoded)

    def _check_room(self, byte_count: int) -> None:
        settings = self._settings
        if self.rows_inflight > settings.insert_rows_inflight_max:
            raise TooBusy(f"{self.rows_inflight} rows wait to be stored; try again a little later")
        if self.bytes_inflight and self.bytes_inflight + byte_count > settings.insert_bytes_inflight_max:
            raise TooBusy(f"{self.bytes_inflight} bytes of rows wait to be stored; try again a little later")

    def _decode(self, codec: Codec, user: str, messages: Sequence[InsertMessage], payloads: Sequence[bytes]) -> Batch:
        if len(messages) > 1 and _ROW_STARTS.issuperset(map(_START, payloads)) and not any(map(_ARROW, messages)):
            rows = codec.decoder.decode_each(payloads, user=user)
            if any(isinstance(row, KalamError) for row in rows):
                return Batch.of(messages, [row if isinstance(row, KalamError) else [row] for row in rows])
            return Batch(messages, cast("list[Row]", rows))
        return Batch.of(messages, [self._decode_one(codec, user, message) for message in messages])

    def _decode_runs(self, codec: Codec, users: Sequence[str], messages: Sequence[InsertMessage]) -> Batch:
        decoded: list[Sequence[Row] | KalamError] = []
        for user, run in groupby(zip(users, messages, strict=True), itemgetter(0)):
            sent = [message for _, message in run]
            part = self._decode(codec, user, sent, [message.payload for message in sent])
            decoded += [rows for _, rows in part.each()]
        return Batch.of(messages, decoded)

    def _decode_one(self, codec: Codec, user: str, message: InsertMessage) -> list[Row] | KalamError:
        rows_max = self._settings.batch_rows_max

        def decode() -> list[Row]:
            rows = codec.decoder.decode(message.payload, user=user, arrow=message.arrow, rows_max=rows_max)
            if len(rows) > rows_max:
                raise TooLarge(f"the message has {len(rows)} rows; batch_rows_max is {rows_max}")
            return rows

        return judged("message", decode)

    async def _insert_stored(self, table: Table, user: str, batch: Batch) -> list[Answer]:
        answers: list[Answer] = []
        statements: list[InsertStatement] = []
        places: list[int] = []
        for message, rows in batch.each():
            if isinstance(rows, KalamError) or not rows:
                answers.append(rows or NO_ROWS)  # type: ignore[arg-type]
                continue
            named = (message.msg_id, user, message.trace)
            statement = judged("message", partial(self._stored.statement, table, rows, *named))
            if isinstance(statement, KalamError):
                answers.append(statement)
                continue
            statements.append(statement)
            places.append(len(answers))
            answers.append(NO_ROWS)
        if not statements:
            return answers
        outcomes = await self._stored.insert(table, user, statements, _answer)
        for place, statement, outcome in zip(places, statements, outcomes, strict=True):
            match outcome:
                case Inserted(last_seq):
                    answers[place] = answer_json(len(statement.keys), last_seq)
                    self.accepted_rows += len(statement.keys)
                case Repeated(answer):
                    answers[place] = answer
                case error:
                    answers[place] = error
        return answers

    async def _insert_events(self, table: Table, users: Sequence[str], batch: Batch) -> list[Answer]:
        if not any(map(_MSG_ID, batch.messages)):
            return await self._publish(table, batch)
        async with self._streams.turn(table):  # held until the answers are kept: a repeat waits for them
            return await self._insert_once(table, users, batch)

    async def _insert_once(self, table: Table, users: Sequence[str], batch: Batch) -> list[Answer]:
        """Publish what is no repeat, and keep the answers; a repeat gets the answer of the first one.

        Where nobody knows what became of the first one, its events are known again by their ids.
        """
        names = [
            None if message.msg_id is None or place in batch.errors else (user, message.msg_id)
            for place, (user, message) in enumerate(zip(users, batch.messages, strict=True))
        ]
        known: dict[MessageName, Answer] = {**await self._streams.answered(table, [name for name in names if name])}
        first = {name: place for place, name in reversed(list(enumerate(names))) if name}
        fresh = [place for place, name in enumerate(names) if not name or (name not in known and first[name] == place)]
        each = list(batch.each())
        messages, rows = [batch.messages[place] for place in fresh], [each[place][1] for place in fresh]
        part = Batch.of(messages, rows, [names[place] for place in fresh], batch.traced)
        try:
            published = await self._publish(table, part, in_turn=True)
        except KalamError as exc:  # which says nothing of what was answered before
            published = part.answers(exc.as_value())
        answers = dict(zip(fresh, published, strict=True))
        kept = {name: answers[place] for name, place in first.items() if place in answers}
        await self._streams.remember(
            table, {name: answer for name, answer in kept.items() if isinstance(answer, bytes)}
        )
        known.update(kept)
        return [known[name] if name else answers[place] for place, name in enumerate(names)]

    async def _publish(self, table: Table, batch: Batch, *, in_turn: bool = False) -> list[Answer]:
        """Publish the rows of all messages as one run; a row that makes no event refuses its message alone."""
        counts = self._streams.counters.of(table.table_id)
        try:
            events = self._streams.events(table, batch.rows, batch.ids, batch.traces)
        except Exception:  # noqa: BLE001 - whichever message it was, it tells by itself what is wrong with it
            each = [self._checked(table, rows) for _, rows in batch.each()]
            batch = Batch.of(batch.messages, each, batch.names, batch.traced)
            events = self._streams.events(table, batch.rows, batch.ids, batch.traces)
        counts.rejected += len(batch.errors)
        if not batch.rows:
            return batch.answers(NO_ROWS)
        try:
            published = await self._streams.publish(table, events, in_turn=in_turn)
        except BrokerUnavailable as exc:
            if len(batch.messages) > 1 and exc.fields.get("stored"):  # some of it, nobody knows of which messages
                exc.fields["stored"] = "unknown"
            raise
        self.accepted_rows += len(batch.rows)
        return _event_answers(batch, published)

    def _checked(self, table: Table, rows: Sequence[Row] | KalamError) -> Sequence[Row] | KalamError:
        if isinstance(rows, KalamError):
            return rows
        events = judged("message", partial(self._streams.events, table, rows))
        return events if isinstance(events, KalamError) else rows


_START = itemgetter(slice(0, 1))
_TRACE = attrgetter("trace")
_ROW_STARTS = frozenset({b"{", *(b"%c" % first for first in range(0x80, 0x90))})
"""The first byte of a message that is a single row: of a JSON object or a msgpack map."""
_ARROW, _MSG_ID = attrgetter("arrow"), attrgetter("msg_id")


def _event_answers(batch: Batch, published: Published) -> list[Answer]:
    stored, seqs = published.stored, published.seqs
    answers = batch.answers(NO_ROWS)
    if batch.counts is None and stored is None:
        for place, message in enumerate(batch.messages):
            if message.awaited:
                answers[place] = answer_json(1, seqs[place])
        return answers
    start = last = 0
    for place, (_, rows) in enumerate(batch.each()):
        if isinstance(rows, KalamError):
            continue
        kept = len(rows) if stored is None else sum(stored[start : start + len(rows)])
        start += len(rows)
        last += kept
        answers[place] = _event_answer(len(rows), len(rows) - kept, seqs[last - 1] if kept else 0)
    return answers


def _event_answer(rows: int, discarded: int, last_seq: int) -> bytes:
    if not rows:
        return NO_ROWS
    if not discarded:
        return answer_json(rows, last_seq)
    if discarded == rows:
        return b'{"rows":%d,"discarded":%d}' % (rows, discarded)
    return b'{"rows":%d,"discarded":%d,"seq":%d}' % (rows, discarded, last_seq)


def _answer(statement: InsertStatement, last_seq: int) -> bytes:
    return answer_json(len(statement.keys), last_seq)
