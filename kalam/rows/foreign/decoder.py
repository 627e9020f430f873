"""Messages of a foreign stream to rows of the table over it: a pull of them at once, a column at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec
import numpy as np
import pyarrow as pa

from kalam.foreign import ForeignOptions, Invalid, Payload, Place
from kalam.rows.door import usable_default
from kalam.rows.event_defaults import MADE, event_default
from kalam.rows.foreign.faults import MISSING, Faults, fixed, from_texts, missing_value, wrong_value
from kalam.rows.foreign.lines import Lines, Whole
from kalam.rows.foreign.members import Members, Steps
from kalam.rows.foreign.messages import (
    BEFORE_KEY,
    ForeignMessages,
    Headers,
    is_no_event,
    read_headers,
    tokens_of,
)
from kalam.rows.foreign.paths import steps_of
from kalam.rows.timestamps import from_micros
from kalam.rows.types import Row, arrow_type
from kalam.rows.values import shorten
from kalam.schema import SEQ, Column, Table

SUBJECT, TIME, HEADERS, RAW, ERROR = "_subject", "_time", "_headers", "_raw", "_error"
EXTRAS = (SUBJECT, HEADERS, RAW, ERROR)
"""The virtual columns that are kept only where they are asked for; of ``_seq`` and ``_time`` each row knows anyway."""
EXTRA_TYPES = {SUBJECT: pa.string(), HEADERS: pa.string(), RAW: pa.binary(), ERROR: pa.string()}
PUT = "put"
"""The operation that made a key what it is, of every key that is there."""


class Payloads(Protocol):
    """Reads what stands in payloads."""

    def read(self, payloads: Sequence[bytes], faults: Faults) -> list[Sequence[Any]]:
        """The values of each column; NULL for what is wrong, and noted.

        What a message does not have is MISSING where the column has a default, else NULL.
        """


class Decoded(msgspec.Struct, frozen=True):
    """The rows of messages: which of these are rows, their values by column, and what is wrong with messages."""

    places: Sequence[int]
    columns: Sequence[Sequence[Any]]
    faults: Faults


class ForeignDecoder:
    """Decodes the messages of one table, at one schema version."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self._options: ForeignOptions = table.foreign_options
        self._columns = table.columns
        members = [column for column in self._columns if _in_payload(column)]
        self._members = [column.name for column in members]
        self._payloads = _payloads(members, self._options.payload)
        self._defaults = [usable_default(column) for column in self._columns]
        places = {column.source.place for column in self._columns if column.source is not None}
        self._in_headers, self._in_subjects = Place.HEADER in places, Place.TOKEN in places
        self._before = BEFORE_KEY if table.is_bucket else 0

    def decode(self, messages: ForeignMessages, *, with_wrong: bool = False) -> Decoded:
        """The rows; those of messages that do not decode are among them if they are to be shown, or ``with_wrong``."""
        events = list(range(len(messages)))
        if any(messages.headers):
            events = [place for place, block in enumerate(messages.headers) if not (block and is_no_event(block))]
        found = messages if len(events) == len(messages) else messages.only(events)
        faults: Faults = {}
        members = dict(zip(self._members, self._payloads.read(found.payloads, faults), strict=True))
        tokens = tokens_of(found.subjects) if self._in_subjects else {}
        headers = [read_headers(block) for block in found.headers] if self._in_headers else []
        columns: list[Sequence[Any]] = []
        for column, default in zip(self._columns, self._defaults, strict=True):
            values = members.get(column.name)
            if values is None:
                values = _texts(column, found, tokens, headers, self._before, faults)
            if (default is not None or column.name not in members) and MISSING in values:
                values = self._filled(column, default, values, found)
            if not column.nullable and None in values:
                for place, value in enumerate(values):
                    if value is None:
                        faults.setdefault(place, missing_value(column))
            columns.append(values)
        return self._kept(events, columns, faults, with_wrong=with_wrong)

    def _kept(self, events: list[int], columns: list[Sequence[Any]], faults: Faults, *, with_wrong: bool) -> Decoded:
        by_message = {events[place]: fault for place, fault in faults.items()}
        if not faults or with_wrong or self._options.invalid is Invalid.NULL:
            return Decoded(events, columns, by_message)
        right = [place for place in range(len(events)) if place not in faults]
        return Decoded(
            [events[place] for place in right], [[values[place] for place in right] for values in columns], by_message
        )

    def _filled(
        self, column: Column, default: Column | None, values: Sequence[Any], found: ForeignMessages
    ) -> Sequence[Any]:
        """The values with the column's default, or NULL, for what is missing; the same at every read."""
        if default is None or default.default is None:
            return [None if value is MISSING else value for value in values]
        if default.default.kind in MADE:
            of = self.table.table_id
            return [
                event_default(column, of, seq, ns // 1_000) if value is MISSING else value
                for value, seq, ns in zip(values, found.seqs, found.times_ns, strict=True)
            ]
        [literal] = fixed(column, [default.default.literal], {})
        return [literal if value is MISSING else value for value in values]

    def batch(self, messages: ForeignMessages, extras: Sequence[str]) -> tuple[list[pa.Array], Sequence[int], Faults]:
        """The Arrow arrays of the columns and of ``extras``, the places of the messages that are rows, and faults."""
        decoded = self.decode(messages, with_wrong=ERROR in extras)
        faults, places = dict(decoded.faults), decoded.places
        pairs = zip(self._columns, decoded.columns, strict=True)
        arrays = [_array(column, values, places, faults) for column, values in pairs]
        arrays += [_extra_array(name, messages, places, faults) for name in extras]
        return arrays, places, faults

    def versions(self, messages: ForeignMessages) -> list[tuple[int, Row]]:
        """The rows with all their virtual columns, each behind its sequence."""
        decoded = self.decode(messages)
        virtual: list[Sequence[Any]] = []
        for name in self.table.system_columns:
            if name == SEQ:
                virtual.append([messages.seqs[place] for place in decoded.places])
            elif name == TIME:
                micros = np.array([messages.times_ns[place] for place in decoded.places], np.int64) // 1_000
                virtual.append(from_micros(micros))
            else:
                virtual.append(_extra(name, messages, decoded.places, decoded.faults))
        seqs = [messages.seqs[place] for place in decoded.places]
        return list(zip(seqs, zip(*decoded.columns, *virtual, strict=True), strict=True))


def _in_payload(column: Column) -> bool:
    return column.source is None or column.source.place is Place.PATH


def _payloads(columns: Sequence[Column], payload: Payload) -> Payloads:
    match payload:
        case Payload.JSON | Payload.MSGPACK:
            return Members(columns, [_steps(column) for column in columns], payload)
        case Payload.CSV:
            return Lines(columns)
        case Payload.TEXT | Payload.RAW:
            return Whole(columns, text=payload is Payload.TEXT)


def _steps(column: Column) -> Steps:
    if column.source is None:
        return (column.name,)
    steps = steps_of(str(column.source.at))
    assert steps is not None  # as it was read
    return steps


def _texts(
    column: Column,
    found: ForeignMessages,
    tokens: dict[bytes, list[str]],
    headers: list[Headers],
    before: int,
    faults: Faults,
) -> Sequence[Any]:
    """The values of a column that stand in headers, or in subjects, of which so many tokens ``before`` do not count."""
    assert column.source is not None
    at = column.source.at
    texts: list[str | None]
    if isinstance(at, int):
        place = before + at - 1
        by_subject = {subject: parts[place] if place < len(parts) else None for subject, parts in tokens.items()}
        texts = [by_subject[subject] for subject in found.subjects]
    else:
        texts = [named[0] if (named := each.get(at)) else None for each in headers]
    read = from_texts(column, texts, faults)
    if None not in texts:
        return read
    return [MISSING if text is None else value for text, value in zip(texts, read, strict=True)]


def _array(column: Column, values: Sequence[Any], places: Sequence[int], faults: Faults) -> pa.Array:
    """The values in Arrow; what it does not hold is NULL, and noted."""
    kind = arrow_type(column.type)
    try:
        return pa.array(values, kind)
    except Exception:  # noqa: BLE001 - a value decodes to what Arrow does not hold: each by itself
        held = []
        for place, value in zip(places, values, strict=True):
            try:
                pa.array([value], kind)
            except Exception:  # noqa: BLE001 - whatever it is, it is this value's
                faults.setdefault(place, wrong_value(column, shorten(value)))
                value = None  # noqa: PLW2901
            held.append(value)
        return pa.array(held, kind)


def _extra_array(name: str, messages: ForeignMessages, places: Sequence[int], faults: Faults) -> pa.Array:
    kind = EXTRA_TYPES[name]
    if (name == ERROR and not faults) or (name == HEADERS and not any(messages.headers)):
        return pa.nulls(len(places), kind)
    return pa.array(_extra(name, messages, places, faults), kind)


def _extra(name: str, messages: ForeignMessages, places: Sequence[int], faults: Faults) -> list[Any]:
    """The values of a virtual column."""
    match name:
        case "_subject":
            return [messages.subjects[place].decode("utf-8", "replace") for place in places]
        case "_headers":
            return [_headers_text(messages.headers[place]) for place in places]
        case "_raw":
            return [bytes(messages.payloads[place]) for place in places]
        case _:
            return [fault.text if (fault := faults.get(place)) else None for place in places]


def _headers_text(block: bytes) -> str | None:
    return msgspec.json.encode(read_headers(block)).decode() if block else None
