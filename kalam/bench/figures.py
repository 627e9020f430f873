"""What a measurement gives."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


class Unit(enum.StrEnum):
    """What a figure counts; of rates more is better, of everything else less."""

    EVENTS_PER_S = "events/s"
    ROWS_PER_S = "rows/s"
    ROWS_PER_CPU_S = "rows/CPU s"
    MB_PER_S = "MB/s"
    MS = "ms"
    US = "µs"
    CPU = "% of a core"
    MB = "MB"

    @property
    def more_is_better(self) -> bool:
        """Whether a larger figure is the better one."""
        return self in (Unit.EVENTS_PER_S, Unit.ROWS_PER_S, Unit.ROWS_PER_CPU_S, Unit.MB_PER_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """Kalam's figure and the bare engine's of the same run.

    ``situation`` is what figures of one measurement have in common; ``complete`` is False if something that should have
    arrived did not; ``note`` is for people, ``detail`` for programs.
    """

    name: str
    situation: str
    unit: Unit
    kalam: float
    bare: float | None = None
    bare_engine: str | None = None
    complete: bool = True
    note: str = ""
    detail: dict[str, Any] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        """Kalam's figure divided by the bare engine's."""
        return self.kalam / self.bare if self.bare else None

    def as_json(self, measurement: str) -> dict[str, Any]:
        """The figure for ``--json``."""
        return {
            "measurement": measurement,
            "situation": self.situation,
            "name": self.name,
            "unit": self.unit.value,
            "kalam": round(self.kalam, 3),
            "bare": None if self.bare is None else round(self.bare, 3),
            "bare_engine": self.bare_engine,
            "ratio": None if self.ratio is None else round(self.ratio, 3),
            "more_is_better": self.unit.more_is_better,
            "complete": self.complete,
            "note": self.note,
            **self.detail,
        }


def percentile(values: Sequence[int], percent: int) -> int:
    """The value that so many of a hundred are not above; 0 of none."""
    ordered = sorted(values) or [0]
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]
