"""What an examination says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

from kalam.credentials import NOBODY, Credentials
from kalam.settings import Settings

Level = Literal["ok", "warn", "fail"]


class Finding(msgspec.Struct, frozen=True):
    """One line: what was looked at, how it is, and what to do about it."""

    level: Level
    what: str
    text: str
    advice: str = ""


class Patient(msgspec.Struct, frozen=True):
    """What is examined, and as whom the server is asked.

    ``announced`` is what the server that runs on the data directory says of itself.
    """

    settings: Settings
    data_dir: Path
    announced: dict[str, Any] | None
    login: Credentials = NOBODY

    @property
    def runs(self) -> bool:
        """Whether a server runs on the data directory."""
        return self.announced is not None


Examination = Callable[[Patient], Iterable[Finding]]


def examine(examination: Examination, patient: Patient) -> Iterator[Finding]:
    """The findings of an examination; one that breaks off says so."""
    name = examination.__name__.replace("_", " ")
    try:
        yield from examination(patient)
    except Exception as exc:  # noqa: BLE001 - a doctor who faints is of no use; the others go on
        text = f"could not be examined: {str(exc) or type(exc).__name__}"
        yield Finding("fail", name, text, "mend first what the other lines say")


def size_text(size: float) -> str:
    """A number of bytes for a person."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1_024:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1_024
    return f"{size:.1f} TiB"
