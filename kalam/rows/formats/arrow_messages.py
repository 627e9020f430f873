"""The messages of an Arrow IPC stream, looked at before pyarrow unpacks them.

A message of a few bytes may say that its buffers are gigabytes once they are decompressed, and Arrow believes it. So
the sizes that a message tells are read beforehand, from its flatbuffer, which Arrow has verified when it read the
message: https://github.com/apache/arrow/blob/main/format/Message.fbs. A field's number is its place in that file.
"""

from __future__ import annotations

import io
import struct
from contextlib import suppress
from typing import Any, Final

import pyarrow as pa

from kalam.errors import InvalidValue, TooLarge

MESSAGE_BYTES_MAX: Final = 64 << 20
"""What the buffers of one message may have together, decompressed, and its columns once they are plain arrays."""

_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3
_LENGTH = struct.Struct("<q")
_NOT_COMPRESSED = -1


class CheckedMessages(io.RawIOBase):
    """A stream as a file from which pyarrow reads messages that were looked at; raises what is wrong with one.

    ``failure`` is that error, because pyarrow may wrap it.
    """

    def __init__(self, source: Any) -> None:
        self._reader = pa.ipc.MessageReader.open_stream(source)
        self._rest = memoryview(b"")
        self.failure: Exception | None = None

    def readable(self) -> bool:
        """It is."""
        return True

    def read(self, size: int = -1) -> bytes:
        """``size`` bytes, fewer at the end; all for a negative size."""
        parts: list[memoryview] = []
        missing = size if size >= 0 else 1 << 62
        while missing > 0 and (self._rest or self._next_message()):
            parts.append(self._rest[:missing])
            self._rest = self._rest[missing:]
            missing -= len(parts[-1])
        return b"".join(parts)

    def _next_message(self) -> bool:
        try:
            message = self._reader.read_next_message()
            check_message(message)
        except StopIteration:
            return False
        except Exception as exc:
            self.failure = exc
            raise
        self._rest = memoryview(message.serialize())
        return True


def check_messages(payload: bytes) -> None:
    """Raise what ``check_message`` has against a message of a stream that is there as a whole."""
    reader = pa.ipc.MessageReader.open_stream(payload)
    with suppress(StopIteration):
        while True:
            check_message(reader.read_next_message())


def check_message(message: pa.ipc.Message) -> None:
    """Raise TooLarge for a message that would unpack to more than MESSAGE_BYTES_MAX, InvalidValue for a broken one."""
    try:
        unpacked = _unpacked_bytes(memoryview(message.metadata), memoryview(message.body or b""))
    except (struct.error, ValueError) as exc:
        raise InvalidValue(f"a message of the Arrow stream is damaged: {exc}") from exc
    if unpacked > MESSAGE_BYTES_MAX:
        raise TooLarge(
            f"a message of the Arrow stream unpacks to {unpacked:,} bytes, at most {MESSAGE_BYTES_MAX:,} are taken",
            hint="send fewer rows in a record batch",
        )


def _unpacked_bytes(metadata: memoryview, body: memoryview) -> int:
    """The bytes of all buffers of a batch once they are decompressed; 0 for a message that is no batch."""
    message = _FlatTable.root(metadata)
    kind, batch = message.byte(1), message.table(2)
    if kind == _DICTIONARY_BATCH and batch is not None:
        batch = batch.table(1)
    if kind not in (_DICTIONARY_BATCH, _RECORD_BATCH) or batch is None:
        return 0
    is_compressed = batch.table(3) is not None
    return sum(_buffer_bytes(body, start, length, is_compressed) for start, length in batch.pairs(2))


def _buffer_bytes(body: memoryview, start: int, length: int, is_compressed: bool) -> int:
    if start < 0 or length < 0 or start + length > len(body):
        raise ValueError(f"a buffer ({start}, {length}) lies outside of the {len(body)} bytes that were sent")
    if not is_compressed or length < _LENGTH.size:
        return length
    (unpacked,) = _LENGTH.unpack_from(body, start)
    if unpacked < _NOT_COMPRESSED:
        raise ValueError(f"a compressed buffer says that it has {unpacked} bytes")
    return length if unpacked == _NOT_COMPRESSED else int(unpacked)


class _FlatTable:
    """A table of a flatbuffer: its fields are found by way of a table of offsets, 0 for one that is not there."""

    def __init__(self, data: memoryview, place: int) -> None:
        self._data, self._place = data, place
        self._offsets = place - self._read("<i", place)

    @classmethod
    def root(cls, data: memoryview) -> _FlatTable:
        return cls(data, struct.unpack_from("<I", data, 0)[0])

    def _read(self, form: str, place: int) -> int:
        if place < 0:  # struct would count from the end
            raise ValueError("an offset leads outside")
        return int(struct.unpack_from(form, self._data, place)[0])

    def _field(self, number: int) -> int:
        """Where a field's value stands; 0 for a field that is not there."""
        entry = 4 + 2 * number
        offset = self._read("<H", self._offsets + entry) if entry < self._read("<H", self._offsets) else 0
        return self._place + offset if offset else 0

    def byte(self, number: int) -> int:
        place = self._field(number)
        return self._read("<B", place) if place else 0

    def table(self, number: int) -> _FlatTable | None:
        place = self._field(number)
        return _FlatTable(self._data, place + self._read("<I", place)) if place else None

    def pairs(self, number: int) -> list[tuple[int, int]]:
        """A vector of structs of two 64-bit integers."""
        place = self._field(number)
        if not place:
            return []
        start = place + self._read("<I", place)
        count = self._read("<I", start)
        first = start + 4  # the structs are aligned by their writer, so that they begin right behind the count
        if first + 16 * count > len(self._data):
            raise ValueError("a list of buffers leads outside")
        return list(struct.iter_unpack("<qq", self._data[first : first + 16 * count]))
