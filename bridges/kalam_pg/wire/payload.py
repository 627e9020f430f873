"""What stands in a message, read from its front; whatever is missing or too much is a protocol violation."""

from __future__ import annotations

import struct

from kalam_pg.errors import PROTOCOL, SqlError


class Payload:
    """The bytes of one message behind its length."""

    def __init__(self, data: bytes) -> None:
        self._data, self._place = data, 0

    def int16(self) -> int:
        """An integer of two bytes with its sign."""
        return int(struct.unpack(">h", self.take(2))[0])

    def count(self) -> int:
        """How many follow: two bytes, up to 65,535."""
        return int(struct.unpack(">H", self.take(2))[0])

    def int32(self) -> int:
        """An integer of four bytes with its sign."""
        return int(struct.unpack(">i", self.take(4))[0])

    def uint32(self) -> int:
        """One without a sign, as an OID."""
        return int(struct.unpack(">I", self.take(4))[0])

    def take(self, size: int) -> bytes:
        """So many bytes."""
        end = self._place + size
        if size < 0 or end > len(self._data):
            raise SqlError(PROTOCOL, "the message ends too early")
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

    def left(self) -> int:
        """How many bytes have not been read."""
        return len(self._data) - self._place

    def end(self) -> None:
        """Check that nothing is left."""
        if self.left():
            raise SqlError(PROTOCOL, "the message is longer than what is in it")
