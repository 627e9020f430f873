"""Files that a compaction or a clean-up has replaced: removed when the last reader of their segments is done.

Whoever reads a segment's file holds its ``Segment`` object, so the file goes with the object. What a crash leaves is
named by no segment any more and goes at the next start.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from kalam.storage.copies import Segment
from kalam.storage.remote import remove_file


class ReplacedFiles:
    """Collects the files that nobody reads any more."""

    def __init__(self) -> None:
        self._unread: deque[Path] = deque()

    def replace(self, folder: Path, segments: Sequence[Segment]) -> None:
        """From now on no new reader sees these segments."""
        for segment in segments:
            weakref.finalize(segment, self._unread.append, folder / segment.path).atexit = False

    def remove(self) -> int:
        """Remove the files that nobody reads any more and return how many; blocking."""
        count = 0
        while self._unread:
            remove_file(self._unread.popleft())
            count += 1
        return count
