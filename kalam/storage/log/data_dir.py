"""The data directory: one server at a time, and an id of its own.

The id stands in the names of segment files and in the metadata of JetStream streams, so that what belongs to another
data directory is recognised and left alone.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec
import structlog

from kalam.errors import StorageFull, Unavailable
from kalam.storage.log.database import connect
from kalam.storage.log.generation import DAMAGED_HINT, MARK, STREAMS_NAME, Mark, Reached, older, reach, read_mark
from kalam.storage.log.migrate import migrate

log = structlog.get_logger(__name__)

DATABASE = "kalam.db"
ANNOUNCEMENT = "kalam.json"
RESTORING = "kalam.db.restoring"
"""The database of a data directory while it is being restored."""
HOMES: Final = ("shared", "user")
"""The folders of the tables without a LOCATION."""
HOW_TO_GO_ON: Final = (
    "stop here, put back what is missing (or restore a backup into a new folder) and start again; to go on without it, "
    "start once with --accept-loss: nothing that lies there is deleted, what kalam.db does not name goes to unclaimed/"
)


@contextmanager
def locked_data_dir(path: Path) -> Iterator[Path]:
    """Create the directory if need be and hold its lock; raises Unavailable if another server has it."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as exc:
        raise StorageFull(f"the data directory {path} cannot be used: {exc.strerror}") from exc
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise Unavailable(
                f"another server runs on the data directory {path}", hint="stop it, or use another --data-dir"
            ) from exc
        _unannounce(path)
        yield path.resolve()
        _unannounce(path)
    finally:
        os.close(descriptor)


def _unannounce(path: Path) -> None:
    try:
        (path / ANNOUNCEMENT).unlink(missing_ok=True)
    except OSError as exc:
        raise StorageFull(f"{path / ANNOUNCEMENT} cannot be removed: {exc.strerror}") from exc


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """A data directory that may be opened: its id, the generation that it has reached, and whether a loss was accepted.

    ``generation`` is None for a directory that no release that counts has started, and so is ``streams_generation``,
    that of the last start that noted its own in the broker's streams.
    """

    data_id: str
    generation: int | None
    streams_generation: int | None = None
    accepted: bool = False


def prepare_database(data_dir: Path, *, accept_loss: bool = False) -> Prepared:
    """Bring ``kalam.db`` up to date; raises Unavailable for one that is damaged, or older than what lies beside it.

    ``accept_loss`` goes on with an older one: what came after it is lost then.
    """
    path = data_dir / DATABASE
    try:
        if (data_dir / RESTORING).exists():
            raise Unavailable(
                f"the restore into {data_dir} was cut off", hint="remove the folder and run `kalam restore` again"
            )
        mark = read_mark(data_dir / MARK)
        reached = reach(path, mark)
        doubt = older(mark, reached) or lost_catalogue(data_dir, mark, reached)
        if doubt is not None:
            accept(doubt, accept_loss)
        elif mark is None and reached.generation is not None:
            log.warning("the second place of the generation is missing; this start makes it anew", file=MARK)
        migrate(path)
        told = (reached.generation, mark.generation if mark else None)
        generation = max((number for number in told if number is not None), default=None)
        return _prepare(path, mark, generation, accepted=doubt is not None)
    except sqlite3.DatabaseError as exc:
        raise unusable(path, exc) from exc
    except OSError as exc:
        raise StorageFull(f"the data directory {data_dir} cannot be used: {exc}") from exc


def accept(doubt: str, accept_loss: bool) -> None:
    """Raise Unavailable for something that is lost, unless the one who starts the server has said to go on."""
    if not accept_loss:
        raise Unavailable(doubt, hint=HOW_TO_GO_ON)
    log.warning("something is lost, and the server goes on because of accept_loss", why=doubt)


def unusable(path: Path, exc: sqlite3.Error) -> Unavailable:
    """The error of a start for what SQLite says of a database."""
    if exc.sqlite_errorname.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return Unavailable(f"{path} is damaged: {exc}", hint=DAMAGED_HINT)
    return Unavailable(f"{path} cannot be used: {exc}", hint="look at its owner and permissions, and at the disk")


def lost_catalogue(data_dir: Path, mark: Mark | None, reached: Reached) -> str | None:
    """A doubt where the second place is missing, too, and a catalogue that is new lies beside segments that are not."""
    if mark is not None or reached.data_id is not None:
        return None
    segment = next((file for home in HOMES for file in (data_dir / home).rglob("*.parquet")), None)
    return None if segment is None else f"kalam.db is missing or empty, and segments lie beside it, such as {segment}"


def _prepare(path: Path, mark: Mark | None, generation: int | None, *, accepted: bool) -> Prepared:
    conn = connect(path)
    try:
        new = mark.data_id if mark else uuid.uuid4().hex[:12]
        conn.execute("INSERT OR IGNORE INTO meta VALUES ('data_id', ?)", (new,))
        meta = dict(
            conn.execute("SELECT name, value FROM meta WHERE name IN ('data_id', ?)", (STREAMS_NAME,)).fetchall()
        )
    finally:
        conn.close()
    noted = meta.get(STREAMS_NAME)
    return Prepared(
        data_id=meta["data_id"],
        generation=generation,
        streams_generation=None if noted is None else int(noted),
        accepted=accepted,
    )
