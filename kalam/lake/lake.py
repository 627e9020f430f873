"""The lake of all tables, as the server has it: follows flushes, compactions and ALTERs, and answers what is asked.

The law: nothing waits for it. What changes a table's segments leaves a note (``Catalogue.changed_at``) and goes on; the
lake looks at the notes, and has a process of its own commit what is due, a table at a time. What fails is tried again
with a growing pause and told in ``SHOW LAKE``; the last commit goes on being read meanwhile.

A file that a compaction replaced is kept until no snapshot names it that readers may hold (``metadata.py``), and nobody
here reads it. Where the disk is nearly full, the oldest of them go at once, after the snapshots that name them; if
nothing can be committed, with all of the table's lake.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Iterable
from importlib.util import find_spec

import msgspec
import structlog

from kalam.backoff import Backoffs
from kalam.errors import Internal, StorageFull, TableNotFound, Unavailable, Unsupported
from kalam.lake import worker
from kalam.lake.basis import read_summaries
from kalam.lake.figures import Figures, Work
from kalam.lake.folder import LakeFolder, lake_folder, lake_location
from kalam.lake.kept import KeptFiles
from kalam.lake.state import Head, load_head
from kalam.lake.worker import LakeAnswer, LakeRequest
from kalam.schema import Table
from kalam.settings import Settings
from kalam.storage.log.database import now_us
from kalam.storage.log.disk_faults import disk_may_fail
from kalam.storage.log.troubles import log_failure, reason_of
from kalam.storage.opened import Storage
from kalam.storage.segments.garbage import list_garbage, remove_garbage
from kalam.storage.segments.remote import is_remote
from kalam.storage.work.compaction import Compactor
from kalam.storage.work.worker_process import WorkerProcess
from kalam.threads import Purpose, in_thread

log = structlog.get_logger(__name__)

LOOK_S = 1.0
ROUNDS_MAX = 5
"""How often segments are written again for one commit: each time others may have come meanwhile."""
RETRY_S = (1.0, 300.0)
READ_RETRY_S = 30.0
TROUBLE = "lake"
"""Its word among the troubles of a table (``storage/log/troubles.py``)."""
MISSING = "the library pyiceberg is not installed, without which other engines cannot read the tables"


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """The lake of one table: the last commit, how many seconds it is behind the last flush, and what is wrong."""

    table: Table
    head: Head | None
    lag_s: float
    error: str | None


class Lake:
    """The lakes of a data directory's tables."""

    def __init__(self, settings: Settings, storage: Storage, compactor: Compactor) -> None:
        self._settings, self._storage, self._compactor = settings, storage, compactor
        self.process = WorkerProcess(worker.__name__, settings.flush_worker_idle_s)
        self._kept = KeptFiles(storage.database, storage.folders, compactor.replaced)
        self._heads: dict[int, Head] = {}
        self._metadata_bytes = 0
        self._changed_at: dict[int, float] = {}
        self._due_at: dict[int, float] = {}
        self._compared: set[int] = set()
        self._locks: dict[int, asyncio.Lock] = {}
        self._retries = Backoffs(*RETRY_S)
        self.work = Work()
        self._is_missing = find_spec("pyiceberg") is None
        self._known = asyncio.Event()
        compactor.keeps = self.covers

    # What is asked.

    def wanted(self, table: Table) -> bool:
        """Whether a table is to have a lake: policies of rows hold in no other engine."""
        if not table.is_stored or table.row_security or table.is_ephemeral:
            return False
        option = table.stored_options.iceberg
        return self._settings.iceberg if option is None else option

    def covers(self, table: Table) -> bool:
        """Whether a table has a lake, or will have one with its next flush."""
        return not self._is_missing and self.wanted(table)

    def shown(self) -> list[Shown]:
        """The lake of every table that is to have one."""
        tables = sorted(filter(self.wanted, self._storage.catalogue.stored()), key=lambda table: table.name)
        return [self._shown(table) for table in tables]

    def _shown(self, table: Table) -> Shown:
        own = table.table_id
        since = self._changed_at.get(own, self._storage.catalogue.changed_at.get(own))
        return Shown(
            table=table,
            head=self._heads.get(own),
            lag_s=0.0 if since is None else round(time.monotonic() - since, 3),
            error=MISSING if self._is_missing else dict(self._storage.troubles.of(own)).get(TROUBLE),
        )

    def figures(self) -> Figures:
        """The lakes of all tables in numbers."""
        known = self._storage.catalogue.by_id
        notes = {**self._storage.catalogue.changed_at, **self._changed_at}
        behind = [since for own, since in notes.items() if own in known and self.wanted(known[own])]
        return Figures(
            tables=len(self._heads),
            lag_s=time.monotonic() - min(behind) if behind else 0.0,
            metadata_bytes=self._metadata_bytes,
            kept_bytes=self._kept.byte_count,
        )

    async def refresh(self, table: Table) -> Shown:
        """Bring a table's lake to its last flush, whatever state it is in. Raises what keeps it from that."""
        if not self.wanted(table):
            raise Unsupported(f"table {table.name} has no lake", hint=f"ALTER TABLE {table.name} SET ICEBERG = true")
        if self._is_missing:
            raise Unavailable(MISSING, hint="pip install pyiceberg")
        await self._commit(table, thoroughly=True)
        return self._shown(self._storage.catalogue.newest(table))

    async def metadata(self, table: Table) -> tuple[str, bytes]:
        """What a table's Iceberg metadata is called, and its content; made where there is none that can be read."""
        await self._known.wait()
        for _ in range(2):
            head = self._heads.get(table.table_id)
            if head is not None and head.schema_version == table.schema_version:
                content = await in_thread(Purpose.FILES, self._read_metadata, table, head)
                if content is not None:
                    return LakeFolder.of(self._storage.folders, table).called(head.metadata), content
            await self.refresh(table)
        raise Internal(f"the Iceberg metadata of table {table.name} cannot be read")

    def _read_metadata(self, table: Table, head: Head) -> bytes | None:
        folder = LakeFolder.of(self._storage.folders, table)
        try:
            content = folder.read(head.metadata)
        except OSError:
            return None
        return content if len(content) == head.metadata_note.byte_count else None

    # What is done by itself.

    async def run(self) -> None:
        """Follow what is flushed, until cancelled."""
        while not self._known.is_set():
            with disk_may_fail("the lake"):
                await self._look_at_start()
                break
            await asyncio.sleep(LOOK_S)
        while True:
            await asyncio.sleep(min(LOOK_S, self._settings.iceberg_interval_s or LOOK_S))
            with disk_may_fail("the lake"):
                await self._look()
            await self.process.stop_if_idle()

    async def _look_at_start(self) -> None:
        """Know what there is: lakes that fit are left alone, all others are due."""
        summaries, heads = await in_thread(Purpose.FILES, self._read_heads)
        folders = self._storage.folders
        for table in self._storage.catalogue.stored():
            own, head = table.table_id, heads.get(table.table_id)
            here = (lake_location(folders, table), folders.location(table), folders.data_id, own)
            if head and (head.location, head.segments_location, head.data_id, head.table_id) == here:
                self._remember(own, head)
            fits = own in self._heads and (self._heads[own].basis, self._heads[own].schema_version) == (
                summaries.get(own, ""),
                table.schema_version,
            )
            if (not fits and own in summaries) or (own in heads and not self.covers(table)):
                self._storage.catalogue.note_changed(own)
        for marked in await self._kept.listed():
            self._note_due(marked.table_id, [marked.unnamed_us])
            if marked.unnamed_us is None:  # the commit that named it no more was cut off before it was noted
                self._storage.catalogue.note_changed(marked.table_id)
        self._known.set()

    def _read_heads(self) -> tuple[dict[int, str], dict[int, Head]]:
        with self._storage.database.reading() as conn:
            summaries = read_summaries(conn)
        found = {}
        for table in self._storage.catalogue.stored():
            if head := load_head(lake_folder(self._storage.folders, table)):
                found[table.table_id] = head
        return summaries, found

    async def _look(self) -> None:
        for own, since in list(self._storage.catalogue.changed_at.items()):
            self._storage.catalogue.changed_at.pop(own, None)
            self._changed_at.setdefault(own, since)
        now = time.monotonic()
        due = [own for own, since in self._changed_at.items() if now - since >= self._settings.iceberg_interval_s]
        due += [own for own, at in self._due_at.items() if at <= now and own not in due]
        for own in due:
            table = self._storage.catalogue.by_id.get(own)
            if table is None or not table.is_stored:  # it was dropped, or is a STREAM table, which has none
                self._forget(own)
            elif self._retries.is_due(own):
                await self._try(table)
        await self._make_room()

    async def _try(self, table: Table, kept_s: float | None = None) -> bool:
        try:
            if not self.covers(table):
                await self._remove(table)
            else:
                await self._commit(table, thoroughly=table.table_id not in self._compared, kept_s=kept_s)
        except Exception as exc:  # noqa: BLE001 - whatever it was, it is this table's, and there are others
            log_failure("lake failed", exc, table=str(table.name), again_in_s=self._retries.failed(table.table_id))
            return False
        self._retries.succeeded(table.table_id)
        return True

    async def _make_room(self) -> None:
        """Let go of the oldest replaced files, and of the snapshots that name them, where the disk is nearly full."""
        if shutil.disk_usage(self._settings.data_dir).free >= self._settings.disk_free_bytes_min:
            return
        for marked in (await self._kept.listed())[:1]:
            table = self._storage.catalogue.by_id.get(marked.table_id)
            if table is not None:
                log.warning("replaced segments go early, for the disk is nearly full", table=str(table.name))
                fails = not self._retries.is_due(table.table_id)
                if fails or not await self._try(table, kept_s=0):  # a commit, too, wants some room
                    await self._remove(table)
                    self._storage.catalogue.note_changed(table.table_id)

    def _remember(self, table_id: int, head: Head | None) -> None:
        """What was committed last; None: there is nothing any more."""
        for one, sign in ((self._heads.pop(table_id, None), -1), (head, 1)):
            self._metadata_bytes += sign * one.metadata_bytes if one else 0
        if head is not None:
            self._heads[table_id] = head

    def _forget(self, table_id: int) -> None:
        """The table is gone."""
        self._remember(table_id, None)
        for known in (self._changed_at, self._due_at, self._locks):
            known.pop(table_id, None)
        self._compared.discard(table_id)
        self._storage.troubles.clear(table_id, TROUBLE)
        self._retries.succeeded(table_id)

    # How it is done.

    async def _commit(self, table: Table, *, thoroughly: bool, kept_s: float | None = None) -> None:
        own = table.table_id
        async with self._locks.setdefault(own, asyncio.Lock()):
            since = self._take_note(own)
            try:
                with self.work.timed():
                    answer = await self._answer(table, thoroughly=thoroughly, kept_s=kept_s)
                if answer.head is None:  # it was dropped meanwhile
                    await self._remove_folder(table)
                    self._forget(own)
                    raise TableNotFound(f"table {table.name} was dropped")
                self._remember(own, answer.head)
                await self._let_go(table, answer)
            except BaseException as exc:
                if since is not None:
                    self._changed_at[own] = since
                if isinstance(exc, Exception) and own in self._storage.catalogue.by_id:
                    self.work.failures += 1
                    self._storage.troubles.note(own, TROUBLE, reason_of(exc))
                raise
            self._storage.troubles.clear(own, TROUBLE)
            self._compared.add(own)

    def _take_note(self, table_id: int) -> float | None:
        """Since when the lake of a table is behind: what comes from now on is another note."""
        newer = self._storage.catalogue.changed_at.pop(table_id, None)
        return self._changed_at.pop(table_id, newer)

    async def _answer(self, table: Table, *, thoroughly: bool, kept_s: float | None) -> LakeAnswer:
        for _ in range(ROUNDS_MAX):
            answer = await self.process.run(self._request(table, thoroughly, kept_s), LakeAnswer)
            if answer.fault is not None:
                raise (StorageFull if answer.disk_failed else Internal)(answer.fault)
            if not answer.waiting:
                return answer
            await self._compactor.rewrite(self._storage.catalogue.newest(table), answer.waiting, reason="lake")
            self._take_note(table.table_id)  # of what was written again
        raise Internal(f"the segments of table {table.name} change faster than they can be written again")

    def _request(self, table: Table, thoroughly: bool, kept_s: float | None) -> LakeRequest:
        folders = self._storage.folders
        return LakeRequest(
            database=str(self._storage.database.path),
            data_dir=str(folders.data_dir),
            data_id=folders.data_id,
            cache_bytes_max=folders.cache_bytes_max,
            table_id=table.table_id,
            kept_us=int((self._settings.segments_kept_s if kept_s is None else kept_s) * 1_000_000),
            thoroughly=thoroughly,
        )

    async def _let_go(self, table: Table, answer: LakeAnswer) -> None:
        head = answer.head
        if not answer.marked or head is None or head.snapshot_id is None or head.oldest_snapshot_id is None:
            self._due_at.pop(table.table_id, None)
            return
        await self._kept.note_unnamed(table, answer.marked, head.snapshot_id)
        marked = await self._kept.listed(table.table_id)
        oldest = head.oldest_snapshot_id
        free = [one for one in marked if one.unnamed_us is not None and one.unnamed_us <= oldest]
        read = await self._kept.let_go(table, free)
        self._due_at.pop(table.table_id, None)
        self._note_due(table.table_id, [one.unnamed_us for one in marked if one not in free])
        if read:
            self._due_at[table.table_id] = time.monotonic() + READ_RETRY_S

    def _note_due(self, table_id: int, unnamed_us: Iterable[int | None]) -> None:
        """Remember when the first of a table's kept files may go."""
        for us in unnamed_us:
            if us is not None:
                wait_s = us / 1e6 + self._settings.segments_kept_s - time.time()
                at = time.monotonic() + max(wait_s, 0) + LOOK_S
                self._due_at[table_id] = min(at, self._due_at.get(table_id, at))

    async def _remove(self, table: Table) -> None:
        """A table has no lake any more."""
        async with self._locks.setdefault(table.table_id, asyncio.Lock()):
            await self._remove_folder(table)
            read = await self._kept.let_go(table, await self._kept.listed(table.table_id))
            self._forget(table.table_id)
            self._storage.catalogue.changed_at.pop(table.table_id, None)
            if read:
                self._due_at[table.table_id] = time.monotonic() + READ_RETRY_S

    async def _remove_folder(self, table: Table) -> None:
        path = lake_folder(self._storage.folders, table)
        if not is_remote(self._storage.folders.location(table)) and not await in_thread(Purpose.FILES, path.exists):
            return  # as after each flush of a table that never had one
        garbage = lake_garbage(self._storage, table)
        await self._storage.database.write(lambda conn: list_garbage(conn, garbage, now_us()))
        await remove_garbage(self._storage.database, garbage)


def lake_garbage(storage: Storage, table: Table) -> list[str]:
    """The entries of the list of garbage that mean a table's lake."""
    return [str(lake_folder(storage.folders, table) / "*")]
