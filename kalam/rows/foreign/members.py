"""Payloads that are maps, in JSON or msgpack: the members that columns name, and what lies deeper by its path.

All that a message has to be is said in one type, which msgspec decodes and checks in one pass. Only a message that
fails is taken apart, member by member, so that what is wrong with it can be told and the rest of it be shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from kalam.foreign import Payload
from kalam.rows.column_types import Decoding
from kalam.rows.door import usable_default
from kalam.rows.foreign.faults import MISSING, Fault, Faults, Reason, fixed, wrong_value
from kalam.rows.judged import UNREADABLE
from kalam.rows.refusals import cut
from kalam.rows.types import door_type
from kalam.schema import Column, TypeName

Steps = tuple[str | int, ...]
_NULLS = (b"null", b"\xc0")


class Members:
    """Reads the columns of a payload; ``paths`` leads to each of them, a name first."""

    def __init__(self, columns: Sequence[Column], paths: Sequence[Steps], payload: Payload) -> None:
        self._columns, self._paths = columns, paths
        self._coder: Any = msgspec.json if payload is Payload.JSON else msgspec.msgpack
        native = payload is Payload.MSGPACK and any(column.type.name is TypeName.BLOB for column in columns)
        self._types = [_value_type(column, Decoding(native)) for column in columns]
        roots = [str(path[0]) for path in paths]
        self._whole = [len(path) == 1 and roots.count(path[0]) == 1 for path in paths]  # type: ignore[arg-type]
        self._roots = list(dict.fromkeys(roots))
        self._fields = [self._roots.index(root) for root in roots]
        self._filled = [usable_default(column) is not None for column in columns]
        self._decoder = self._coder.Decoder(self._struct())
        self._parts = self._coder.Decoder(dict[str, msgspec.Raw])

    def _struct(self) -> type[msgspec.Struct]:
        fields: list[Any] = [(f"f{number}", msgspec.Raw, MISSING) for number in range(len(self._roots))]
        for number, (column, whole, place) in enumerate(zip(self._columns, self._whole, self._fields, strict=True)):
            if whole:
                fields[place] = _field(f"f{place}", column, self._types[number], filled=self._filled[number])
        names = {f"f{number}": root for number, root in enumerate(self._roots)}
        for number, (name, kind, *default) in enumerate(fields):
            if kind is msgspec.Raw:
                fields[number] = (name, msgspec.Raw | msgspec.UnsetType, *default)
        return msgspec.defstruct("Members", fields, rename=names, gc=False, kw_only=True)

    def read(self, payloads: Sequence[bytes], faults: Faults) -> list[Sequence[Any]]:
        """The values of each column; NULL for what is wrong, and noted.

        What a message does not have is MISSING where the column has a default, else NULL.
        """
        rows: list[tuple[Any, ...]] = []
        decoded = map(msgspec.structs.astuple, map(self._decoder.decode, payloads))
        whole = True
        while True:
            try:
                rows.extend(decoded)  # which goes on behind one that failed, and does nothing for each in Python
            except UNREADABLE:
                whole = False
                rows.append(self._taken_apart(payloads[len(rows)], len(rows), faults))
            else:
                break
        fields = list(zip(*rows, strict=True)) if rows and self._roots else [()] * len(self._roots)
        return [self._values(number, fields, faults, whole=whole) for number in range(len(self._columns))]

    def _values(self, number: int, fields: Sequence[Sequence[Any]], faults: Faults, *, whole: bool) -> Sequence[Any]:
        column, values = self._columns[number], fields[self._fields[number]]
        if not self._whole[number]:
            values = [self._along(number, raw, place, faults) for place, raw in enumerate(values)]
        elif whole and not self._filled[number]:
            return fixed(column, values, faults)
        if not self._filled[number]:
            values = [None if value is MISSING else value for value in values]
        if MISSING in values:  # what a decoder did not give is not to be fixed
            there = [place for place, value in enumerate(values) if value is not MISSING]
            own: Faults = {}
            some = fixed(column, [values[place] for place in there], own)
            for place, fault in own.items():
                faults.setdefault(there[place], fault)
            known = dict(zip(there, some, strict=True))
            return [known.get(place, MISSING) for place in range(len(values))]
        return fixed(column, values, faults)

    def _along(self, number: int, raw: Any, place: int, faults: Faults) -> Any:
        """What lies at the end of a path."""
        try:
            for step in self._paths[number][1:]:
                if raw is MISSING or bytes(raw) in _NULLS:
                    return MISSING
                raw = self._step(raw, step)
        except UNREADABLE:
            return MISSING  # something else lies on the way
        return MISSING if raw is MISSING else self._decoded(number, raw, place, faults)

    def _step(self, raw: Any, step: str | int) -> Any:
        if isinstance(step, str):
            return self._parts.decode(raw).get(step, MISSING)
        items = self._coder.decode(raw, type=list[msgspec.Raw])
        return items[step] if step < len(items) else MISSING

    def _decoded(self, number: int, raw: Any, place: int, faults: Faults) -> Any:
        column = self._columns[number]
        if bytes(raw) in _NULLS:
            return None
        try:
            return self._coder.decode(raw, type=self._types[number])
        except UNREADABLE:
            faults.setdefault(place, wrong_value(column, self._shown(raw)))
            return None

    def _taken_apart(self, payload: bytes, place: int, faults: Faults) -> tuple[Any, ...]:
        """The values of the struct's fields of a message that fails as a whole."""
        nothing = (None,) * len(self._roots)
        members = self._members(payload, place, faults)
        if members is None:
            return nothing
        values: list[Any] = [members.get(root, MISSING) for root in self._roots]
        for number, whole in enumerate(self._whole):
            field = self._fields[number]
            if whole and values[field] is not MISSING:
                values[field] = self._decoded(number, values[field], place, faults)
        return tuple(values)

    def _members(self, payload: bytes, place: int, faults: Faults) -> Mapping[str, Any] | None:
        try:
            parts: Mapping[str, Any] = self._parts.decode(payload)
        except UNREADABLE as exc:
            try:
                self._coder.decode(payload)
            except UNREADABLE as worse:
                faults.setdefault(place, Fault(Reason.MALFORMED, f"the payload is malformed: {cut(str(worse))}"))
            else:
                faults.setdefault(place, Fault(Reason.NOT_A_MAP, f"the payload is not a map: {cut(str(exc))}"))
            return None
        return parts

    def _shown(self, raw: Any) -> str:
        try:
            return cut(msgspec.json.encode(self._coder.decode(raw)).decode())
        except UNREADABLE:
            return "what cannot be shown"


def _value_type(column: Column, how: Decoding) -> Any:
    """The type of a value that is not NULL."""
    return door_type(msgspec.structs.replace(column, nullable=False), how)


def _field(name: str, column: Column, kind: Any, *, filled: bool) -> tuple[Any, ...]:
    """The field of a member that a column is. What is missing is told from NULL where a default is to fill it."""
    known = kind | None if column.nullable and kind is not Any else kind
    if filled:
        return (name, known if known is Any else known | msgspec.UnsetType, MISSING)
    return (name, known, None) if column.nullable else (name, known)
