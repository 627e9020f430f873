"""The rows of one message, of which any run can be read alone: for whoever has to know which of them are wrong.

A batch is judged at once. Only where it fails it is halved, and the half that fails again, so that a bad row costs a
share of the batch that falls with every step, and the good rows around it are read together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, TypeVar

import msgspec
import pyarrow as pa

from kalam.errors import InvalidValue, KalamError, TooLarge
from kalam.rows.door import RowDecoder
from kalam.rows.formats.batches import arrow_payload
from kalam.rows.formats.foreign_arrow import ForeignStream
from kalam.rows.judged import UNREADABLE, judged
from kalam.rows.types import Row

T = TypeVar("T")
_JSON_ROWS: Final = msgspec.json.Decoder(list[msgspec.Raw])
_MSGPACK_ROWS: Final = msgspec.msgpack.Decoder(list[msgspec.Raw])


class MessageRows:
    """A message in parts; raises InvalidValue or TooLarge where not even its rows can be told from each other."""

    def __init__(self, payload: bytes, *, arrow: bool, rows_max: int) -> None:
        self._table: pa.Table | None = ForeignStream(payload).table(rows_max) if arrow else None
        self._raws: Sequence[Any] = ()
        self._is_json = payload.lstrip()[:1] in (b"{", b"[")
        if not arrow:
            try:
                self._raws = _raws(payload, is_json=self._is_json)
            except UNREADABLE as exc:
                raise InvalidValue(f"the payload is malformed: {exc}") from exc
        if len(self) > rows_max:
            raise TooLarge(f"the message has {len(self)} rows; batch_rows_max is {rows_max}")

    def __len__(self) -> int:
        """How many rows there are."""
        return len(self._raws) if self._table is None else int(self._table.num_rows)

    def decode(self, decoder: RowDecoder, user: str, first: int, end: int) -> Sequence[Row]:
        """The rows from one place to another; raises what is wrong with one of them."""
        if self._table is not None:
            return decoder.decode_table(self._table.slice(first, end - first), user=user)
        return decoder.decode(self._joined(self._raws[first:end]), user=user)

    def only(self, places: Sequence[int]) -> bytes:
        """The message that the rows at these places would have been."""
        if self._table is not None:
            return arrow_payload(self._table.take(pa.array(places, pa.int64())).combine_chunks())
        return self._joined([self._raws[place] for place in places])

    def _joined(self, raws: Sequence[Any]) -> bytes:
        if self._is_json:
            return b"[" + b",".join(map(bytes, raws)) + b"]"
        return b"\xdd" + len(raws).to_bytes(4, "big") + b"".join(map(bytes, raws))

    def alone(self, index: int) -> bytes:
        """One row as it came; of Arrow as JSON."""
        if self._table is None:
            return bytes(self._raws[index])
        [row] = self._table.slice(index, 1).to_pylist()
        return msgspec.json.encode(row, enc_hook=str)


def _raws(payload: bytes, *, is_json: bool) -> Sequence[Any]:
    if is_json:
        return [payload] if payload.lstrip()[:1] == b"{" else _JSON_ROWS.decode(payload)
    first = payload[:1]
    is_map = first in (b"\xde", b"\xdf") or b"\x80" <= first <= b"\x8f"
    return [payload] if is_map else _MSGPACK_ROWS.decode(payload)


def sift(count: int, judge: Callable[[int, int], Sequence[T]]) -> tuple[list[T], list[int], dict[int, KalamError]]:
    """What ``judge`` makes of the rows that it does not refuse, their places, and the errors of the others by place.

    ``judge(first, end)`` is one result for each row of a run, or raises what is wrong with one of them.
    """
    results: list[T] = []
    places: list[int] = []
    errors: dict[int, KalamError] = {}
    runs = [(0, count)] if count else []
    while runs:
        first, end = runs.pop()
        found = judged("row", partial(judge, first, end))
        if not isinstance(found, KalamError):
            results += found
            places += range(first, end)
        elif end - first == 1:
            errors[first] = found
        else:
            half = (first + end) // 2
            runs += [(half, end), (first, half)]
    return results, places, errors
