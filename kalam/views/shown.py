"""The rows of ``system.views``."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from kalam.schema import Table
from kalam.views.keeper import Keeper
from kalam.views.standing import Standing


def row_of_unkept(view: Table, reason: str | None) -> tuple[Any, ...]:
    """A view that is not kept yet, or cannot be for a reason."""
    standing = Standing.WAITING if reason is None else Standing.FAILED
    how = view.view_options.how.value
    return (*_name(view), standing.value, reason or "the server starts", how, "{}", 0, 0.0, 0, 0, 0, 0, 0)


def row_asleep(view: Table, reason: str | None) -> tuple[Any, ...]:
    """A view in memory to which nobody listens, or that cannot be woken for a reason."""
    standing = Standing.ASLEEP if reason is None else Standing.STOPPED
    return (*_name(view), standing.value, reason, view.view_options.how.value, "{}", 0, 0.0, 0, 0, 0, 0, 0)


def standing_of(keeper: Keeper) -> dict[str, Any]:
    """How a view without a name stands, and what it costs."""
    return {
        "state": keeper.kept.standing.value,
        "how": keeper.view.view_options.how.value,
        "lag_rows": _lag(keeper),
        "failed": keeper.state.failed,
        "refreshes": keeper.state.refreshes,
        "cost_ms": round(keeper.kept.cost_s * 1_000),
    }


def _lag(keeper: Keeper) -> int:
    positions = dict(keeper.positions)
    sources = {source.table.table_id: source for source in keeper.sources}
    return sum(sources[id_].lag(each).rows for id_, each in positions.items() if id_ in sources)


def row_of(keeper: Keeper) -> tuple[Any, ...]:
    """How a view stands that is kept."""
    view, kept, state = keeper.view, keeper.kept, keeper.state
    positions = dict(keeper.positions)
    sources = {source.table.table_id: source for source in keeper.sources}
    told = {str(sources[id_].table.name): each.seq for id_, each in positions.items() if id_ in sources}
    behind_s = 0.0 if kept.behind_since_s is None else time.monotonic() - kept.behind_since_s
    return (
        *_name(view),
        kept.standing.value,
        kept.reason or (f"{kept.filled_rows} rows" if kept.standing is Standing.FILLING else None),
        view.view_options.how.value,
        msgspec.json.encode(told).decode(),
        _lag(keeper),
        round(behind_s, 3),
        sum(each.missed for each in positions.values()),
        state.late,
        state.failed,
        state.refreshes,
        round(kept.cost_s * 1_000),
    )


def _name(view: Table) -> tuple[str, str]:
    return view.name.namespace, view.name.table
