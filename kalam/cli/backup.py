"""``kalam backup`` and ``kalam restore``: a data directory as a copy, and back."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from kalam.cli.address import DEFAULT_DATA_DIR
from kalam.cli.failure import CommandFailed
from kalam.cli.telling import tell


def backup(
    folder: Annotated[Path, typer.Argument(help="Where the backup goes: a new or an empty folder.")],
    data_dir: Annotated[
        Path, typer.Option(envvar="KALAM_DATA_DIR", help="The data directory; its server may run.")
    ] = DEFAULT_DATA_DIR,
) -> None:
    """Copy a data directory, consistently, while its server runs.

    The copy has all that was acknowledged when it began: tables, their rows, their Parquet files. The events of STREAM
    tables lie in NATS and are not part of it.
    """
    from kalam.cli.copy_progress import CopyProgress
    from kalam.storage.backup.backup import back_up

    started = time.perf_counter()
    with _told(), CopyProgress("backup") as progress:
        manifest = back_up(data_dir, folder, progress)
    seconds = time.perf_counter() - started
    tell(f"{folder}: {_content(len(manifest.segments), manifest.byte_count)} ({seconds:.1f} s)")


def restore(
    folder: Annotated[Path, typer.Argument(help="The backup.")],
    data_dir: Annotated[
        Path, typer.Option(envvar="KALAM_DATA_DIR", help="What it becomes: a new or an empty folder.")
    ] = DEFAULT_DATA_DIR,
) -> None:
    """Make a new data directory from a backup.

    It is one of its own, with an id of its own: it may run beside the original, on its own NATS or with another
    subject_prefix. Rows of a table with a LOCATION lie in the data directory afterwards.
    """
    from kalam.cli.copy_progress import CopyProgress
    from kalam.storage.backup.restore import restore as restore_into

    with _told(), CopyProgress("restore") as progress:
        restored = restore_into(folder, data_dir, progress)
    manifest = restored.manifest
    tell(f"{data_dir}: {_content(len(manifest.segments), manifest.byte_count)}")
    tell(f"as of {manifest.created_at:%Y-%m-%d %H:%M:%S} UTC; kalam serve --data-dir {data_dir}")
    for name in restored.moved:
        tell(f"{name} had a LOCATION; its rows lie in the data directory now")


def _content(segments: int, byte_count: int) -> str:
    return f"the database and {segments:,} Parquet file{'' if segments == 1 else 's'}, {byte_count:,} bytes"


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        name = f" {exc.filename}" if exc.filename else ""
        raise CommandFailed(f"error: {exc.strerror or exc}{name}") from exc
    except sqlite3.Error as exc:
        raise CommandFailed(f"error: the database cannot be read or written: {exc}") from exc
