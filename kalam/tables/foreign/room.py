"""What all that was read of others' streams may take of memory together: what is kept, being read, or lent to queries.

A read does not know how large it gets, and two that wait for each other's room would wait for ever. So nobody waits:
what is kept gives way first, and then the read that grows past the room ends, unless it is alone.
"""

from __future__ import annotations

from collections.abc import Callable
from weakref import WeakKeyDictionary

from kalam.errors import TooBusy


class Room:
    """Counts the bytes of holders; ``give_way`` lets go of so many that are kept, other than a holder's, if it can."""

    def __init__(self, bytes_max: int, give_way: Callable[[int, object], None]) -> None:
        self._bytes_max, self._give_way = bytes_max, give_way
        self._held: WeakKeyDictionary[object, int] = WeakKeyDictionary()

    @property
    def surplus(self) -> int:
        """By how much too many bytes are held."""
        return sum(self._held.values()) - self._bytes_max

    def hold(self, holder: object, byte_count: int) -> None:
        """Note what a holder has by now; raises TooBusy, and forgets it, where that is too much beside the others."""
        self._held[holder] = byte_count
        if self.surplus > 0:
            self._give_way(self.surplus, holder)
        if self.surplus > 0 and len(self._held) > 1:
            self.release(holder)
            raise TooBusy(
                "what queries read of others' streams is larger than stream_windows_bytes_max "
                f"({self._bytes_max} bytes) together",
                hint="try again when others have ended, or read less: a bound on _seq or _time",
            )

    def note(self, holder: object, byte_count: int) -> None:
        """Note what a holder has, which is there already."""
        self._held[holder] = byte_count

    def release(self, holder: object) -> None:
        """It holds nothing any more."""
        self._held.pop(holder, None)
