"""The values of parameters: Python values, of which some are to be bound with a type of their own.

Law: everything here but DataFusion takes a parameter as its Python value, so that a text finds a UUID and bytes a BLOB,
whoever sent them; a type is kept beside, and counts only where a value is bound to a plan.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, TypeGuard

import msgspec
import pyarrow as pa

from kalam.errors import InvalidValue
from kalam.rows.values import shorten

INTERVAL = pa.month_day_nano_interval()
_LONG = 1 << 63
_LISTED = (bool, int, float, str, bytes, Decimal, datetime, date)
"""The kinds of values of which a list is bound as a list; with any other it is a JSON text."""


class Parameters(tuple[Any, ...]):
    """Python values, and the types with which some of them are bound, by their places."""

    types: Mapping[int, pa.DataType]

    @classmethod
    def of(cls, given: Sequence[Any]) -> Sequence[Any]:
        """The values of what was given, in which a ``pa.Scalar`` is a value with its type."""
        types = {place: value.type for place, value in enumerate(given) if isinstance(value, pa.Scalar)}
        if not types:
            return given
        values = cls(value.as_py() if isinstance(value, pa.Scalar) else value for value in given)
        values.types = types
        return values


def types_of(values: Sequence[Any]) -> Mapping[int, pa.DataType]:
    """The types that are known of parameters, by their places."""
    return values.types if isinstance(values, Parameters) else {}


def sent(values: Sequence[Any], types: Mapping[int, pa.DataType]) -> tuple[list[Any], bytes | None]:
    """Parameters as they go to a worker: what msgpack carries, and what Arrow has to, as a stream of one row.

    Raises InvalidValue for a number beyond 64 bits, and for a value that is not of its type.
    """
    plain: list[Any] = []
    typed: dict[str, pa.Array] = {}
    for place, value in enumerate(values):
        kind = types.get(place) or (INTERVAL if isinstance(value, timedelta) else None)
        if kind is None and not _needs_arrow(value):
            plain.append(_plain(value))
            continue
        plain.append(None)
        try:
            typed[str(place)] = pa.array([value], kind)
        except (pa.ArrowException, OverflowError, TypeError, ValueError) as exc:
            raise InvalidValue(f"parameter ${place + 1}: {shorten(value)} is no {kind or 'list of one type'}") from exc
    if not typed:
        return plain, None
    batch = pa.record_batch(typed)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return plain, sink.getvalue().to_pybytes()


def received(plain: Sequence[Any], typed: bytes | None) -> dict[str, pa.Scalar]:
    """What ``sent`` sent, as Arrow's scalars by the numbers of the parameters, from 1."""
    values = {str(number): pa.scalar(value) for number, value in enumerate(plain, 1)}
    if typed is not None:
        table = pa.ipc.open_stream(typed).read_all()
        values |= {str(int(name) + 1): table.column(name)[0] for name in table.column_names}
    return {number: _bindable(value) for number, value in values.items()}


def null(kind: pa.DataType) -> pa.Scalar:
    """What stands in a plan for a parameter whose value is not known; DataFusion knows no list that is NULL."""
    return pa.scalar([] if pa.types.is_list(kind) else None, kind)


def _bindable(value: pa.Scalar) -> pa.Scalar:
    return pa.scalar(None) if pa.types.is_list(value.type) and not value.is_valid else value


def _needs_arrow(value: Any) -> bool:
    """Whether msgpack would make something else of a value."""
    if isinstance(value, list):
        return _is_list(value)
    return isinstance(value, Decimal) or (isinstance(value, date) and not isinstance(value, datetime))


def _is_list(value: list[Any]) -> TypeGuard[list[Any]]:
    """Whether its values are of one kind, NULL apart, or there are none."""
    kinds = {type(member) for member in value if member is not None}
    return not value or (len(kinds) == 1 and kinds.pop() in _LISTED)


def _plain(value: Any) -> Any:
    if isinstance(value, dict | list):
        return msgspec.json.encode(value).decode()
    if isinstance(value, int) and not isinstance(value, bool) and not -_LONG <= value < _LONG:
        raise InvalidValue(f"parameter {shorten(value)} does not fit 64 bits")
    if isinstance(value, datetime) and value.tzinfo is None:
        return value.replace(tzinfo=UTC)
    return value


def check_parameters(highest: int, parameters: Sequence[Any]) -> None:
    """Raise InvalidValue if a statement names more parameters than there are."""
    if highest > len(parameters):
        raise InvalidValue(f"the statement names ${highest}, and {len(parameters)} parameters were given")
