"""Messages of rows of which some may be there already (``Kalam-On-Conflict``): left as they are, or updated.

The rows that are there are read from one view and changed by the same task of the writer as those of an INSERT … ON
CONFLICT, and a row gets what the message names of it and nothing else. Where a key comes more than once in a message
its rows are taken one after another, as if each had been a message: where a file is cut into messages says nothing
about its rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import msgspec

from kalam.access.model import Command
from kalam.engine.message_reader import MessageReader
from kalam.engine.row_checks import RowChecks
from kalam.errors import KalamError, Unsupported
from kalam.query.policies import denied
from kalam.query.queries import Queries
from kalam.rows.codec import Codecs
from kalam.rows.door import Named
from kalam.rows.judged import judged
from kalam.rows.types import Row
from kalam.schema import ROW_ID, Table
from kalam.storage.log.copies import Key, View
from kalam.storage.segments.key_rows import KeyedRows
from kalam.tables.insert_batch import InsertMessage
from kalam.tables.kinds import Rows, Tables
from kalam.tables.matched import Matched
from kalam.tables.sifted import RefusedRow, Sifted, with_refused
from kalam.tables.stored import Once
from kalam.threads import beside


class Merged(msgspec.Struct, frozen=True):
    """What became of a message: its answer, and the rows that were refused alone."""

    answer: bytes
    rows: int = 0
    refused: Sequence[RefusedRow] = ()


class Proposals(msgspec.Struct):
    """The rows of a message by key. ``named`` says of a row which columns it names, where those are not all."""

    table: Table
    rows: dict[Key, Row] = msgspec.field(default_factory=dict)
    named: dict[Key, Sequence[bool]] = msgspec.field(default_factory=dict)

    @classmethod
    def of(cls, table: Table, rows: Sequence[Row], named: Named, *, update: bool) -> Proposals:
        """Of a key that comes again the first row counts, or for an update each in turn."""
        found, key_of = cls(table), table.key_of
        names = [column.name for column in table.columns]
        everything = [True] * len(rows)
        masks = list(zip(*(named.get(name, everything) for name in names), strict=True)) if named else []
        for place, row in enumerate(rows):
            key, mask = key_of(row), masks[place] if masks else None
            if key not in found.rows:
                found.rows[key] = row
                if mask is not None:
                    found.named[key] = mask
            elif update:
                found.rows[key] = _over(found.rows[key], row, mask)
                if mask is not None:
                    found.named[key] = tuple(map(max, found.named[key], mask))
        return found

    def updated(self, olds: Sequence[Row]) -> list[Row]:
        """What the rows that are there become."""
        keys = map(self.table.key_of, olds)
        return [_over(old, self.rows[key], self.named.get(key)) for old, key in zip(olds, keys, strict=True)]

    def new(self, olds: Sequence[Row]) -> list[Row]:
        """The rows whose keys are not there."""
        there = set(map(self.table.key_of, olds))
        return [row for key, row in self.rows.items() if key not in there]


def _over(old: Row, new: Row, mask: Sequence[bool] | None) -> Row:
    if mask is None:
        return new
    return tuple(after if named else before for before, after, named in zip(old, new, mask, strict=True))


class Merges:
    """Merges messages into SHARED and USER tables."""

    def __init__(
        self, codecs: Codecs, tables: Tables[Rows], queries: Queries, checks: RowChecks, rows_max: int
    ) -> None:
        self._codecs, self._tables, self._queries, self._checks = codecs, tables, queries, checks
        self._rows_max = rows_max
        self._reader = MessageReader(rows_max)

    async def merge(self, table: Table, user: str, message: InsertMessage) -> Merged:
        """Store the rows of a message that are new, and update or leave the others; raises what is wrong with it."""
        stored = self._tables.of(table).stored(table, "on_conflict")
        check_keyed(table)
        proposals, count, sifted = await self._read(table, user, message)
        update = message.taking.conflict == "update"

        async def match(newest: Table, view: View) -> Matched:
            nonlocal proposals, count, sifted
            if proposals.table is not newest:
                proposals, count, sifted = await self._read(newest, user, message)
            found = await self._queries.rows_by_key(stored, newest, user, view, list(proposals.rows))
            matched = await beside(len(proposals.rows), _matched, proposals, found, update=update)
            refused = await self._refused(newest, user, matched)
            if not refused:
                return matched
            if sifted is None:
                raise refused[min(refused, key=list(proposals.rows).index)]
            places = {place: newest.key_of(row) for place, row in enumerate(sifted.rows)}
            sifted.drop({place: refused[key] for place, key in places.items() if key in refused})
            proposals, count = await self._proposed(newest, user, message, sifted)
            there = KeyedRows([row for row in found.rows if newest.key_of(row.row) not in refused], found.seen_seq)
            return await beside(len(proposals.rows), _matched, proposals, there, update=update)

        def answer(matched: Matched, last_seq: int) -> bytes:
            updated = len(matched.news or ())
            rows = updated + len(matched.inserts)
            seq = b',"seq":%d' % last_seq if rows else b""
            left = b',"updated":%d' % updated if update else b',"skipped":%d' % (count - rows)
            told = b'{"rows":%d%b%b}' % (rows, seq, left)
            return told if sifted is None else with_refused(told, sifted.told())

        once = None if message.msg_id is None else Once(user, message.msg_id, answer)
        done = await stored.change(table, user, match, once)
        refused = sifted.refused if sifted else ()
        if done.repeated is not None:
            return Merged(done.repeated)
        if done.matched is None:
            return Merged(answer(NOTHING, 0), refused=refused)
        rows = len(done.matched.inserts) + len(done.matched.news or ())
        return Merged(answer(done.matched, done.last_seq), rows, refused)

    async def _refused(self, table: Table, user: str, matched: Matched) -> dict[Key, KalamError]:
        """Why rows may not be written, by key: for the policies a new row is an INSERT, one that is there an UPDATE."""
        if not self._checks.bind(table):
            return {}
        key_of, policies = table.key_of, self._queries.policies
        wrong = await self._checks.refused(table, user, matched.inserts)
        refused = {key_of(matched.inserts[place]): error for place, error in wrong.items()}
        if matched.olds:
            seen = policies.seen(user, table, Command.UPDATE, Command.SELECT)
            held = await policies.held(table, seen, matched.olds)
            written = policies.written(user, table, Command.UPDATE, reads=True)
            kept = await policies.held(table, written, matched.news or ())
            for old, visible, allowed in zip(matched.olds, held, kept, strict=True):
                if not (visible and allowed):
                    refused[key_of(old)] = denied(table)
        return refused

    def _reading(self, table: Table, user: str, message: InsertMessage) -> Callable[[bytes], tuple[Proposals, int]]:
        update = message.taking.conflict == "update"
        decoder = self._codecs.of(table).decoder_of(message.taking)

        def read(payload: bytes) -> tuple[Proposals, int]:
            found = decoder.decode_named(payload, user=user, arrow=message.arrow, rows_max=self._rows_max)
            return Proposals.of(table, *found, update=update), len(found[0])

        return read

    async def _proposed(self, table: Table, user: str, message: InsertMessage, sifted: Sifted) -> tuple[Proposals, int]:
        """What is left of a message whose wrong rows are refused alone."""
        if not sifted.rows:
            return Proposals(table), 0
        return await beside(len(sifted.rows), self._reading(table, user, message), sifted.payload)

    async def _read(self, table: Table, user: str, message: InsertMessage) -> tuple[Proposals, int, Sifted | None]:
        if not message.taking.skip:
            found = judged("message", partial(self._reading(table, user, message), message.payload))
            if isinstance(found, KalamError):
                raise found
            return (*found, None)
        batch = await self._reader.read_asking(self._codecs.of(table), [user], [message])
        if 0 in batch.errors:
            raise batch.errors[0]
        sifted = batch.sifted[0]
        sifted.keep(partial(self._tables.of(table).check, table))
        return (*await self._proposed(table, user, message, sifted), sifted)


NOTHING = Matched(olds=[], seqs=[], updated_us=[], news=[], seen_seq=0)


def check_keyed(table: Table) -> None:
    """Raise Unsupported for a table whose rows have no key that a sender could name."""
    if table.key == (ROW_ID,):
        raise Unsupported(
            f"on_conflict: table {table.name} has no primary key, so no row can be there already",
            hint="create it with a PRIMARY KEY",
        )


def _matched(proposals: Proposals, found: KeyedRows, *, update: bool) -> Matched:
    olds: list[Any] = [found_row.row for found_row in found.rows]
    inserts = proposals.new(olds)
    if not update:
        return Matched(olds=[], seqs=[], updated_us=[], news=[], seen_seq=found.seen_seq, inserts=inserts)
    matched = Matched.of_keyed(found, proposals.updated(olds))
    return Matched(
        olds=matched.olds,
        seqs=matched.seqs,
        updated_us=matched.updated_us,
        news=matched.news,
        seen_seq=matched.seen_seq,
        inserts=inserts,
    )
