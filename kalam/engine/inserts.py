"""Rows that come in as messages: decoded, validated and stored a batch at a time.

A batch is what waited for one table and user. Each message in it is a statement of its own: it is accepted or refused
whole, and has its own answer; but all are decoded, committed and published together.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from itertools import groupby
from operator import attrgetter

from msgspec.structs import replace

from kalam.engine.insert_batch import NO_ROWS, Answer, Batch, InsertMessage, answer_json
from kalam.engine.merges import Merges
from kalam.engine.message_reader import MessageReader
from kalam.engine.sifted import RefusedRow, RefusedSink, Sifted
from kalam.engine.storing import Storing
from kalam.errors import BrokerUnavailable, DuplicateKey, KalamError, TableNotFound, TooBusy
from kalam.latency import Latency
from kalam.names import TableName
from kalam.rows.codec import Codecs
from kalam.rows.judged import judged
from kalam.rows.normalise import shorten
from kalam.rows.types import Row
from kalam.schema import Table, TableKind
from kalam.settings import Settings
from kalam.storage.log.catalogue import Catalogue
from kalam.storage.log.copies import Key
from kalam.tables.stored import StoredTables
from kalam.tables.streams import MessageName, Published, StreamTables
from kalam.tracing import batch_span, in_trace


class Inserts:
    """Takes batches of messages. Bounded by ``insert_rows_inflight_max`` and ``insert_bytes_inflight_max``.

    ``rejected`` is counted by code: messages by the doors, which alone know what they told, and here the rows that were
    refused alone. ``on_refused`` is where these go.
    """

    def __init__(
        self,
        settings: Settings,
        catalogue: Catalogue,
        codecs: Codecs,
        stored: StoredTables,
        streams: StreamTables,
        merges: Merges,
        on_refused: RefusedSink,
    ) -> None:
        self._settings, self._catalogue, self._codecs = settings, catalogue, codecs
        self._stored, self._streams, self._merges, self._on_refused = stored, streams, merges, on_refused
        self._reader = MessageReader(settings.batch_rows_max)
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
        asking: bool = False,
    ) -> list[Answer]:
        """Store what is valid of a batch; the answer or the error of each message, in order.

        ``users`` are the senders of the messages, where they are not all ``user``'s; not for a USER table. ``traced``
        says that one of them names a trace, ``asking`` that one asks for another taking than the rule.

        The rows are handed to the store before the first pause, so batches that are handed in one after another are
        stored in that order.
        """
        started = time.perf_counter()
        byte_count = sum(map(len, map(_PAYLOAD, messages)))
        try:
            table = self._catalogue.table(name)
            if users is not None and table.per_user:  # each row is its sender's
                raise TableNotFound(f"table {name} was created anew while the message came; send it again")
            self._check_room(byte_count)
        except KalamError as exc:
            return [exc.as_value()] * len(messages)
        self.bytes_inflight += byte_count
        try:
            if not asking:
                return await self._insert(table, user, users, messages, traced)
            return await self._insert_asking(table, users or [user] * len(messages), messages, traced)
        finally:
            self.bytes_inflight -= byte_count
            self.latency.record(time.perf_counter() - started, len(messages))

    async def _insert(
        self, table: Table, user: str, users: Sequence[str] | None, messages: Sequence[InsertMessage], traced: bool
    ) -> list[Answer]:
        codec, traces = self._codecs.of(table), list(filter(None, map(_TRACE, messages))) if traced else []
        with batch_span("kalam.decode", traces, table=str(table.name), messages=len(messages)):
            batch = self._reader.read(codec, user, users, messages)
        return await self._store(table, users or [user] * len(messages), batch, traces)

    async def _insert_asking(
        self, table: Table, users: Sequence[str], messages: Sequence[InsertMessage], traced: bool
    ) -> list[Answer]:
        """Messages of which some ask for another taking, in order: those that merge are statements of their own."""
        answers: list[Answer] = []
        for merging, run in groupby(zip(users, messages, strict=True), lambda pair: bool(pair[1].taking.conflict)):
            senders, sent = zip(*run, strict=True)
            if merging:
                answers += [await self._merge(table, *pair) for pair in zip(senders, sent, strict=True)]
                continue
            traces = list(filter(None, map(_TRACE, sent))) if traced else []
            with batch_span("kalam.decode", traces, table=str(table.name), messages=len(sent)):
                batch = await self._reader.read_asking(self._codecs.of(table), senders, sent)
            answers += await self._store(table, senders, batch, traces)
        return answers

    async def _merge(self, table: Table, user: str, message: InsertMessage) -> Answer:
        try:
            with in_trace(message.trace):
                merged = await self._merges.merge(table, user, message)
        except KalamError as exc:
            return exc.as_value()
        self.accepted_rows += merged.rows
        self.tell_refused(table, user, merged.refused)
        return merged.answer

    async def _store(self, table: Table, users: Sequence[str], batch: Batch, traces: Sequence[str]) -> list[Answer]:
        if traces:
            batch = replace(batch, traced=True)
        row_count = len(batch.rows)
        self.rows_inflight += row_count
        try:
            is_stream = table.kind is TableKind.STREAM
            with batch_span(
                "kalam.publish" if is_stream else "kalam.commit", traces, table=str(table.name), rows=row_count
            ):
                if is_stream:
                    return await self._insert_events(table, users, batch)
                return await self._insert_stored(table, users[0], batch)
        except KalamError as exc:
            return batch.answers(exc.as_value())
        finally:
            self.rows_inflight -= row_count

    def tell_refused(self, table: Table, user: str, rows: Sequence[RefusedRow]) -> None:
        """Count and publish rows that were refused alone."""
        if rows:
            self.rejected.update(refused.error.code for refused in rows)
            self._on_refused(table, user, rows)

    async def judge(
        self, user: str, name: TableName, message: InsertMessage, taken: set[Key]
    ) -> tuple[int, Sequence[RefusedRow]]:
        """How many rows of a message would be stored and which would be refused alone, judged as ``insert`` would.

        Nothing is stored; raises what the sender would be told. ``taken`` are the keys of the messages before it, to
        which its own are added.
        """
        table = self._catalogue.table(name)
        batch = await self._reader.read_asking(self._codecs.of(table), [user], [message])
        [(_, decoded)] = batch.each()
        if isinstance(decoded, KalamError):
            raise decoded
        sifted = batch.sifted.get(0) or Sifted(decoded, self._reader.source(message))
        check = partial(self._streams.events if table.kind is TableKind.STREAM else self._stored.statement, table)
        if message.taking.skip:
            sifted.keep(check)
        elif isinstance(wrong := judged("message", partial(check, decoded)), KalamError):
            raise wrong
        if table.kind is not TableKind.STREAM and not message.taking.conflict:
            await self._judge_keys(table, user, message, sifted, taken)
        return len(sifted.rows), sifted.refused

    async def _judge_keys(
        self, table: Table, user: str, message: InsertMessage, sifted: Sifted, taken: set[Key]
    ) -> None:
        keys = [row[table.key_index] for row in sifted.rows]
        errors = await self._stored.taken(table, user, keys)
        for place in range(len(keys)):
            if keys[place] in taken and place not in errors:
                key = shorten(keys[place])
                errors[place] = DuplicateKey(f"key {table.key} = {key} comes twice in these rows", row=place + 1)
        if errors and not message.taking.skip:
            raise errors[min(errors)]
        sifted.drop(errors)
        taken.update(row[table.key_index] for row in sifted.rows)

    def _check_room(self, byte_count: int) -> None:
        settings = self._settings
        if self.rows_inflight > settings.insert_rows_inflight_max:
            raise TooBusy(f"{self.rows_inflight} rows wait to be stored; try again a little later")
        if self.bytes_inflight and self.bytes_inflight + byte_count > settings.insert_bytes_inflight_max:
            raise TooBusy(f"{self.bytes_inflight} bytes of rows wait to be stored; try again a little later")

    async def _insert_stored(self, table: Table, user: str, batch: Batch) -> list[Answer]:
        storing = Storing(self._stored, table, user, batch)
        answers = await storing.run()
        self.accepted_rows += storing.accepted_rows
        for place, sifted in batch.sifted.items():
            if isinstance(answers[place], bytes) and place not in storing.repeated:
                self.tell_refused(table, user, sifted.refused)
        return answers

    async def _insert_events(self, table: Table, users: Sequence[str], batch: Batch) -> list[Answer]:
        if not any(map(_MSG_ID, batch.messages)):
            return await self._publish(table, users, batch)
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
        fit = [batch.sifted.get(place, found) for place, found in zip(fresh, rows, strict=True)]
        part = Batch.of(messages, fit, [names[place] for place in fresh], batch.traced)
        try:
            published = await self._publish(table, [users[place] for place in fresh], part, in_turn=True)
        except KalamError as exc:  # which says nothing of what was answered before
            published = part.answers(exc.as_value())
        answers = dict(zip(fresh, published, strict=True))
        kept = {name: answers[place] for name, place in first.items() if place in answers}
        await self._streams.remember(
            table, {name: answer for name, answer in kept.items() if isinstance(answer, bytes)}
        )
        known.update(kept)
        return [known[name] if name else answers[place] for place, name in enumerate(names)]

    async def _publish(
        self, table: Table, users: Sequence[str], batch: Batch, *, in_turn: bool = False
    ) -> list[Answer]:
        """Publish the rows of all messages as one run; a row that makes no event refuses its message alone."""
        counts = self._streams.counters.of(table.table_id)
        try:
            events = self._streams.events(table, batch.rows, batch.ids, batch.traces)
        except Exception:  # noqa: BLE001 - whichever message it was, it tells by itself what is wrong with it
            found = enumerate(rows for _, rows in batch.each())
            each = [self._checked(table, batch.sifted.get(place, rows)) for place, rows in found]
            batch = Batch.of(batch.messages, each, batch.names, batch.traced)
            events = self._streams.events(table, batch.rows, batch.ids, batch.traces)
        counts.rejected += len(batch.errors) + sum(len(sifted.refused) for sifted in batch.sifted.values())
        if not batch.rows:
            self._tell_sifted(table, users, batch)
            return batch.told(batch.answers(NO_ROWS))
        try:
            published = await self._streams.publish(table, events, in_turn=in_turn)
        except BrokerUnavailable as exc:
            if len(batch.messages) > 1 and exc.fields.get("stored"):  # some of it, nobody knows of which messages
                exc.fields["stored"] = "unknown"
            raise
        self.accepted_rows += len(batch.rows)
        self._tell_sifted(table, users, batch)
        return batch.told(_event_answers(batch, published))

    def _tell_sifted(self, table: Table, users: Sequence[str], batch: Batch) -> None:
        for place, sifted in batch.sifted.items():
            self.tell_refused(table, users[place], sifted.refused)

    def _checked(self, table: Table, rows: Sequence[Row] | Sifted | KalamError) -> Sequence[Row] | Sifted | KalamError:
        if isinstance(rows, KalamError):
            return rows
        if isinstance(rows, Sifted):
            rows.keep(partial(self._streams.events, table))
            return rows
        events = judged("message", partial(self._streams.events, table, rows))
        return events if isinstance(events, KalamError) else rows


_TRACE, _MSG_ID, _PAYLOAD = attrgetter("trace"), attrgetter("msg_id"), attrgetter("payload")


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
