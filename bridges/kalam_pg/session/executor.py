"""Statements, from their text to their answer: who carries one out, and what is known of it beforehand.

The session itself, the catalogue (for what asks about ``pg_catalog`` and its kind), or the engine, which gets the text
as it came.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, Final

import msgspec
import pyarrow as pa

from kalam.errors import SyntaxFault
from kalam.query.points import PointRow
from kalam.query.results import Result
from kalam.sql import StatementText, split
from kalam.sql.parsed import CHARACTERS_MAX, by_parameter
from kalam.threads import Purpose, in_thread, reading
from kalam_pg import types as pg
from kalam_pg.catalogue import Catalogue, CatalogueText, Field, is_known, recognise, recognise_and_put
from kalam_pg.errors import OutdatedPlan, SqlError
from kalam_pg.session.answers import Ahead, Answer
from kalam_pg.session.command_reader import command_of
from kalam_pg.session.commands import Command, Declare
from kalam_pg.session.known_queries import KnownQueries
from kalam_pg.session.own_database import without_database
from kalam_pg.session.own_statements import OwnStatements, formatted
from kalam_pg.session.own_tables import own_write
from kalam_pg.session.session import Session
from kalam_pg.session.statements import Described, Portal, Prepared, RowShape
from kalam_pg.values.few_rows import Write, lone_row, writer_of
from kalam_pg.values.parameters import from_binary, from_text
from kalam_pg.values.rows import BINARY_FORMAT, Column, columns_of, data_rows_of, spread
from kalam_pg.wire import messages


class LoneAnswer(msgspec.Struct, frozen=True):
    """The whole answer to a query for one row: its RowDescription, and what follows: its row, if any, and its end."""

    described: bytes
    data: bytes


NO_ROW, ONE_ROW = messages.complete("SELECT 0"), messages.complete("SELECT 1")
PARAMETERS_MAX: Final = 65_535
TEXTS_MAX: Final = 512
"""So many texts and statements are kept as they were read, whoever sent them."""
INLINE_CELLS_MAX: Final = 2_000
"""Values of an answer about the catalogue that are made columns of in the event loop; more, in a thread."""
_TOLD_BY_ROWS: Final = frozenset({"INSERT", "UPDATE", "DELETE", "MERGE", "CREATE", "DROP", "ALTER", "GRANT", "REVOKE"})
"""Statements whose message says nothing that the tag does not."""


class Executor:
    """Reads, describes and starts the statements of one session."""

    def __init__(self, session: Session, own: OwnStatements, catalogue: Catalogue) -> None:
        self._session, self._own, self._catalogue = session, own, catalogue
        self._known = KnownQueries(session)

    async def statements(self, text: str) -> Sequence[StatementText]:
        """The statements of a text; none of an empty one."""
        text = without_database(text, self._session.database, self._session.caller.namespaces)
        try:
            return _split(text) if len(text) <= CHARACTERS_MAX else await reading(text, split, text)
        except SyntaxFault:
            if text.strip("; \t\r\n\f\v") and not _is_comment(text):
                raise
            return []

    async def prepare(self, text: str, declared: Sequence[int]) -> Prepared:
        """One statement, as Parse names it; raises SqlError and what the text gets wrong."""
        found = await self.statements(text)
        if len(found) > 1:
            raise SqlError("42601", "cannot insert multiple commands into a prepared statement")
        prepared = await self.read(text, found[0] if found else None, declared)
        await self.keep(prepared)
        return prepared

    async def read(self, text: str, statement: StatementText | None, declared: Sequence[int] = ()) -> Prepared:
        """A statement of a text; raises what is wrong with it, as far as that can be told."""
        command = None if statement is None else _command(statement)
        prepared = Prepared(text, statement, command, declared)
        if statement is not None and prepared.reads:
            prepared.question = await _recognised(statement.text, tuple(declared))
        return prepared

    async def keep(self, prepared: Prepared) -> None:
        """Have a query that was read be ``known`` when it is asked again, also with another literal for its key."""
        if not prepared.reads or prepared.question is not None or prepared.like is not None:
            return
        known = self._known.now()
        found = by_parameter(prepared.text) if not prepared.declared else None
        if found is None:
            known.add(prepared)
            return
        text, value = found
        like = known.get(text, ())
        if like is None and (statements := await self.statements(text)):
            like = await self.read(text, statements[0])
            known.add(like)
        prepared.like, prepared.values = like, (value,)

    def known(self, text: str, declared: tuple[int, ...] = ()) -> Prepared | None:
        """A query that was read before, or one like it but for its key, while all stands as it did then."""
        known = self._known.now()
        found = known.get(text, declared)
        if found is None and not declared and (by_key := by_parameter(text)) is not None:
            like = known.get(by_key[0], ())
            found = None if like is None else like.with_literal(text, by_key[1])
        return found

    async def describe(self, prepared: Prepared) -> Described:
        """What is known of a statement; asked once, but for what a session's state decides."""
        if prepared.command is not None or prepared.statement is None:
            columns = None if prepared.command is None else self._own.columns(prepared.command)
            return Described((), columns)
        if prepared.described is None and prepared.question is not None:
            asked = self._catalogue.describe(prepared.question, prepared.declared)
            prepared.described = Described(tuple(asked.parameters), catalogue_columns(asked.fields))
        if prepared.described is None:
            prepared.standing = self._session.lasting
            prepared.described = await self._described(prepared, prepared.statement.text)
            prepared.lend()
        return prepared.described

    async def _described(self, prepared: Prepared, text: str) -> Described:
        declared = [pg.declared(oid) for oid in prepared.declared]
        found = await self._session.caller.describe(text, declared)
        oids = [pg.typed_of(field).type.oid for field in found.parameters]
        for place, oid in enumerate(prepared.declared[: len(oids)]):
            oids[place] = oid or oids[place]
        return Described(tuple(oids), None if found.fields is None else columns_of(found.fields))

    def _is_stale(self, prepared: Prepared) -> bool:
        """Whether tables changed since the engine described a statement."""
        known = prepared.described is not None and prepared.question is None and prepared.command is None
        return known and prepared.standing is not self._session.lasting

    async def _check_columns(self, prepared: Prepared) -> None:
        """Raise SqlError where a statement's columns are not those any more that the client was told."""
        assert prepared.described is not None
        assert prepared.statement is not None
        standing = self._session.lasting
        now = await self._described(prepared, prepared.statement.text)
        if now.columns != prepared.described.columns:
            raise OutdatedPlan
        prepared.standing = standing

    async def parameters(self, prepared: Prepared, cells: Sequence[bytes | None], formats: Sequence[int]) -> list[Any]:
        """The values of a statement's parameters, read by the types that they have; raises SqlError."""
        oids = prepared.oids(len(cells))
        return self.values((await self.describe(prepared)).parameters if oids is None else oids, cells, formats)

    @staticmethod
    def values(oids: Sequence[int], cells: Sequence[bytes | None], formats: Sequence[int]) -> list[Any]:
        """Values of these types; raises SqlError."""
        if len(oids) != len(cells):
            raise SqlError(
                "08P01", f"bind message supplies {len(cells)} parameters, but the statement requires {len(oids)}"
            )
        read: list[Any] = []
        for cell, oid, form in zip(cells, oids, spread(formats, len(cells)), strict=True):
            kind = pg.BY_OID.get(oid, pg.TEXT)
            if cell is None:
                read.append(None)
            else:
                read.append(from_binary(cell, kind) if form == BINARY_FORMAT else from_text(cell, kind))
        return read

    def look(self, portal: Portal) -> LoneAnswer | None:
        """The answer to a query that asks for one row by its key, if memory knows it; None for everything else.

        Nobody notes what was read, so it is for what is sent at once.
        """
        prepared = portal.prepared
        if not prepared.reads or prepared.question is not None or portal.done or portal.answer is not None:
            return None
        assert prepared.statement is not None
        caller = self._session.lasting
        if prepared.described is not None and prepared.standing is not caller:
            return None
        self._session.block.check(prepared.command)
        like = prepared.like
        if like is None or like.statement is None:
            found = caller.look_row(prepared.statement.text, portal.parameters)
        else:
            found = caller.look_row(like.statement.text, prepared.values)
        return None if found is None else self._lone_answer(prepared, found, portal.formats)

    def _lone_answer(self, prepared: Prepared, found: PointRow, formats: tuple[int, ...]) -> LoneAnswer:
        holder = prepared.like or prepared
        shape = holder.row_shape
        if shape is None or shape.fields is not found.fields or shape.formats != formats:
            columns = self._columns(prepared, found.fields, formats)
            writes, described = _writes(found.fields, columns), messages.row_description(columns)
            shape = holder.row_shape = RowShape(found.fields, formats, columns, writes, described)
        if found.row is None:
            return LoneAnswer(shape.described, NO_ROW)
        data = b""
        if shape.writes is not None:
            with suppress(ValueError, TypeError, AttributeError, OverflowError, struct.error):
                data = lone_row(found.row, shape.writes)
        return LoneAnswer(shape.described, (data or _written(found, shape.columns)) + ONE_ROW)

    async def start(self, portal: Portal, *, paused: bool = False) -> Answer:
        """Begin to carry a statement out, in what is ``running``; ``paused``: its rows may be wanted bit by bit."""
        answer = await self._begun(portal, paused=paused)
        if not answer.asked.requests:
            answer.asked = self._session.asked
        return answer

    async def _begun(self, portal: Portal, *, paused: bool) -> Answer:
        prepared, session = portal.prepared, self._session
        formats = portal.formats
        session.block.check(prepared.command)
        if isinstance(prepared.command, Declare):
            return await self._declare(prepared.command)
        if prepared.command is not None:
            return await self._own.answer(prepared.command, formats)
        assert prepared.statement is not None
        if self._is_stale(prepared):
            await self._check_columns(prepared)
        if prepared.question is not None:
            asked = await self._catalogue.answer(prepared.question, session, portal.parameters, prepared.declared)
            columns = formatted(catalogue_columns(asked.fields), formats)
            if len(asked.rows) * len(columns) <= INLINE_CELLS_MAX:
                return Answer.of_rows(prepared.tag, columns, asked.rows)
            return await in_thread(Purpose.DESCRIPTIONS, Answer.of_rows, prepared.tag, columns, asked.rows)
        if prepared.reads:
            return await self._query(portal, formats, paused=paused)
        if not prepared.writes:
            (result,) = await session.caller.execute(prepared.statement.text, portal.parameters)
            return self._of_result(prepared, result, formats)
        with session.writing(prepared.word, own_write(prepared.statement, session.is_own)):
            (result,) = await session.caller.execute(prepared.statement.text, portal.parameters)
        return self._of_result(prepared, result, formats)

    async def _query(self, portal: Portal, formats: tuple[int, ...], *, paused: bool) -> Answer:
        prepared, session = portal.prepared, self._session
        assert prepared.statement is not None
        tables = session.caller.stream(prepared.statement.text, portal.parameters)
        found = Ahead(tables) if paused else tables
        try:
            first = await anext(found)
        except BaseException:
            await found.aclose()
            raise
        return Answer(prepared.tag, self._columns(prepared, first.schema, formats), found, [first], session.request_id)

    def _columns(self, prepared: Prepared, schema: pa.Schema, formats: tuple[int, ...]) -> tuple[Column, ...]:
        """The columns of a query as they were announced, if they were."""
        described = prepared.described
        if described is not None and described.columns is not None:
            if len(described.columns) != len(schema):  # a table changed after it was looked at
                raise OutdatedPlan
            return formatted(described.columns, formats)
        return columns_of(schema, formats)

    def _of_result(self, prepared: Prepared, result: Result, formats: tuple[int, ...]) -> Answer:
        tag = prepared.tag
        if result.data is not None:
            columns = columns_of(result.data.schema, formats)
            return Answer(tag, columns, at_hand=[result.data])
        answer = Answer(f"{tag}{result.row_count}" if tag.endswith(" ") else tag)
        said = result.message
        if said and (prepared.word not in _TOLD_BY_ROWS or said.startswith("skipped") or "discarded" in said):
            self._session.notice("NOTICE", "00000", said)
        return answer

    async def _declare(self, command: Declare) -> Answer:
        self._own.check_declared(command)
        statement = StatementText(command.query)
        prepared = await self.read(command.query, statement)
        if not prepared.reads:
            raise SqlError("42601", "a cursor is FOR a query")
        portal = Portal(prepared, (), (int(command.binary),))
        portal.declared, portal.held = True, command.hold
        portal.answer = await self.start(portal, paused=True)
        self._session.portals[command.name] = portal
        return Answer("DECLARE CURSOR")


