"""Parameters and COPY's values, from PostgreSQL's text and binary forms to Python values, by their type's OID.

What is read: None, bool, int, float, Decimal, str, bytes, ``datetime`` (aware where the type has a zone), ``date``,
``time``, a ``MonthDayNano`` for an interval, and lists of these. What PostgreSQL has and Kalam has not (infinity among
times, NaN among decimals, years before 1) is refused and not bent.
"""

from __future__ import annotations

import re
import struct
import uuid
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Context, Decimal, InvalidOperation
from typing import Any, Final

import pyarrow as pa

from kalam_pg import types as pg
from kalam_pg.errors import INVALID_BINARY, INVALID_TEXT, SqlError
from kalam_pg.values.array_text import read_array

_TRUE: Final = frozenset({"t", "true", "tr", "tru", "y", "yes", "ye", "on", "1"})
_FALSE: Final = frozenset({"f", "false", "fa", "fal", "fals", "n", "no", "off", "of", "0"})
_INTEGERS: Final = {pg.INT2.oid: 15, pg.INT4.oid: 31, pg.INT8.oid: 63}
_INTEGER: Final = re.compile(r"\s*[+-]?\d+\s*")
_BYTEA_ESCAPE: Final = re.compile(rb"\\(?:\\|[0-3][0-7]{2})?")
_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_LAYOUTS: Final = {
    pg.INT2.oid: ">h",
    pg.INT4.oid: ">i",
    pg.INT8.oid: ">q",
    pg.OID.oid: ">I",
    pg.FLOAT4.oid: ">f",
    pg.FLOAT8.oid: ">d",
    pg.BOOL.oid: ">?",
}
_INTERVAL_PART: Final = re.compile(
    r"([+-]?\d+)\s*(year|mon|day|week|hour|hr|min|sec)[a-z]*|([+-]?)(\d+):(\d\d)(?::(\d\d)(\.\d+)?)?"
)


def refused(kind: pg.PgType, shown: str) -> SqlError:
    """What is told of a value that is none of its type."""
    return SqlError(INVALID_TEXT, f'invalid input syntax for type {kind.name}: "{shown[:80]}"')


def from_text(data: bytes, kind: pg.PgType) -> Any:
    """The value in its text form; raises SqlError."""
    if kind.oid == pg.BYTEA.oid:
        return _bytea(data)
    try:
        written = data.decode()
    except UnicodeDecodeError:
        raise SqlError("22021", "the value is no valid UTF-8") from None
    if "\0" in written:
        raise SqlError("22021", "a text cannot hold the character with the code 0")
    if kind.is_array:
        element = pg.BY_OID[kind.element]
        try:
            return read_array(written, lambda member: from_text(member.encode(), element))
        except ValueError as exc:
            raise SqlError(INVALID_TEXT, f'malformed array literal: "{written[:80]}" ({exc})') from None
    read = _FROM_TEXT.get(kind.oid)
    if read is None:
        return written
    try:
        return read(written)
    except (ValueError, ArithmeticError, InvalidOperation):
        raise refused(kind, written) from None


def from_binary(data: bytes, kind: pg.PgType) -> Any:
    """The value in its binary form; raises SqlError."""
    try:
        if kind.is_array:
            return _binary_array(data)
        if kind.oid in _LAYOUTS:
            return struct.unpack(_LAYOUTS[kind.oid], data)[0]
        read = _FROM_BINARY.get(kind.oid)
        return data.decode() if read is None else read(data)
    except SqlError:
        raise
    except (struct.error, ValueError, OverflowError):
        raise SqlError(INVALID_BINARY, f"incorrect binary data format for type {kind.name}") from None


def _integer(bits: int) -> Callable[[str], int]:
    def read(written: str) -> int:
        if not _INTEGER.fullmatch(written):
            raise ValueError
        value = int(written)
        if not -(1 << bits) <= value < 1 << bits:
            raise SqlError("22003", f'value "{written.strip()}" is out of range for type int{(bits + 1) // 8}')
        return value

    return read


def _truth(written: str) -> bool:
    word = written.strip().lower()
    if word in _TRUE:
        return True
    if word not in _FALSE:
        raise ValueError
    return False


def _decimal(written: str) -> Decimal:
    value = Decimal(written.strip())
    if not value.is_finite():
        raise SqlError("22003", "Kalam's DECIMAL has neither NaN nor infinity")
    return value


def _moment(written: str) -> datetime:
    word = written.strip()
    if word.upper().endswith(" BC") or word.lower().endswith("infinity"):
        raise SqlError("22008", f"times are of the years 1 to 9999, and this is {word[:40]!r}")
    value = datetime.fromisoformat(word.replace(" UTC", "+00"))
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _day(written: str) -> date:
    word = written.strip()
    if word.upper().endswith(" BC") or word.lower().endswith("infinity"):
        raise SqlError("22008", f"dates are of the years 1 to 9999, and this is {word[:40]!r}")
    return datetime.fromisoformat(word).date()


