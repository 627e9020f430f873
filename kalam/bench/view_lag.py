"""From an event to the change of the view that counts it, at an even pace."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from kalam.bench.figures import Figure, Unit, percentile
from kalam.bench.stage import NAMESPACE, Stage
from kalam.bench.view_client import SELECT, ViewClientTask, followed
from kalam.bench.view_costs import GROUPS, viewed

ROWS_PER_MESSAGE: Final = 20


def measure_view_lag(stage: Stage) -> Iterator[Figure]:
    """The median, and what one of a hundred is above."""
    per_s, table = stage.sizes.feed_per_s, f"{NAMESPACE}.followed"
    messages = round(per_s * stage.sizes.paced_s / ROWS_PER_MESSAGE)
    stage.progress.step(f"views: {per_s:,} events/s for {stage.sizes.paced_s:g} s")
    with viewed(stage, table, 1, "0", SELECT) as [view]:
        task = ViewClientTask.of(
            stage, table, view, messages=messages, each=ROWS_PER_MESSAGE, per_s=per_s / ROWS_PER_MESSAGE
        )
        shown = followed(stage, task)
    for percent in (50, 99):
        yield Figure(
            name=f"event to the view's change, p{percent}",
            situation=f"{per_s:,} events/s, {ROWS_PER_MESSAGE} a message, {GROUPS} groups, refresh = '0'",
            unit=Unit.MS,
            kalam=percentile(shown.delays_ns, percent) / 1e6,
            complete=shown.complete,
            note=shown.told,
            detail={"followed_rows": messages * ROWS_PER_MESSAGE},
        )
