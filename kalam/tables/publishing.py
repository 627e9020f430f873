"""A batch of messages for a STREAM table, published together: a row that makes no event refuses its message alone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from operator import attrgetter

from kalam.errors import BrokerUnavailable, KalamError
from kalam.rows.judged import judged
from kalam.rows.types import Row
from kalam.schema import Table
from kalam.storage.log.answers import MessageName
from kalam.tables.insert_batch import NO_ROWS, Answer, Batch, Tally, answer_json
from kalam.tables.joined import Joined
from kalam.tables.sifted import Sifted
from kalam.tables.streams import Published, StreamTables
from kalam.tasks import to_its_end

JOINED_ROWS_MAX = 10_000
_MSG_ID = attrgetter("msg_id")


class Publishing:
    """One batch on its way; ``users`` are the senders of its messages."""

    def __init__(self, streams: StreamTables, table: Table, users: Sequence[str], batch: Batch, tally: Tally) -> None:
        self._streams, self._table, self._users, self._batch = streams, table, users, batch
        self._tally = tally

    async def run(self) -> list[Answer]:
        """Publish what can be; the answer or the error of each message, in order.

        Messages with ids that wait for their turn are published together, whichever batches they came in.
        """
        if not any(map(_MSG_ID, self._batch.messages)):
            return await self._publish(self._users, self._batch)
        joined, rows = self._streams.joinable.get(self._table.table_id), len(self._batch.rows)
        if joined is not None and joined.table is self._table and joined.row_count + rows <= JOINED_ROWS_MAX:
            place = joined.add(self._users, self._batch)
            return (await asyncio.shield(joined.answers))[place : place + len(self._users)]
        joined = self._streams.joinable[self._table.table_id] = Joined(self._table)
        joined.add(self._users, self._batch)
        return (await self._run_joined(joined))[: len(self._batch.messages)]

    async def _run_joined(self, joined: Joined) -> list[Answer]:
        """Wait for the turn, and publish what waits by then; whoever is cancelled meanwhile does it for the others."""
        turn, cancelled = self._streams.turn(self._table), False
        while not cancelled or joined.others:
            try:
                await turn.acquire()  # here and in no task: others are behind it from now on
                break
            except asyncio.CancelledError:
                cancelled = True
        self._streams.end_joining(self._table, joined)
        if cancelled and not joined.others:
            raise asyncio.CancelledError
        try:  # held until the answers are kept: a repeat waits for them
            whole = Publishing(self._streams, self._table, joined.users, joined.batch(), self._tally)
            await to_its_end(whole.answer(joined))
        finally:
            turn.release()
        if cancelled:
            raise asyncio.CancelledError
        return joined.answers.result()

    async def answer(self, joined: Joined) -> None:
        """Publish what was joined, in its turn, and tell all who wait for it."""
        try:
            joined.answers.set_result(await self._publish_once())
        except Exception as exc:  # noqa: BLE001 - whoever waits raises it
            joined.answers.set_exception(exc)
            joined.answers.exception()  # which whoever has gone does not ask for

    async def _publish_once(self) -> list[Answer]:
        """Publish what is no repeat, and keep the answers; a repeat gets the answer of the first one.

        Where nobody knows what became of the first one, its events are known again by their ids.
        """
        table, users, batch = self._table, self._users, self._batch
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
            published = await self._publish([users[place] for place in fresh], part, in_turn=True)
        except KalamError as exc:  # which says nothing of what was answered before
            published = part.answers(exc.as_value())
        answers = dict(zip(fresh, published, strict=True))
        kept = {name: answers[place] for name, place in first.items() if place in answers}
        await self._streams.remember(
            table, {name: answer for name, answer in kept.items() if isinstance(answer, bytes)}
        )
        known.update(kept)
        return [known[name] if name else answers[place] for place, name in enumerate(names)]

    async def _publish(self, users: Sequence[str], batch: Batch, *, in_turn: bool = False) -> list[Answer]:
        """Publish the rows of all messages as one run."""
        table, streams = self._table, self._streams
        counts = streams.counters.of(table.table_id)
        try:
            events = streams.events(table, batch.rows, batch.ids, batch.traces)
        except Exception:  # noqa: BLE001 - whichever message it was, it tells by itself what is wrong with it
            found = enumerate(rows for _, rows in batch.each())
            each = [self._checked(batch.sifted.get(place, rows)) for place, rows in found]
            batch = Batch.of(batch.messages, each, batch.names, batch.traced)
            events = streams.events(table, batch.rows, batch.ids, batch.traces)
        counts.rejected += len(batch.errors) + sum(len(sifted.refused) for sifted in batch.sifted.values())
        if batch.rows:
            try:
                published = await streams.publish(table, events, in_turn=in_turn)
            except BrokerUnavailable as exc:
                if len(batch.messages) > 1 and exc.fields.get("stored"):  # some of it, nobody knows of which messages
                    exc.fields["stored"] = "unknown"
                raise
            answers = _answers(batch, published)
        else:
            answers = batch.answers(NO_ROWS)
        self._tally.note(len(batch.rows), ((users[place], sifted.refused) for place, sifted in batch.sifted.items()))
        return batch.told(answers)

    def _checked(self, rows: Sequence[Row] | Sifted | KalamError) -> Sequence[Row] | Sifted | KalamError:
        if isinstance(rows, KalamError):
            return rows
        check = partial(self._streams.events, self._table)
        if isinstance(rows, Sifted):
            rows.keep(check)
            return rows
        events = judged("message", partial(check, rows))
        return events if isinstance(events, KalamError) else rows


def _answers(batch: Batch, published: Published) -> list[Answer]:
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
        answers[place] = _answer(len(rows), len(rows) - kept, seqs[last - 1] if kept else 0)
    return answers


def _answer(rows: int, discarded: int, last_seq: int) -> bytes:
    if not rows:
        return NO_ROWS
    if not discarded:
        return answer_json(rows, last_seq)
    if discarded == rows:
        return b'{"rows":%d,"discarded":%d}' % (rows, discarded)
    return b'{"rows":%d,"discarded":%d,"seq":%d}' % (rows, discarded, last_seq)
