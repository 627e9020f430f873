"""Files that a compaction or a clean-up has replaced: removed when the last reader of their segments is done.

Whoever reads a segment's file holds its ``Segment`` object, so the file goes with the object. The transaction that
replaces it lists it as garbage, so that what a crash leaves goes at the next start.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import structlog

from kalam.storage.log.copies import Segment
from kalam.storage.segments.remote import remove_file

log = structlog.get_logger(__name__)


class ReplacedFiles:
    """Collects the files that nobody reads any more."""

    def __init__(self) -> None:
        self._unread: deque[Path] = deque()

    def replace(self, folder: Path, segments: Sequence[Segment]) -> None:
        """From now on no new reader sees these segments."""
        for segment in segments:
            weakref.finalize(segment, self._unread.append, folder / segment.path).atexit = False

    def remove(self) -> list[str]:
        """Remove the files that nobody reads any more and return their paths; blocking."""
        removed: list[str] = []
        while self._unread:
            path = self._unread.popleft()
            try:
                remove_file(path)
            except OSError as exc:
                log.warning("a replaced file stays until the next start", file=path.name, error=str(exc))
            else:
                removed.append(str(path))
        return removed
