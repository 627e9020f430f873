"""A view runs with its owner's rights."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from kalam.access.model import Privilege
from kalam.access.rights import Rights
from kalam.errors import PermissionDenied
from kalam.schema import Table

PERMISSION: Final = "permission"
"""The reason of a view that stands still because its owner may not read what it reads."""


def may_read(view: Table, sources: Iterable[Table], rights: Rights) -> bool:
    """Whether the owner of a view may read what it reads."""
    return all(rights.may(view.owned_by, Privilege.SELECT, source) for source in sources)


def check_may_read(view: Table, sources: Iterable[Table], rights: Rights) -> None:
    """Raise PermissionDenied where they may not; which table it is, is theirs to know."""
    if not may_read(view, sources, rights):
        raise PermissionDenied(f"{view.owned_by}, whose view {view.name} is read, may not SELECT on what it reads")
