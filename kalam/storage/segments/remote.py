"""Segments in an object store, behind a local folder.

The law: everybody reads and writes segments in a local folder. For a table whose LOCATION is an fsspec URL that folder
is a cache, which has a file ``.location`` that names the URL. A segment is written there like any other, uploaded under
its final name, its size checked, and only then named by a transaction; what a crash leaves between is a stray, there as
here. A reader that misses a file in the cache fetches it. The cache is kept within its bound by removing what was used
least lately; whoever reads a file holds it open or by a link of its own, so removing its name harms nobody.

Not chosen: letting DataFusion read from the object store. Key look-ups, compaction and backups would need a second way
of their own, every query would pay the network for footers, and links to exactly the segments of a snapshot, on which
the speed of many small files rests, do not exist there.

Where the store is and who we are there is fsspec's own configuration and environment (``FSSPEC_S3_ENDPOINT_URL``,
``AWS_ACCESS_KEY_ID``, …), see https://filesystem-spec.readthedocs.io/en/latest/features.html#configuration.
"""

from __future__ import annotations

import errno
import fnmatch
import os
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import structlog

from kalam.errors import Internal, InvalidOption, StorageFull
from kalam.names import TableName
from kalam.storage.log.open_files import out_of_files

MARKER = ".location"
CACHE = "remote"
TRIES_MAX = 10
log = structlog.get_logger(__name__)


class Remote(msgspec.Struct, frozen=True):
    """What a cache folder is the cache of. All cache folders of a data directory share ``cache_bytes_max``."""

    url: str
    cache_bytes_max: int


def is_remote(location: str) -> bool:
    """Whether a LOCATION is a URL."""
    return "://" in location


def cache_folder(data_dir: Path, copy_name: str, remote: Remote) -> Path:
    """The folder that stands for a URL, made if need be; ``copy_name`` tells the copies of all tables apart."""
    folder = data_dir / CACHE / copy_name
    marker, content = folder / MARKER, msgspec.json.encode(remote)
    with suppress(FileNotFoundError):
        if marker.read_bytes() == content:
            return folder
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f"{MARKER}.{uuid.uuid4().hex}"
    temporary.write_bytes(content)
    temporary.replace(marker)
    return folder


def remote_of(folder: Path) -> Remote | None:
    """What this folder is the cache of; None for an ordinary one."""
    try:
        return msgspec.json.decode((folder / MARKER).read_bytes(), type=Remote)
    except (FileNotFoundError, NotADirectoryError):  # where a file is in the folder's place, hot rows are read still
        return None


def file_system(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the path in it; raises InvalidOption where it cannot be had."""
    import fsspec  # only who has a remote LOCATION pays for it

    try:
        found = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as exc:
        hint = "pip install 'kalam-server[s3]'" if url.startswith("s3") else None
        raise InvalidOption(f"LOCATION {url!r} cannot be used: {exc}", hint=hint) from exc
    return found[0], str(found[1]).rstrip("/")


def check_remote_location(location: str, roots: Sequence[str], others: Mapping[TableName, str]) -> None:
    """Raise InvalidOption unless a URL lies under one of the roots, apart from other tables, and can be used.

    ``location`` and the values of ``others`` are judged up to ``${user_id}``, of which ``location`` is cut already.
    """
    path = location.rstrip("/")
    if "::" in path or ".." in path.split("/") or any(char in path for char in "*?[]#"):
        raise InvalidOption(f"LOCATION {location!r} has to be a plain URL, without '..', '::' or wildcards")
    if not any(is_remote(root) and _is_under(path, root) for root in roots):
        listed = ", ".join(root for root in roots if is_remote(root)) or "none"
        raise InvalidOption(f"LOCATION {location!r} is not under one of location_roots that are URLs ({listed})")
    for name, other in others.items():
        taken = other.split("${user_id}")[0]
        if is_remote(other) and (_is_under(path, taken) or _is_under(taken, path)):
            raise InvalidOption(f"LOCATION {location!r} overlaps that of table {name} ({taken})")
    file_system(path)


def try_remote_location(location: str) -> None:
    """Raise InvalidOption unless files can be made, read and removed at a URL, of which nothing is left behind."""
    store, root = file_system(location)
    probe = f"{root}/.kalam-probe-{uuid.uuid4().hex}"
    content = probe.encode()
    try:
        if "s3" not in store.protocol:
            store.makedirs(root, exist_ok=True)
        store.pipe_file(probe, content)
        store.invalidate_cache()
        read = store.cat_file(probe)
        store.rm_file(probe)
    except Exception as exc:  # every store has errors of its own
        text = str(exc) or type(exc).__name__
        raise InvalidOption(f"LOCATION {location[:200]!r} cannot be used: {text[:500]}") from exc
    if read != content:
        raise InvalidOption(f"LOCATION {location[:200]!r} cannot be used: what was written is not what is read")


def _is_under(path: str, root: str) -> bool:
    return f"{path.rstrip('/')}/".startswith(f"{root.rstrip('/')}/")


def upload(folder: Path, names: Iterable[str]) -> None:
    """Store written files under their final names and check that all of each arrived; raises OSError.

    Does nothing for an ordinary folder.
    """
    remote = remote_of(folder)
    if remote is None:
        return
    names = list(names)
    try:
        store, root = file_system(remote.url)
        if "s3" not in store.protocol:
            store.makedirs(root, exist_ok=True)
        for name in names:
            store.put_file(str(folder / name), f"{root}/{name}")
            store.invalidate_cache()
            size = store.info(f"{root}/{name}")["size"]
            if size != (folder / name).stat().st_size:
                raise OSError(errno.EIO, f"{name} has {size} bytes there after the upload")
    except Exception as exc:  # every store has errors of its own
        raise OSError(errno.EIO, f"LOCATION {remote.url}: {exc}") from exc
    evict(folder, remote, keep=names)


def fetch(path: Path) -> None:
    """Bring a segment into its cache.

    Raises FileNotFoundError where it is not in the store, or in an ordinary folder; StorageFull where the store does
    not answer.
    """
    remote = remote_of(path.parent)
    if remote is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        store, root = file_system(remote.url)
        store.get_file(f"{root}/{path.name}", str(temporary))
        _note_use(temporary)
        temporary.replace(path)
    except FileNotFoundError:
        temporary.unlink(missing_ok=True)
        raise
    except Exception as exc:
        temporary.unlink(missing_ok=True)
        if busy := out_of_files(exc):
            raise busy from exc
        raise StorageFull(f"LOCATION {remote.url}: segment {path.name} cannot be read: {exc}") from exc
    evict(path.parent, remote, keep=[path.name])


def refetch(path: Path) -> bool:
    """Bring a segment into its cache anew, because what is there is damaged; False in an ordinary folder."""
    if remote_of(path.parent) is None:
        return False
    path.unlink(missing_ok=True)
    fetch(path)
    return True


def _note_use(path: Path) -> None:
    """The time of the last use, finer than the kernel's own clock for files; that of the last change stays."""
    with suppress(FileNotFoundError):
        os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))