def _interval(written: str) -> pa.MonthDayNano:
    months = days = us = end = 0
    for found in _INTERVAL_PART.finditer(written.lower()):
        if written[end : found.start()].strip(" @,"):
            raise ValueError
        end = found.end()
        if found[2]:
            count = int(found[1])
            months += count * {"year": 12, "mon": 1}.get(found[2], 0)
            days += count * {"day": 1, "week": 7}.get(found[2], 0)
            us += count * {"hour": 3_600, "hr": 3_600, "min": 60, "sec": 1}.get(found[2], 0) * 1_000_000
            continue
        clock = (int(found[4]) * 3_600 + int(found[5]) * 60 + int(found[6] or 0)) * 1_000_000
        clock += round(float(found[7] or 0) * 1_000_000)
        us += -clock if found[3] == "-" else clock
    if written[end:].strip() or not end:
        raise ValueError
    return pa.MonthDayNano([months, days, us * 1_000])


def _bytea(data: bytes) -> bytes:
    if data.startswith(b"\\x"):
        try:
            return bytes.fromhex(data[2:].decode("ascii"))
        except ValueError:
            raise SqlError(INVALID_TEXT, "invalid hexadecimal data of type bytea") from None

    def unescape(found: re.Match[bytes]) -> bytes:
        escape = found[0]
        if escape == b"\\":
            raise SqlError(INVALID_TEXT, "invalid input syntax for type bytea")
        return b"\\" if escape == b"\\\\" else bytes([int(escape[1:], 8)])

    return _BYTEA_ESCAPE.sub(unescape, data)


def _binary_numeric(data: bytes) -> Decimal:
    count, weight, sign, scale = struct.unpack_from(">hhHh", data)
    if sign not in (0, 0x4000):
        raise SqlError("22003", "Kalam's DECIMAL has neither NaN nor infinity")
    digits = struct.unpack_from(f">{count}h", data, 8)
    if len(data) != 8 + 2 * count or any(not 0 <= digit <= 9_999 for digit in digits) or not 0 <= scale <= 16_383:
        raise ValueError
    whole = 0
    for digit in digits:
        whole = whole * 10_000 + digit
    value = Decimal(whole).scaleb(4 * (weight + 1 - count), _EXACT)
    value = value.quantize(Decimal(1).scaleb(-scale), context=_EXACT)
    return value.copy_negate() if sign else value  # `-` would round it to 28 digits


def _binary_moment(data: bytes) -> datetime:
    (us,) = struct.unpack(">q", data)
    try:
        return _EPOCH + timedelta(microseconds=us)
    except OverflowError:
        raise SqlError("22008", "times are of the years 1 to 9999") from None


def _binary_date(data: bytes) -> date:
    (days,) = struct.unpack(">i", data)
    try:
        return _EPOCH.date() + timedelta(days=days)
    except OverflowError:
        raise SqlError("22008", "dates are of the years 1 to 9999") from None


def _binary_time(data: bytes) -> time:
    (us,) = struct.unpack(">q", data)
    return (_EPOCH + timedelta(microseconds=us)).time()


def _binary_interval(data: bytes) -> pa.MonthDayNano:
    us, days, months = struct.unpack(">qii", data)
    return pa.MonthDayNano([months, days, us * 1_000])


def _binary_array(data: bytes) -> list[Any]:
    dimensions, _, oid = struct.unpack_from(">iiI", data)
    if not 0 <= dimensions <= 1:
        raise SqlError("0A000", "arrays have one dimension here")
    if dimensions == 0:
        return []
    (count, _), place = struct.unpack_from(">ii", data, 12), 20
    kind = pg.BY_OID.get(oid, pg.TEXT)
    values: list[Any] = []
    for _ in range(count):
        (size,) = struct.unpack_from(">i", data, place)
        place += 4
        if size < 0:
            values.append(None)
            continue
        if place + size > len(data):
            raise ValueError
        values.append(from_binary(data[place : place + size], kind))
        place += size
    return values


def _binary_json(data: bytes) -> str:
    if data[:1] != b"\x01":
        raise ValueError
    return data[1:].decode()


_EXACT: Final = Context(prec=40_000)
_FROM_TEXT: Final[dict[int, Callable[[str], Any]]] = {
    **{oid: _integer(bits) for oid, bits in _INTEGERS.items()},
    pg.OID.oid: int,
    pg.BOOL.oid: _truth,
    pg.FLOAT4.oid: float,
    pg.FLOAT8.oid: float,
    pg.NUMERIC.oid: _decimal,
    pg.TIMESTAMP.oid: _moment,
    pg.TIMESTAMPTZ.oid: _moment,
    pg.DATE.oid: _day,
    pg.TIME.oid: time.fromisoformat,
    pg.INTERVAL.oid: _interval,
    pg.UUID.oid: lambda written: str(uuid.UUID(written)),
}
_FROM_BINARY: Final[dict[int, Callable[[bytes], Any]]] = {
    pg.BYTEA.oid: bytes,
    pg.NUMERIC.oid: _binary_numeric,
    pg.TIMESTAMP.oid: _binary_moment,
    pg.TIMESTAMPTZ.oid: _binary_moment,
    pg.DATE.oid: _binary_date,
    pg.TIME.oid: _binary_time,
    pg.INTERVAL.oid: _binary_interval,
    pg.UUID.oid: lambda data: str(uuid.UUID(bytes=data)),
    pg.JSONB.oid: _binary_json,
}
