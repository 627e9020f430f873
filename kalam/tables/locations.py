"""A table's LOCATION: whether it may lie there, and whether files can be made there."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from kalam.names import USER_LENGTH_MAX
from kalam.schema import StoredOptions, TableDefinition
from kalam.settings import Settings
from kalam.storage.log.catalogue import Catalogue
from kalam.storage.segments.folders import USER_ID, Folders
from kalam.storage.segments.local_location import check_local_location, try_local_location
from kalam.storage.segments.remote import check_remote_location, is_remote, try_remote_location

LONGEST_USER: Final = "x" * USER_LENGTH_MAX
"""Stands for every user where a LOCATION is tried: what fits this one fits all."""


def check_location(definition: TableDefinition, settings: Settings, catalogue: Catalogue, folders: Folders) -> None:
    """Raise InvalidOption unless a table may have its LOCATION, and can use it; blocking."""
    if not isinstance(definition.options, StoredOptions) or definition.options.location is None:
        return
    location = definition.options.location
    tables = catalogue.stored()
    if is_remote(location):
        others = {other.name: folders.location(other) for other in tables}
        check_remote_location(location.split(USER_ID)[0], settings.location_roots, others)
        try_remote_location(location.replace(USER_ID, LONGEST_USER))
        return
    check_local_location(
        location,
        Path(location.split(USER_ID)[0]).absolute(),
        settings.data_dir.resolve(),
        [Path(root) for root in settings.location_roots if not is_remote(root)],
        {other.name: Path(folders.location(other).split(USER_ID)[0]) for other in tables},
    )
    try_local_location(location, Path(location.replace(USER_ID, LONGEST_USER)))
