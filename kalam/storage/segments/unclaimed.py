"""What lies in the folders of tables and is named by no catalogue: moved out of the way, and kept for a week.

The law: what the catalogue does not know of is not deleted because of that. A crash leaves such files (a flush that was
not recorded), but so does a catalogue that lost its newest part, and then they are the only copies. What the catalogue
itself let go of is listed as garbage and never comes here; the temporary file of a write that was cut off, which is no
whole segment, is removed.

A file of the data directory goes to ``unclaimed/`` in it, under the path that it had; one of a LOCATION to
``unclaimed/`` in that, so that nothing is copied from one file system or store to another. The move is listed as
garbage that is due in a week.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import structlog

from kalam.schema import Table
from kalam.storage.log.catalogue import Catalogue
from kalam.storage.log.data_dir import HOMES
from kalam.storage.log.database import Database, make_directory, now_us
from kalam.storage.segments.folders import Folders
from kalam.storage.segments.garbage import UNCLAIMED, list_garbage, remove_garbage
from kalam.storage.segments.remote import matching, move_aside, remote_of, remove_file
from kalam.threads import Purpose, in_thread

log = structlog.get_logger(__name__)

KEPT_S: Final = 7 * 86_400
KINDS: Final = ("batch-", "deleted-", ".batch-", ".deleted-")
NAMED_AT_ONCE: Final = 20


class Unclaimed:
    """The unclaimed files and streams of a data directory. ``streams`` are the names of the broker's."""

    def __init__(self, database: Database, catalogue: Catalogue, folders: Folders) -> None:
        self._database, self._catalogue, self._folders = database, catalogue, folders
        self._listed: dict[str, int] = {}
        self.streams: list[str] = []

    @property
    def files(self) -> int:
        """How many files are kept."""
        return len(self._listed)

    async def settle(self) -> None:
        """At the start: move what is found, and know what was moved earlier."""
        moved = await in_thread(Purpose.FILES, self._move_strays)
        due = now_us() + KEPT_S * 1_000_000
        if moved:
            await self._database.write(lambda conn: list_garbage(conn, map(str, moved), due))
        self._listed = await in_thread(Purpose.CATALOGUE, self._read_list)

    def _read_list(self) -> dict[str, int]:
        with self._database.reading() as conn:
            rows = conn.execute("SELECT path, created_us FROM garbage WHERE created_us > ?", (now_us(),)).fetchall()
        return {path: due for path, due in rows if UNCLAIMED in Path(path).parts}

    async def remove_due(self) -> None:
        """Remove what has been kept long enough."""
        now = now_us()
        due = [path for path, when in self._listed.items() if when <= now]
        if due:
            await remove_garbage(self._database, due)
            for path in due:
                del self._listed[path]

    def _move_strays(self) -> list[Path]:
        moved: list[Path] = []
        named, tables = self._named()
        for path in [*self._of_homes(), *self._of_locations(tables)]:
            if path in named:
                continue
            try:
                if path.name.startswith("."):
                    remove_file(path)
                else:
                    moved.append(self._move(path))
            except OSError as exc:
                log.warning("a file that no catalogue names stays where it is", file=path.name, error=str(exc))
        if moved:
            names = [path.name for path in moved[:NAMED_AT_ONCE]]
            log.warning(
                "files that kalam.db does not name were moved to unclaimed/, where they are kept for a week",
                count=len(moved),
                files=names,
            )
        return moved

    def _named(self) -> tuple[set[Path], list[tuple[Table, str]]]:
        """The files that segments name or are marked as replaced, and the copies that there are."""
        with self._database.reading() as conn:
            copies = conn.execute("SELECT copy_id, table_id, user_id FROM copies").fetchall()
            paths: dict[int, list[str]] = {}
            for copy_id, path in conn.execute(
                """SELECT copy_id, path FROM segments UNION ALL
                SELECT copy_id, path FROM replaced_segments JOIN copies USING (table_id, user_id)"""
            ):
                paths.setdefault(copy_id, []).append(path)
        named: set[Path] = set()
        found: list[tuple[Table, str]] = []
        for copy_id, table_id, user in copies:
            table = self._catalogue.by_id.get(table_id)
            if table is not None and table.is_stored:
                found.append((table, user))
                folder = self._folders.folder(table, user)
                named.update(folder / path for path in paths.get(copy_id, ()))
        return named, found

    def _of_homes(self) -> Iterator[Path]:
        """The files of this data directory's tables in the folders of those without a LOCATION."""
        ours = re.compile(rf"\.?(batch|deleted)-{re.escape(self._folders.data_id)}-\d+-")
        for home in HOMES:
            for path in (self._folders.data_dir / home).rglob("*"):
                if ours.match(path.name) and path.is_file():
                    yield path

    def _of_locations(self, copies: list[tuple[Table, str]]) -> Iterator[Path]:
        for table, user in copies:
            if table.stored_options.location is not None:
                folder, prefix = self._folders.folder(table, user), f"{self._folders.data_id}-"
                for kind in KINDS:
                    yield from matching(folder, f"{kind}{prefix}*")

    def _move(self, path: Path) -> Path:
        """Move a file out of the way; where it is then."""
        root = self._folders.data_dir
        if path.is_relative_to(root) and path.relative_to(root).parts[0] in HOMES:
            target = root / UNCLAIMED / path.relative_to(root)
        elif remote_of(path.parent) is not None:
            return move_aside(path, UNCLAIMED)
        else:
            target = path.parent / UNCLAIMED / path.name
        make_directory(target.parent)
        path.rename(target)
        return target
