"""Where a table's LOCATION may lie on this machine.

A location is a table's own: its files are written, replaced and, with the table, removed there. So it lies under a
folder that the settings name, apart from every other table's, and never where the server keeps what is no table.
"""

from __future__ import annotations

import errno
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from kalam.errors import InvalidOption
from kalam.names import TableName

PROBE: Final = ".kalam-probe-"
NAME_LENGTH_MAX: Final = 120
"""No segment's name is longer."""
OWN_FOLDERS = frozenset({"backup-links", "key-rows", "nats", "remote", "shared", "snapshots", "unclaimed", "user"})


def check_local_location(
    location: str, folder: Path, data_dir: Path, roots: Sequence[Path], others: Mapping[TableName, Path]
) -> None:
    """Raise InvalidOption unless a table may have ``location``.

    ``folder`` is the part of it that all users' copies share, ``roots`` are the settings' ``location_roots``, and
    ``others`` are the folders of the other tables.
    """
    if not Path(location).is_absolute() or ".." in Path(location).parts:
        raise InvalidOption(f"LOCATION {location!r} has to be an absolute path without '..'")
    if not any(folder.is_relative_to(root) for root in (data_dir, *roots)):
        raise InvalidOption(f"LOCATION {location!r} is not under a folder of the server's setting location_roots")
    if data_dir.is_relative_to(folder) or _is_own(folder, data_dir):
        raise InvalidOption(f"LOCATION {location!r} is the server's own; take another folder")
    for name, taken in others.items():
        if folder.is_relative_to(taken) or taken.is_relative_to(folder):
            raise InvalidOption(f"LOCATION {location!r} overlaps that of table {name}")


def try_local_location(location: str, folder: Path) -> None:
    """Raise InvalidOption unless files can be made, read and removed in ``folder``, of which nothing is left behind."""
    probe = folder / f"{PROBE}{uuid.uuid4().hex}".ljust(NAME_LENGTH_MAX, "x")
    made: list[Path] = []
    try:
        try:
            made += [parent for parent in (folder, *folder.parents) if not parent.exists()]
            folder.mkdir(parents=True, exist_ok=True)
            probe.write_bytes(PROBE.encode())
            if probe.read_bytes() != PROBE.encode():
                raise OSError(errno.EIO, "what was written is not what is read")
        finally:
            with suppress(OSError):  # it was never made; the error that tells why is on its way
                probe.unlink()
            for parent in made:
                with suppress(OSError):  # nor these; or there is somebody else's in it meanwhile
                    parent.rmdir()
    except OSError as exc:
        raise InvalidOption(
            f"LOCATION {location[:200]!r} cannot be used: {exc.strerror}", hint="no file can be made and read there"
        ) from exc


def _is_own(folder: Path, data_dir: Path) -> bool:
    if not folder.is_relative_to(data_dir):
        return False
    first = folder.relative_to(data_dir).parts[0]
    return first in OWN_FOLDERS or first == "lock" or first.startswith("kalam.")
