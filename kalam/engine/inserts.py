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

from kalam.access.identity import Identity
from kalam.engine.access import Audited
from kalam.engine.gate import Gate
from kalam.engine.merges import Merges
from kalam.engine.message_reader import MessageReader, is_long
from kalam.engine.row_checks import RowChecks
from kalam.engine.turns import Turns
from kalam.errors import KalamError, PermissionDenied, TableNotFound, TooBusy
from kalam.latency import Latency
from kalam.names import TableName
from kalam.rows.codec import Codecs
from kalam.rows.judged import judged
from kalam.rows.taking import Conflict
from kalam.schema import Table
from kalam.settings import Settings
from kalam.storage.log.catalogue import Catalogue
from kalam.storage.log.copies import Key
from kalam.tables.insert_batch import Answer, Batch, InsertMessage, Tally
from kalam.tables.kinds import Rows, Tables
from kalam.tables.sifted import RefusedRow, RefusedSink, Sifted
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
        tables: Tables[Rows],
        merges: Merges,
        checks: RowChecks,
        gate: Gate,
        audited: Audited,
        on_refused: RefusedSink,
    ) -> None:
        self._settings, self._catalogue, self._codecs = settings, catalogue, codecs
        self._tables, self._merges, self._gate, self._on_refused = tables, merges, gate, on_refused
        self._audited, self._checks = audited, checks
        self._reader, self._turns = MessageReader(settings.batch_rows_max), Turns()
        self.rows_inflight = 0
        self.bytes_inflight = 0
        self.accepted_rows = 0
        self.latency = Latency()
        self.rejected: Counter[str] = Counter()

    async def insert(
        self,
        identity: Identity,
        name: TableName,
        messages: Sequence[InsertMessage],
        senders: Sequence[Identity] | None = None,
        *,
        door: str = "",
        traced: bool = False,
        asking: bool = False,
    ) -> list[Answer]:
        """Store what is valid of a batch; the answer or the error of each message, in order.

        ``senders`` sent the messages, where they are not all of ``identity``; not for a USER table. They came in at
        ``door``. ``traced`` says that one of them names a trace, ``asking`` that one asks for another taking than the
        rule.

        Batches that are handed in one after another are stored in that order: the rows are handed to the store before
        the first pause, those of long messages in their turn.
        """
        started = time.perf_counter()
        byte_count = sum(map(len, map(_PAYLOAD, messages)))
        try:
            if self._gate.rights.on:
                refused = self._refused(name, identity, senders, messages, door, asking=asking)
                if refused:
                    whose = (name, messages, senders, door)
                    return await self._without(refused, identity, *whose, traced=traced, asking=asking)
            table = self._catalogue.table(name)
            if senders is not None and table.per_user:  # each row is its sender's
                raise TableNotFound(f"table {name} was created anew while the message came; send it again")
            self._tables.of(table).check_writable(table)
            self._check_room(byte_count)
        except KalamError as exc:
            return [exc.as_value()] * len(messages)
        user = identity.user
        users = None if senders is None else [sender.user for sender in senders]
        self.bytes_inflight += byte_count
        try:
            if not asking:
                return await self._insert(table, user, users, messages, traced)
            return await self._insert_asking(table, users or [user] * len(messages), messages, traced)
        finally:
            self.bytes_inflight -= byte_count
            self.latency.record(time.perf_counter() - started, len(messages))

    def _refused(
        self,
        name: TableName,
        identity: Identity,
        senders: Sequence[Identity] | None,
        messages: Sequence[InsertMessage],
        door: str,
        *,
        asking: bool,
    ) -> dict[int, KalamError]:
        """Why messages are not taken for their senders' want of rights, by their places; each sender is asked once."""
        asked: dict[tuple[Identity, Conflict | None], KalamError | None] = {}
        found: dict[int, KalamError] = {}
        if senders is None and not asking:
            self.check(name, identity, door)
            return found
        for place, message in enumerate(messages):
            sender, conflict = identity if senders is None else senders[place], message.taking.conflict
            if (sender, conflict) not in asked:
                asked[sender, conflict] = self._wrong(name, sender, door, conflict)
            if (wrong := asked[sender, conflict]) is not None:
                found[place] = wrong
        return found

    def check(self, name: TableName, sender: Identity, door: str, conflict: Conflict | None = None) -> None:
        """Raise what keeps somebody from sending rows into a table, and have the audit tell of it."""
        try:
            self._gate.may_insert(name, sender, conflict)
        except PermissionDenied as exc:
            self._audited.kept_from_inserting(name, sender, door, exc)
            raise

    def _wrong(self, name: TableName, sender: Identity, door: str, conflict: Conflict | None) -> KalamError | None:
        try:
            self.check(name, sender, door, conflict)
        except KalamError as exc:
            return exc.as_value()
        return None

    async def _without(
        self,
        refused: dict[int, KalamError],
        identity: Identity,
        name: TableName,
        messages: Sequence[InsertMessage],
        senders: Sequence[Identity] | None,
        door: str,
        *,
        traced: bool,
        asking: bool,
    ) -> list[Answer]:
        """The answers of a batch of which some messages are refused."""
        left = [place for place in range(len(messages)) if place not in refused]
        answers: list[Answer] = [refused.get(place, b"") for place in range(len(messages))]
        if left:
            sent = [messages[place] for place in left]
            whose = None if senders is None else [senders[place] for place in left]
            taken = await self.insert(identity, name, sent, whose, door=door, traced=traced, asking=asking)
            for place, answer in zip(left, taken, strict=True):
                answers[place] = answer
        return answers

    async def _insert(
        self, table: Table, user: str, users: Sequence[str] | None, messages: Sequence[InsertMessage], traced: bool
    ) -> list[Answer]:
        if traced:
            with batch_span("kalam.decode", _traces(messages, traced), table=str(table.name), messages=len(messages)):
                batch = await self._read(table, user, users, messages)
        else:
            batch = await self._read(table, user, users, messages)
        return await self._checked(table, users or [user] * len(messages), batch, traced)

    async def _read(
        self, table: Table, user: str, users: Sequence[str] | None, messages: Sequence[InsertMessage]
    ) -> Batch:
        """The rows of messages, behind which they are handed over before a pause: at once, or in their turn."""
        codec = self._codecs.of(table)
        if not is_long(messages) and not self._turns.waited_for(table.table_id):
            return self._reader.read(codec, user, users, messages)
        async with self._turns.turn(table.table_id):
            return await self._reader.read_beside(codec, user, users, messages)

    async def _insert_asking(
        self, table: Table, users: Sequence[str], messages: Sequence[InsertMessage], traced: bool
    ) -> list[Answer]:
        """Messages of which some ask for another taking, in order: those that merge are statements of their own."""
        answers: list[Answer] = []
        for merging, run in groupby(zip(users, messages, strict=True), lambda pair: bool(pair[1].taking.conflict)):
            senders, sent = zip(*run, strict=True)
            if merging:
                await self._turns.behind(table.table_id)
                answers += [await self._merge(table, *pair) for pair in zip(senders, sent, strict=True)]
                continue
            with batch_span("kalam.decode", _traces(sent, traced), table=str(table.name), messages=len(sent)):
                async with self._turns.turn(table.table_id):
                    batch = await self._reader.read_asking(self._codecs.of(table), senders, sent)
            answers += await self._checked(table, senders, batch, traced)
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

    async def _checked(self, table: Table, users: Sequence[str], batch: Batch, traced: bool) -> list[Answer]:
        """Store what the policies let the senders write."""
        if not self._checks.bind(table):
            return await self._store(table, users, batch, traced)
        try:
            return await self._checks.stored(
                table, users, batch, lambda allowed: self._store(table, users, allowed, traced)
            )
        except KalamError as exc:
            return batch.answers(exc.as_value())

    async def _store(self, table: Table, users: Sequence[str], batch: Batch, traced: bool) -> list[Answer]:
        if traced:
            batch = replace(batch, traced=True)
        row_count, tally = len(batch.rows), Tally()
        self.rows_inflight += row_count
        try:
            return await self._tables.of(table).take_batch(table, users, batch, tally)
        except KalamError as exc:
            return batch.answers(exc.as_value())
        finally:
            self.rows_inflight -= row_count
            self.accepted_rows += tally.rows
            for user, refused in tally.refused:
                self.tell_refused(table, user, refused)

    def tell_refused(self, table: Table, user: str, rows: Sequence[RefusedRow]) -> None:
        """Count and publish rows that were refused alone."""
        if rows:
            self.rejected.update(refused.error.code for refused in rows)
            self._on_refused(table, user, rows)

    async def judge(
        self, identity: Identity, name: TableName, message: InsertMessage, taken: set[Key], *, door: str = ""
    ) -> tuple[int, Sequence[RefusedRow]]:
        """How many rows of a message would be stored and which would be refused alone, judged as ``insert`` would.

        Nothing is stored; raises what the sender would be told. ``taken`` are the keys of the messages before it, to
        which its own are added.
        """
        self.check(name, identity, door, message.taking.conflict)
        table, user = self._catalogue.table(name), identity.user
        batch = await self._reader.read_asking(self._codecs.of(table), [user], [message])
        [(_, decoded)] = batch.each()
        if isinstance(decoded, KalamError):
            raise decoded
        sifted = batch.sifted.get(0) or Sifted(decoded, self._reader.source(message))
        rows = self._tables.of(table)
        check = partial(rows.check, table)
        if message.taking.skip:
            sifted.keep(check)
        elif isinstance(wrong := judged("message", partial(check, decoded)), KalamError):
            raise wrong
        if not message.taking.conflict:
            unwritten = await self._checks.refused(table, user, sifted.rows)
            if unwritten and not message.taking.skip:
                raise unwritten[min(unwritten)]
            sifted.drop(unwritten)
            errors = await rows.taken(table, user, sifted.rows, taken)
            if errors and not message.taking.skip:
                raise errors[min(errors)]
            sifted.drop(errors)
        return len(sifted.rows), sifted.refused

    def in_one_order(self, name: TableName) -> bool:
        """Whether the rows of a table have one order, so that the messages of all users belong into one batch."""
        table = self._catalogue.tables.get(name)
        return table is not None and self._tables.of(table).ordered

    def _check_room(self, byte_count: int) -> None:
        settings = self._settings
        if self.rows_inflight > settings.insert_rows_inflight_max:
            raise TooBusy(f"{self.rows_inflight} rows wait to be stored; try again a little later")
        if self.bytes_inflight and self.bytes_inflight + byte_count > settings.insert_bytes_inflight_max:
            raise TooBusy(f"{self.bytes_inflight} bytes of rows wait to be stored; try again a little later")


_TRACE, _PAYLOAD = attrgetter("trace"), attrgetter("payload")


def _traces(messages: Sequence[InsertMessage], traced: bool) -> Sequence[str]:
    return list(filter(None, map(_TRACE, messages))) if traced else ()
