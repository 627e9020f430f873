"""The table that could be made over a foreign stream, guessed from some of its messages.

Messages that look alike (as many tokens, one encoding, the same members) are taken together, and those whose subjects
could not be told apart by a pattern, too. Where tokens differ there is a ``*``, and a column.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec

from kalam.foreign import ColumnSource, ForeignOptions, Over, Payload, Place
from kalam.names import NAME_PATTERN, TableName
from kalam.rows.foreign.messages import ForeignMessages, is_no_event, key_of, read_headers
from kalam.rows.foreign.paths import path_to
from kalam.rows.inference import type_of_values
from kalam.rows.judged import UNREADABLE
from kalam.schema import Column, DataType, TableDefinition, TableKind, TypeName
from kalam.sql.tables.column_types import read_type
from kalam.sql.tables.spelling import create_table_sql
from kalam.sql.text.cursor import Cursor
from kalam.sql.text.lexer import StatementText

SHAPES_MAX = 50
COLUMNS_MAX = 200
_OWN_HEADERS = "Nats-"


class Seen(msgspec.Struct, frozen=True):
    """A message as it is looked at: the tokens of its subject, how its payload is written, its members, its headers."""

    tokens: tuple[str, ...]
    payload: Payload
    members: dict[str, Any]
    headers: tuple[str, ...]


class ProposedColumn(msgspec.Struct, frozen=True):
    """A column, and in how many messages it has a value and is NULL."""

    column: Column
    present: int
    nulls: int


class Proposal(msgspec.Struct, frozen=True):
    """A table for the messages of a pattern of subjects: how many of the sample they are, and how they are written."""

    subject: str
    messages: int
    encodings: Counter[Payload]
    columns: Sequence[ProposedColumn]

    @property
    def payload(self) -> Payload:
        """How most are written."""
        return self.encodings.most_common(1)[0][0]

    def statement(self, name: TableName, over: Over) -> str:
        """The CREATE statement."""
        definition = TableDefinition(
            name=name,
            kind=TableKind.FOREIGN,
            columns=tuple(proposed.column for proposed in self.columns),
            key=(),
            options=ForeignOptions(over=over, payload=self.payload),
        )
        return create_table_sql(definition)


def propose(messages: ForeignMessages, *, of_bucket: bool = False) -> list[Proposal]:
    """A table for each kind of message, the most frequent first; one for all keys of a bucket."""
    seen = [
        _seen(key_of(subject) if of_bucket else subject, block, payload)
        for subject, block, payload in zip(messages.subjects, messages.headers, messages.payloads, strict=True)
        if not is_no_event(block)
    ]
    if of_bucket:
        return [_proposal(seen)] if seen else []
    shapes: dict[tuple[int, Payload, frozenset[str]], list[Seen]] = {}
    for one in seen:
        shapes.setdefault((len(one.tokens), one.payload, frozenset(one.members)), []).append(one)
    groups = sorted(shapes.values(), key=len, reverse=True)[:SHAPES_MAX]
    return [_proposal(group) for group in sorted(_merged(groups), key=len, reverse=True)]


def _seen(subject: bytes, block: bytes, payload: bytes) -> Seen:
    tokens = tuple(subject.decode("utf-8", "replace").split("."))
    headers = tuple(name for name in read_headers(block) if not name.startswith(_OWN_HEADERS)) if block else ()
    for kind, coder in ((Payload.JSON, msgspec.json), (Payload.MSGPACK, msgspec.msgpack)):
        try:
            value = coder.decode(payload)
        except UNREADABLE:
            continue
        if isinstance(value, dict):
            return Seen(tokens, kind, {str(name): member for name, member in value.items()}, headers)
    try:
        payload.decode()
    except UnicodeDecodeError:
        return Seen(tokens, Payload.RAW, {}, headers)
    return Seen(tokens, Payload.TEXT, {}, headers)


def _merged(groups: list[list[Seen]]) -> list[list[Seen]]:
    """The groups, those with subjects of one pattern together."""
    merged: list[list[Seen]] = []
    for group in groups:
        like = next((other for other in merged if _overlap(_pattern(other), _pattern(group))), None)
        if like is None:
            merged.append(list(group))
        else:
            like += group
    return merged if len(merged) == len(groups) else _merged(merged)  # a pattern that grew may meet another


def _pattern(group: Sequence[Seen]) -> tuple[str, ...]:
    """The tokens, ``*`` where they differ, ``>`` from where on not all have one."""
    parts = [texts[0] if len(set(texts)) == 1 else "*" for texts in zip(*(one.tokens for one in group), strict=False)]
    return (*parts, ">") if len({len(one.tokens) for one in group}) > 1 else tuple(parts)


def _overlap(one: Sequence[str], other: Sequence[str]) -> bool:
    return len(one) == len(other) and all(a == b or "*" in (a, b) for a, b in zip(one, other, strict=True))


def _proposal(group: Sequence[Seen]) -> Proposal:
    pattern = _pattern(group)
    encodings = Counter(one.payload for one in group)
    payload = encodings.most_common(1)[0][0]
    names: set[str] = set()
    columns = [
        _column(names, f"token_{place}", "TEXT", ColumnSource(Place.TOKEN, place), len(group), 0)
        for place, token in enumerate(pattern, 1)
        if token in ("*", ">")
    ]
    columns += _in_payload(names, [one for one in group if one.payload is payload], payload)
    headers = Counter(name for one in group for name in one.headers)
    columns += [
        _column(names, _called(name), "TEXT", ColumnSource(Place.HEADER, name), count, 0)
        for name, count in headers.items()
    ]
    numbered = [
        msgspec.structs.replace(each, column=msgspec.structs.replace(each.column, column_id=number))
        for number, each in enumerate(columns[:COLUMNS_MAX], 1)
    ]
    return Proposal(".".join(pattern), len(group), encodings, numbered)


def _in_payload(names: set[str], group: Sequence[Seen], payload: Payload) -> list[ProposedColumn]:
    if payload in (Payload.TEXT, Payload.RAW):
        kind = "TEXT" if payload is Payload.TEXT else "BLOB"
        return [_column(names, "payload", kind, None, len(group), 0)]
    values: dict[str, list[Any]] = {}
    for one in group:
        for name, value in one.members.items():
            values.setdefault(name, []).append(value)
    columns = []
    for name, found in values.items():
        if '"' in name or "\\" in name or not name.isprintable():
            continue  # no path leads there
        plain = NAME_PATTERN.fullmatch(name) is not None and name not in names
        source = None if plain else ColumnSource(Place.PATH, path_to(name))
        there = [value for value in found if value is not None]
        called, nulls = name if plain else _called(name), len(found) - len(there)
        columns.append(_column(names, called, type_of_values(there), source, len(found), nulls))
    return columns


def _column(
    names: set[str], name: str, kind: str, source: ColumnSource | None, present: int, nulls: int
) -> ProposedColumn:
    unique, number = name, 2
    while unique in names:
        unique, number = f"{name[:58]}_{number}", number + 1
    names.add(unique)
    column = Column(column_id=1, name=unique, type=_type(kind), source=source)
    return ProposedColumn(column, present, nulls)


def _type(kind: str) -> DataType:
    return DataType(name=TypeName.TEXT) if kind == "TEXT" else read_type(Cursor(StatementText(kind)))


def _called(name: str) -> str:
    """A name that a column may have, after that of a member or a header: machineId is machine_id."""
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    clean = re.sub(r"[^a-z0-9]+", "_", snake).strip("_")[:60]
    return clean if clean[:1].isalpha() else f"c_{clean}".rstrip("_")
