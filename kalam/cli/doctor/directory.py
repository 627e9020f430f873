"""The data directory: its database, and what lies beside it."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from kalam.cli.doctor.finding import Finding, Patient, size_text
from kalam.errors import Unavailable
from kalam.storage.log.data_dir import DATABASE, HOMES, HOW_TO_GO_ON, RESTORING, lost_catalogue
from kalam.storage.log.database import connect
from kalam.storage.log.generation import DAMAGED_HINT, MARK, Reached, older, reach, read_mark
from kalam.storage.segments.garbage import UNCLAIMED

NAMED = 3


def data_directory(patient: Patient) -> Iterator[Finding]:
    """Whether it can be used."""
    folder = patient.data_dir
    if not folder.is_dir():
        yield Finding("ok", "data directory", f"{folder} is not there yet; kalam serve makes it")
        return
    if (folder / RESTORING).exists():
        advice = "remove the folder and run kalam restore again"
        yield Finding("fail", "data directory", f"the restore into {folder} was cut off", advice)
    closed = [name for name in ("", DATABASE, f"{DATABASE}-wal", MARK, "lock") if not _writable(folder / name)]
    if closed:
        names = ", ".join(str(folder / name) for name in closed)
        yield Finding("fail", "data directory", f"cannot be written: {names}", "look at the owner and the permissions")
    else:
        state = "a server runs on it" if patient.runs else "no server runs on it"
        yield Finding("ok", "data directory", f"{folder}; {state}")


def _writable(path: Path) -> bool:
    if path.is_file():  # os.access does not know of file systems that are read-only for one file
        try:
            os.close(os.open(path, os.O_RDWR))
        except OSError:
            return False
    return not path.exists() or os.access(path, os.W_OK)


def database(patient: Patient) -> Iterator[Finding]:
    """Whether ``kalam.db`` is whole, and the newest."""
    path = patient.data_dir / DATABASE
    if not patient.data_dir.is_dir():
        return
    try:
        mark = read_mark(patient.data_dir / MARK)  # first: a server that runs writes it after the database
        reached = reach(path, mark)
        doubt = older(mark, reached) or lost_catalogue(patient.data_dir, mark, reached)
    except Unavailable as exc:
        yield Finding("fail", "kalam.db", exc.detail, str(exc.fields.get("hint", "")))
        return
    except sqlite3.Error as exc:
        yield Finding("fail", "kalam.db", f"{path} cannot be used: {exc}", DAMAGED_HINT)
        return
    if doubt is not None:
        yield Finding("fail", "kalam.db", doubt, HOW_TO_GO_ON)
    elif reached.data_id is None:
        yield Finding("ok", "kalam.db", "there is none yet")
    else:
        yield from _whole(path, reached)
        if mark is None and reached.generation is not None:
            yield Finding("warn", "kalam.db", f"{MARK} is missing: an older kalam.db would not be noticed", "restart")


def _whole(path: Path, reached: Reached) -> Iterator[Finding]:
    with closing(connect(path, read_only=True)) as conn:
        state = conn.execute("PRAGMA quick_check(1)").fetchone()[0]
    if state == "ok":
        came = "not started yet" if reached.generation is None else f"generation {reached.generation}"
        yield Finding("ok", "kalam.db", f"{size_text(path.stat().st_size)}, {came}, whole")
    else:
        yield Finding("fail", "kalam.db", f"{path} is damaged: {state}", DAMAGED_HINT)


def unclaimed_files(patient: Patient) -> Iterator[Finding]:
    """What was moved out of the way, and what the next start will move."""
    data_dir = patient.data_dir
    if not (data_dir / DATABASE).is_file():
        return
    kept = [path for folder in _unclaimed_folders(data_dir) for path in folder.rglob("*.parquet")]
    if kept:
        size = size_text(sum(path.stat().st_size for path in kept))
        yield Finding(
            "warn",
            "unclaimed files",
            f"{_count(kept)} ({size}) that kalam.db does not name, such as {_some(kept)}",
            "left by a crash they can go; if rows are missing, put the newest kalam.db and then these files back",
        )
    strays = [] if patient.runs else _strays(data_dir)  # a server that runs may be writing one
    if strays:
        yield Finding(
            "warn", "stray files", f"{_count(strays)} that kalam.db does not name, such as {_some(strays)}",
            "the next start moves them to unclaimed/",
        )  # fmt: skip
    if not kept and not strays:
        yield Finding("ok", "unclaimed files", "none")


def _count(paths: list[Path]) -> str:
    return f"{len(paths)} file" + ("" if len(paths) == 1 else "s")


def _some(paths: list[Path]) -> str:
    return ", ".join(path.name for path in sorted(paths)[:NAMED])


def _unclaimed_folders(data_dir: Path) -> Iterator[Path]:
    yield data_dir / UNCLAIMED
    with closing(connect(data_dir / DATABASE, read_only=True)) as conn:
        places = {Path(path).parent for (path,) in conn.execute("SELECT path FROM garbage")}
    yield from (place for place in places if place.name == UNCLAIMED)


def _strays(data_dir: Path) -> list[Path]:
    with closing(connect(data_dir / DATABASE, read_only=True)) as conn:
        [data_id] = conn.execute("SELECT value FROM meta WHERE name = 'data_id'").fetchone()
        named = {path for (path,) in conn.execute("SELECT path FROM segments")}
        if conn.execute("SELECT 1 FROM sqlite_master WHERE name = 'replaced_segments'").fetchone():
            named |= {path for (path,) in conn.execute("SELECT path FROM replaced_segments")}
        garbage = {Path(path).name for (path,) in conn.execute("SELECT path FROM garbage")}
    ours = re.compile(rf"(batch|deleted)-{re.escape(data_id)}-\d+-")
    found = (path for home in HOMES for path in (data_dir / home).rglob("*.parquet"))
    return [path for path in found if ours.match(path.name) and path.name not in named | garbage]
