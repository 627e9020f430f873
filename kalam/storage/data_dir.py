"""The data directory: one server at a time, and an id of its own.

The id stands in the names of segment files and in the metadata of JetStream streams, so that what belongs to another
data directory is recognised and left alone.
"""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kalam.errors import StorageFull, Unavailable
from kalam.storage.database import connect, migrate

DATABASE = "kalam.db"
ANNOUNCEMENT = "kalam.json"
RESTORING = "kalam.db.restoring"
"""The database of a data directory while it is being restored."""


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
        (path / ANNOUNCEMENT).unlink(missing_ok=True)
        yield path.resolve()
        (path / ANNOUNCEMENT).unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def prepare_database(data_dir: Path) -> str:
    """Bring ``kalam.db`` up to date and return the data directory's id, made at the first start."""
    path = data_dir / DATABASE
    if (data_dir / RESTORING).exists():
        raise Unavailable(
            f"the restore into {data_dir} was cut off", hint="remove the folder and run `kalam restore` again"
        )
    migrate(path)
    conn = connect(path)
    try:
        conn.execute("INSERT OR IGNORE INTO meta VALUES ('data_id', ?)", (uuid.uuid4().hex[:12],))
        data_id: str = conn.execute("SELECT value FROM meta WHERE name = 'data_id'").fetchone()[0]
        return data_id
    finally:
        conn.close()