def readable(path: Path) -> Any:
    """What pyarrow reads a segment from: its path, or an open file where the cache might let go of it meanwhile."""
    if not (path.parent / MARKER).exists():
        return path
    import pyarrow as pa

    for _ in range(TRIES_MAX):
        try:
            file = pa.OSFile(str(path))
        except FileNotFoundError:
            fetch(path)
            continue
        _note_use(path)
        return file
    raise Internal(f"segment {path.name} leaves the cache faster than it can be read; raise segment_cache_bytes_max")


def opened(path: Path) -> Any:
    """The same as an open file of pyarrow's."""
    import pyarrow as pa

    source = readable(path)
    return pa.OSFile(str(path)) if source is path else source


def link(path: Path, target: Path) -> None:
    """Make ``target`` the segment at ``path``: a symbolic link, or one that keeps a file of the cache alive."""
    if not (path.parent / MARKER).exists():
        target.symlink_to(path)
        return
    for _ in range(TRIES_MAX):
        try:
            target.hardlink_to(path)
        except FileNotFoundError:
            fetch(path)
            continue
        _note_use(target)
        return
    raise Internal(f"segment {path.name} leaves the cache faster than it can be read; raise segment_cache_bytes_max")


def remove_file(path: Path) -> None:
    """Remove a segment, in the store and here; one that is gone already is no error, nor one that cannot be reached."""
    path.unlink(missing_ok=True)
    remote = remote_of(path.parent)
    if remote is not None and not path.name.startswith("."):
        _remove_there(remote, [path.name])


def matching(folder: Path, pattern: str) -> list[Path]:
    """The files of a folder, in the store and here, whose names match a pattern."""
    found = {path.name for path in folder.glob(pattern)}
    remote = remote_of(folder)
    if remote is not None:
        try:
            store, root = file_system(remote.url)
            store.invalidate_cache()
            names = [str(path).rpartition("/")[2] for path in store.ls(root, detail=False)]
            found.update(fnmatch.filter(names, pattern))
        except FileNotFoundError:
            pass  # nothing was ever stored there
        except Exception as exc:  # noqa: BLE001 - every store has errors of its own; strays can wait
            log.warning("a remote location cannot be listed", url=remote.url, error=str(exc))
    return [folder / name for name in sorted(found) if name != MARKER]


def move_aside(path: Path, folder: str) -> Path:
    """Move a file of the store into a folder beside it, and let go of it here; its place in a cache of that folder."""
    remote = remote_of(path.parent)
    assert remote is not None
    aside = Remote(f"{remote.url.rstrip('/')}/{folder}", remote.cache_bytes_max)
    try:
        store, root = file_system(remote.url)
        if "s3" not in store.protocol:
            store.makedirs(f"{root}/{folder}", exist_ok=True)
        store.mv(f"{root}/{path.name}", f"{root}/{folder}/{path.name}")
    except Exception as exc:  # every store has errors of its own
        raise OSError(errno.EIO, f"LOCATION {remote.url}: {exc}") from exc
    path.unlink(missing_ok=True)
    cache = path.parent / folder
    cache.mkdir(exist_ok=True)
    (cache / MARKER).write_bytes(msgspec.json.encode(aside))
    return cache / path.name


def _remove_there(remote: Remote, names: Sequence[str]) -> None:
    try:
        store, root = file_system(remote.url)
        for name in names:
            with suppress(FileNotFoundError):
                store.rm_file(f"{root}/{name}")
    except Exception as exc:  # noqa: BLE001 - as above: a stray that stays is found at the next start
        log.warning("a file of a remote location stays until the next start", url=remote.url, error=str(exc))


def evict(folder: Path, remote: Remote, keep: Sequence[str]) -> None:
    """Remove from the cache what was used least lately, until it is within its bound; ``keep`` stays."""
    root = next(parent for parent in folder.parents if parent.name == CACHE)
    kept = {folder / name for name in keep}
    found = []
    for path in root.rglob("*.parquet"):
        with suppress(FileNotFoundError):
            status = path.stat()
            found.append((status.st_atime_ns, status.st_size, path))
    excess = sum(size for _, size, _ in found) - remote.cache_bytes_max
    for _, size, path in sorted(found):
        if excess <= 0:
            break
        if path not in kept:
            path.unlink(missing_ok=True)
            excess -= size
