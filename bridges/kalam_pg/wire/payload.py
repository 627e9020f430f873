"""What stands in a message, read from its front; whatever is missing or too much is a protocol violation."""

from __future__ import annotations

import struct

from kalam_pg.errors import PROTOCOL, SqlError

TOO_SHORT = "the message ends too early"


class Payload:
    """The bytes of one message behind its length."""

    def __init__(self, data: bytes) -> None:
        self._data, self._place = data, 0

    def count(self) -> int:
        """How many follow: two bytes, up to 65,535."""
        return int.from_bytes(self.take(2))

    def int16s(self) -> tuple[int, ...]:
        """Integers of two bytes with their signs, behind how many there are."""
        data, start = self._data, self._place + 2
        count = int.from_bytes(data[start - 2 : start])
        self._place = start + 2 * count
        if self._place > len(data):
            raise SqlError(PROTOCOL, TOO_SHORT)
        return struct.unpack_from(f">{count}h", data, start)

    def int32(self) -> int:
        """An integer of four bytes with its sign."""
        return int.from_bytes(self.take(4), signed=True)

    def uint32(self) -> int:
        """One without a sign, as an OID."""
        return int.from_bytes(self.take(4))

    def take(self, size: int) -> bytes:
        """So many bytes."""
        end = self._place + size
        if size < 0 or end > len(self._data):
            raise SqlError(PROTOCOL, TOO_SHORT)
        found = self._data[self._place : end]
        self._place = end
        return found

    def text(self) -> str:
        """A text up to its byte 0."""
        end = self._data.find(b"\0", self._place)
        if end < 0:
            raise SqlError(PROTOCOL, "a text in the message does not end")
        found = self._data[self._place : end]
        self._place = end + 1
        try:
            return found.decode()
        except UnicodeDecodeError:
            raise SqlError("22021", "the message holds a text that is no valid UTF-8") from None

    def cell(self) -> bytes | None:
        """A value with its length before it; None for NULL."""
        size = self.int32()
        return None if size == -1 else self.take(size)

    def cells(self) -> list[bytes | None]:
        """Values with their lengths before them, None for NULL, behind how many there are."""
        found: list[bytes | None] = []
        count, data, place = self.count(), self._data, self._place
        for _ in range(count):
            start = place + 4
            size = int.from_bytes(data[place:start], signed=True)
            place = start if size == -1 else start + size
            if size < -1 or place > len(data):
                raise SqlError(PROTOCOL, TOO_SHORT)
            found.append(None if size == -1 else data[start:place])
        self._place = place
        return found

    def left(self) -> int:
        """How many bytes have not been read."""
        return len(self._data) - self._place

    def end(self) -> None:
        """Check that nothing is left."""
        if self.left():
            raise SqlError(PROTOCOL, "the message is longer than what is in it")
