"""What ``--skip-bad`` left out: a file of NDJSON, a line for each row, with what was wrong with it.

``data`` is the row as it was sent, or the text of what is no row, so that it can be put right and inserted again.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from kalam.cli.failure import CommandFailed
from kalam.cli.rows_file import RowBatch
from kalam.errors import KalamError


class SkippedRows:
    """The file, which is made anew. ``count`` is how many rows were left out, ``failure`` why not all are written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self.failure: str | None = None
        self._lock = threading.Lock()  # refusals come from the thread of the connection
        try:
            self._file = path.open("wb")
        except OSError as exc:
            raise CommandFailed(f"error: cannot write {path}: {exc.strerror}") from exc

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Write what is left; what the disk refuses is in ``failure``."""
        try:
            self._file.close()
        except OSError as exc:
            self._fail(exc)

    def _fail(self, exc: OSError) -> None:
        self.failure = self.failure or f"error: cannot write {self.path}: {exc.strerror}"

    def note(self, file: str, unit: str, error: KalamError, text: bytes) -> None:
        """What is no row, of which the error has the number; ``unit`` is what that counts."""
        from kalam.rows.refusals import without_row

        self._write(file, unit, error.fields["row"], error.code, without_row(error), text)

    def note_refused(self, batch: RowBatch, errors: Iterable[dict[str, Any]]) -> None:
        """Rows of a batch that the server refused."""
        errors = list(errors)
        if not errors:
            return
        from kalam.rows.message_rows import MessageRows

        rows = MessageRows(batch.payload, arrow=batch.arrow, rows_max=batch.rows)
        unit = batch.unit.removesuffix("s")
        for error in errors:
            place = error["row"]
            self._write(batch.file, unit, batch.number(place), error["code"], error["detail"], rows.alone(place - 1))

    def _write(self, file: str, unit: str, number: int, code: str, detail: str, data: bytes) -> None:
        shown: Any = data.decode("utf-8", "replace")
        if data.startswith(b"{"):
            try:
                shown = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
            except msgspec.MsgspecError:
                shown = data.decode("utf-8", "replace")
        line = {"file": file} if file else {}
        entry = {**line, unit: number, "code": code, "detail": detail, "data": shown}
        with self._lock:
            self.count += 1
            try:
                self._file.write(msgspec.json.encode(entry) + b"\n")
            except OSError as exc:
                self._fail(exc)