@lru_cache(maxsize=TEXTS_MAX)
def _split(text: str) -> Sequence[StatementText]:
    return split(text)


async def _recognised(text: str, declared: tuple[int, ...]) -> CatalogueText | None:
    """A statement about the catalogue; in a thread where it has to be read, for what tools ask takes milliseconds."""
    if is_known(text):
        return recognise(text)
    return await in_thread(Purpose.TEXTS, recognise_and_put, text, declared)


def _command(statement: StatementText) -> Command | None:
    return command_of(statement) if len(statement.text) > CHARACTERS_MAX else _short_command(statement)


@lru_cache(maxsize=TEXTS_MAX)
def _short_command(statement: StatementText) -> Command | None:
    return command_of(statement)


def _writes(fields: pa.Schema, columns: Sequence[Column]) -> tuple[Write, ...] | None:
    """What writes the values of a row; None where one of them is for Arrow's kernels."""
    found = [writer_of(field.type, column.type, column.format) for field, column in zip(fields, columns, strict=True)]
    writes = tuple(write for write in found if write is not None)
    return writes if len(writes) == len(found) else None


def _written(found: PointRow, columns: Sequence[Column]) -> bytes:
    """A row that is known, by Arrow's kernels."""
    assert found.row is not None
    arrays = [pa.array([value], field.type) for value, field in zip(found.row, found.fields, strict=True)]
    return bytes(data_rows_of(pa.record_batch(arrays, schema=found.fields), columns))


def catalogue_columns(fields: Sequence[Field]) -> tuple[Column, ...]:
    """The columns of what the catalogue answers."""
    return tuple(Column(field.name, pg.known(field.oid), field.typmod) for field in fields)


def _is_comment(text: str) -> bool:
    stripped = text.strip()
    return stripped.startswith(("--", "/*"))
