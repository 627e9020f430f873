"""The messages that the server sends, as bytes (https://www.postgresql.org/docs/15/protocol-message-formats.html)."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Final

from kalam_pg.errors import Told
from kalam_pg.values.rows import Column

AUTHENTICATED: Final = b"R\0\0\0\x08\0\0\0\0"
ASK_PASSWORD: Final = b"R\0\0\0\x08\0\0\0\x03"
PARSED: Final = b"1\0\0\0\x04"
BOUND: Final = b"2\0\0\0\x04"
CLOSED: Final = b"3\0\0\0\x04"
NO_DATA: Final = b"n\0\0\0\x04"
SUSPENDED: Final = b"s\0\0\0\x04"
EMPTY_QUERY: Final = b"I\0\0\0\x04"
COPY_DONE: Final = b"c\0\0\0\x04"
_DESCRIBED: Final = struct.Struct(">IhIhih")


def message(kind: bytes, body: bytes) -> bytes:
    """A message with its length."""
    return kind + struct.pack(">i", len(body) + 4) + body


def ready(status: str) -> bytes:
    """ReadyForQuery: ``I`` outside of a block, ``T`` in one, ``E`` in one that has failed."""
    return b"Z\0\0\0\x05" + status.encode()


def sasl(*mechanisms: str) -> bytes:
    """What a client may log in by."""
    return message(b"R", struct.pack(">i", 10) + b"".join(map(text, mechanisms)) + b"\0")


def sasl_continue(data: str) -> bytes:
    """The server's first message of SCRAM."""
    return message(b"R", struct.pack(">i", 11) + data.encode())


def sasl_final(data: str) -> bytes:
    """Its last."""
    return message(b"R", struct.pack(">i", 12) + data.encode())


def parameter_status(name: str, value: str) -> bytes:
    """What a setting is that the client is told of."""
    return message(b"S", text(name) + text(value))


def backend_key(pid: int, secret: int) -> bytes:
    """What a cancel request has to name."""
    return message(b"K", struct.pack(">iI", pid, secret))


def negotiate(unknown: Sequence[str]) -> bytes:
    """That 3.0 is spoken, and which of the client's options are not known."""
    return message(b"v", struct.pack(">ii", 0, len(unknown)) + b"".join(map(text, unknown)))


def row_description(columns: Iterable[Column]) -> bytes:
    """The columns of the rows that follow."""
    fields = [
        text(column.name)
        + _DESCRIBED.pack(
            column.table_oid, column.number, column.type.oid, column.type.size, column.modifier, column.format
        )
        for column in columns
    ]
    return message(b"T", struct.pack(">h", len(fields)) + b"".join(fields))


def parameter_description(oids: Sequence[int]) -> bytes:
    """The types of a statement's parameters."""
    return message(b"t", struct.pack(f">H{len(oids)}I", len(oids), *oids))


def complete(tag: str) -> bytes:
    """A statement is carried out."""
    return message(b"C", text(tag))


def error(told: Told, severity: str = "ERROR") -> bytes:
    """What went wrong."""
    return message(b"E", _fields(told, severity))


def notice(severity: str, sqlstate: str, detail: str) -> bytes:
    """What should be known besides."""
    return message(b"N", _fields(Told(sqlstate, detail), severity))


def notification(pid: int, channel: str, payload: str) -> bytes:
    """Something that was listened for."""
    return message(b"A", struct.pack(">i", pid) + text(channel) + text(payload))


def copy_in(formats: Sequence[int]) -> bytes:
    """The server waits for rows."""
    return message(b"G", _copy(formats))


def copy_out(formats: Sequence[int]) -> bytes:
    """Rows follow."""
    return message(b"H", _copy(formats))


def copy_data(data: bytes) -> bytes:
    """A piece of them."""
    return message(b"d", data)


def text(written: str) -> bytes:
    """A text with its byte 0; one that has such a byte ends there."""
    return written.encode("utf-8", "replace").partition(b"\0")[0] + b"\0"


def _copy(formats: Sequence[int]) -> bytes:
    overall = int(any(formats))
    return struct.pack(f">bh{len(formats)}h", overall, len(formats), *formats)


def _fields(told: Told, severity: str) -> bytes:
    parts = [("S", severity), ("V", severity), ("C", told.sqlstate), ("M", told.detail)]
    if told.hint:
        parts.append(("H", told.hint))
    if told.position:
        parts.append(("P", str(told.position)))
    if told.routine:
        parts.append(("R", told.routine))
    return b"".join(name.encode() + text(value) for name, value in parts) + b"\0"
