"""How long the rows of a view are kept: by the server's clock, and by the column that ``retention_on`` names.

Rows past their time leave as deletes. One that comes when its time is over is late: it is counted, and not there.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from msgspec.structs import replace

from kalam.rows.lone_values import timestamp_text
from kalam.rows.types import Row
from kalam.schema import Table
from kalam.views.method import Outcome

PAUSE_S = (0.5, 60.0)
"""How often it is looked whose time is over, at the least and at the most; a twentieth of the time else."""


class Retention:
    """That of one view."""

    def __init__(self, view: Table) -> None:
        options = view.view_options
        self._view, self._column = view, options.retention_on
        self._span_s = options.retention_s if options.retention_on is not None else None
        names = [column.name for column in view.columns]
        self._place = names.index(options.retention_on) if options.retention_on in names else 0
        self._looked_s = 0.0

    @property
    def pause_s(self) -> float | None:
        """How often ``is_due`` is to be asked; None for never."""
        return None if self._span_s is None else min(max(PAUSE_S[0], self._span_s / 20), PAUSE_S[1])

    def is_due(self) -> bool:
        """Whether it is time to look whose time is over; then not again for a while."""
        pause_s, now_s = self.pause_s, time.monotonic()
        if pause_s is None or now_s < self._looked_s + pause_s:
            return False
        self._looked_s = now_s
        return True

    @property
    def since(self) -> datetime | None:
        """The time before which a row's time is over; None for never."""
        return None if self._span_s is None else self._since()

    def _since(self) -> datetime:
        return datetime.now(UTC) - timedelta(seconds=self._span_s or 0)

    def condition(self) -> str:
        """What holds for the rows whose time is over."""
        return f"\"{self._column}\" < TIMESTAMP '{timestamp_text(self._since())}'"

    def is_past(self, row: Row) -> bool:
        """Whether the time of a row is over."""
        at = row[self._place]
        return self._span_s is not None and at is not None and at < self._since()

    def kept(self, outcome: Outcome) -> tuple[Outcome, int]:
        """The outcome without rows that are late, and how many rows of the source came too late."""
        if self._span_s is None:
            return outcome, 0
        since, place = self._since(), self._place
        late = [row for row in outcome.upserts if row[place] is not None and row[place] < since]
        if not late:
            return outcome, 0
        kept = [row for row in outcome.upserts if row[place] is None or row[place] >= since]
        keys = [] if outcome.appends else list(map(self._view.key_of, late))
        count = len(late) if outcome.came is None else outcome.came(keys)
        return replace(outcome, upserts=kept, deletes=[*outcome.deletes, *keys]), count
