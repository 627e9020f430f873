"""EPHEMERAL materialized views: asleep until somebody listens, awake until nobody has for a while.

Law: whoever holds a waking keeps it; who subscribes to its subjects alone is found by one question a second for all
views.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

import pyarrow as pa
import structlog

from kalam.access.rights import Rights
from kalam.errors import TooBusy, Unsupported
from kalam.schema import SEQ, VIEW_KEY, Table
from kalam.storage.log.catalogue import Catalogue
from kalam.tables.ports import UnkeptPort
from kalam.views.asleep import Asleep
from kalam.views.making import Making
from kalam.views.owners import PERMISSION, check_may_read, may_read
from kalam.views.shown import row_asleep, row_of
from kalam.views.standing import Standing
from kalam.views.wakings import Hold, Waking, Wakings

LOOK_S: Final = 1.0
"""How often it is asked who subscribes."""
log = structlog.get_logger(__name__)


class Ephemeral:
    """All EPHEMERAL views; and for whoever reads, every view in memory."""

    def __init__(
        self,
        catalogue: Catalogue,
        rights: Rights,
        port: UnkeptPort,
        making: Making,
        wakings: Wakings,
        asleep: Asleep,
    ) -> None:
        self._catalogue, self._rights, self._port = catalogue, rights, port
        self._making, self._wakings, self._asleep = making, wakings, asleep
        self._idle_s = making.bounds.view_idle_s
        self._views: dict[int, Table] = {}

    async def run(self) -> None:
        """Wake those that somebody listens to, and let others sleep; runs until cancelled."""
        try:
            while True:
                await asyncio.sleep(LOOK_S)
                try:
                    await self._look()
                except Exception:
                    log.exception("it cannot be told who listens to views")
        finally:
            for waking in self._wakings.all():
                await self._wakings.end(waking)

    async def _look(self) -> None:
        views = list(self._views.values())
        asked = [view for view in views if not self._is_held(view)]
        heard = await self._port.heard(asked) if asked else set[int]()
        for view in views:
            waking = self._wakings.of(view)
            listens = heard is None or view.table_id in heard  # what nobody knows changes nothing
            if waking is None:
                if heard and listens and self._views.get(view.table_id) is view and self._may_read(view):
                    self._wakings.wake(view)
            elif waking.holds or listens:
                waking.listened_s = time.monotonic()
            elif time.monotonic() - waking.listened_s >= self._idle_s:
                await self._wakings.end(waking)

    def _is_held(self, view: Table) -> bool:
        waking = self._wakings.of(view)
        return waking is not None and waking.holds > 0

    def _may_read(self, view: Table) -> bool:
        return may_read(view, self._making.sources_of(view), self._rights)

    async def check_rights(self) -> None:
        """Stop those whose owner may not read the sources any more, and let those go on whose owner may again."""
        for waking in self._wakings.all():
            view = self._catalogue.by_id.get(waking.view.table_id)
            if view is None or view.table_id not in self._views or waking.keeper is None:
                continue
            kept = waking.keeper.kept
            if waking.task is not None and not self._may_read(view):
                await self._wakings.pause(waking)
                self._begin(waking, view)
            elif waking.task is None and kept.reason == PERMISSION and self._may_read(view):
                self._begin(waking, view)

    def _begin(self, waking: Waking, view: Table) -> None:
        """Have one kept up, as it is now, whose owner may read what it reads; another one has stopped."""
        if self._may_read(view):
            waking.rows.view = view
            self._wakings.begin(waking)
        elif waking.keeper is not None and waking.task is None:
            kept = waking.keeper.kept
            kept.standing, kept.reason = Standing.STOPPED, PERMISSION
            waking.stood()

    # One view.

    def add(self, view: Table) -> None:
        """A view is there from now on, or again as it was altered."""
        if view.table_id not in self._catalogue.by_id:
            return
        self._views[view.table_id] = view
        waking = self._wakings.of(view)
        if waking is None:
            return
        if waking.view.columns == view.columns and waking.task is None:
            self._begin(waking, view)
        else:
            self._wakings.forget(waking)

    async def remove(self, view: Table) -> None:
        """Keep it up no more; what there is stays until it is forgotten, or there again."""
        self._views.pop(view.table_id, None)
        waking = self._wakings.of(view)
        if waking is not None:
            await self._wakings.pause(waking)

    def forget(self, view: Table) -> None:
        """A view was dropped."""
        self._views.pop(view.table_id, None)
        waking = self._wakings.of(view)
        if waking is not None:
            self._wakings.forget(waking)

    async def refresh(self, view: Table) -> None:
        """Fill it anew where it is awake; returns when it is filled. Raises Unsupported where it has stopped."""
        waking = self._wakings.of(view)
        if waking is None:
            return
        await self._wakings.pause(waking)
        if view.table_id not in self._views:
            raise TooBusy(_being_altered(view))
        self._begin(waking, view)
        await self._wakings.wait_filled(waking)
        if waking.standing is Standing.STOPPED and waking.keeper is not None:  # which shows the rows that it had
            raise Unsupported(f"{waking.called} has stopped: {waking.keeper.kept.reason}")

    # For whoever reads.

    async def hold(self, table: Table) -> Hold | None:
        """Keep a view awake, once it is filled; None for any other table.

        Raises PermissionDenied where its owner may not read what it reads, TooBusy and Unsupported where it cannot be
        filled.
        """
        if not table.is_ephemeral:
            return None
        waking = self._wakings.of(table)
        if waking is None:
            if table.table_id not in self._views:
                raise TooBusy(_being_altered(table))
            check_may_read(table, self._making.sources_of(table), self._rights)
            waking = self._wakings.wake(table)
        hold = Hold(waking)
        try:
            await self._wakings.wait_filled(waking)
        except BaseException:
            hold.release()
            raise
        return hold

    async def source(self, table: Table, *, with_key: bool) -> pa.Table:
        """What a query reads of a view: its rows, or those of its SELECT while it is not awake."""
        waking = self._wakings.of(table)
        hold = None
        if with_key and VIEW_KEY in table.key and (waking is None or not waking.readable):
            hold = await self.hold(table)  # only the groups know it
            waking = self._wakings.of(table)
        try:
            if waking is None or not waking.readable:
                check_may_read(table, self._making.sources_of(table), self._rights)
                return await self._asleep.rows(table)
            data, _ = await waking.rows.numbered()
            hidden = set() if with_key else table.hidden_columns
            return data.drop_columns([SEQ, *hidden])
        finally:
            if hold is not None:
                hold.release()

    async def numbered(self, table: Table) -> tuple[pa.Table, int]:
        """The rows of a view that is held, and the number of the last change in them."""
        return await self._wakings.numbered(table)

    def last_seq(self, table: Table) -> int:
        """The last change of a view that is held."""
        return self._wakings.last_seq(table)

    def state(self, table: Table) -> list[tuple[str, Any]]:
        """How it stands with one, by name."""
        waking = self._wakings.of(table)
        if waking is None:
            return [("state", Standing.ASLEEP.value), ("rows", 0)]
        return [("state", waking.standing.value), ("rows", len(waking.rows))]

    def row(self, view: Table) -> tuple[Any, ...]:
        """The row of ``system.views``."""
        waking = self._wakings.of(view)
        if waking is None or waking.keeper is None:
            return row_asleep(view, None if self._may_read(view) else PERMISSION)
        return row_of(waking.keeper)


def _being_altered(view: Table) -> str:
    return f"the materialized view {view.name} is being altered; try again"
